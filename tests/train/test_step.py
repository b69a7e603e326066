"""The training step gives the same update under jit, pmap and any mesh, and handles non-finite losses."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vidjax
from vidjax.layers.preprocess import Inputs
from vidjax.sharding import JitRunner, PmapRunner, create_mesh, state_shardings
from vidjax.tasks import create_task
from vidjax.train.state import init_state
from vidjax.train.step import make_train_step

SHAPE = (4, 16, 16, 3)
INPUTS = Inputs(("rgb",), {"rgb": (0.45,) * 3}, {"rgb": (0.25,) * 3})
CLIP = jax.ShapeDtypeStruct((1, *SHAPE), jnp.float32)


def batch(seed=0, size=8):
    rng = np.random.default_rng(seed)
    return {
        "inputs": {"rgb": rng.integers(0, 256, (size, *SHAPE), np.uint8)},
        "targets": {"label": rng.integers(0, 3, size).astype(np.int32)},
    }


def setup(bn_groups=1, ema=None, tx=None, **step_options):
    model = vidjax.create_model("slow_fusion_conv4", 3, tiny=True, bn_groups=bn_groups)
    tx = tx or optax.sgd(0.1, 0.9)
    init = functools.partial(init_state, model, tx, 0, CLIP, ema is not None)
    loss = create_task("classification", inputs=INPUTS).loss
    make = functools.partial(make_train_step, loss, model, tx, ema=ema, **step_options)
    return init, make


def run(runner, state, steps=3):
    state = runner.place(state)
    for i in range(steps):
        data = jax.tree.map(lambda x: jax.device_put(x, runner.batch_sharding), batch(i))
        state, metrics = runner.step(state, data)
    return runner.read(state), metrics


def jit_runner(init, make, rules=(), **mesh):
    mesh = create_mesh(**mesh)
    shardings = state_shardings(jax.eval_shape(init), mesh, rules)
    return JitRunner(make(), mesh, shardings), jax.jit(init, out_shardings=shardings)()


def test_pmap_equals_jit():
    """BatchNorm statistics are per device under pmap, as under jit with one group per device."""
    init, make = setup(bn_groups=4)
    expected, expected_metrics = run(*jit_runner(init, make))
    init, make = setup()
    runner = PmapRunner(make(axis_name=PmapRunner.AXIS), create_mesh(), jax.eval_shape(init))
    got, got_metrics = run(runner, jax.jit(init)())
    chex.assert_trees_all_close(expected.replace(rng=None), got.replace(rng=None), rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(expected_metrics["loss"], got_metrics["loss"], rtol=1e-5)


@pytest.mark.parametrize(
    "rules, mesh",
    [
        ((), dict(data=2, fsdp=2)),
        (((".*", "fsdp"),), dict(data=1, fsdp=4)),
        ((("head/kernel", ["tensor", None]), ("kernel", "fsdp")), dict(data=1, fsdp=2, tensor=2)),
    ],
)
def test_any_mesh_equals_one_device(rules, mesh):
    init, make = setup(ema=0.9)
    expected, _ = run(*jit_runner(init, make, data=1, devices=jax.devices()[:1]))
    runner, state = jit_runner(init, make, rules, **mesh)
    got, _ = run(runner, state)
    chex.assert_trees_all_close(jax.device_get(expected), jax.device_get(got), rtol=2e-5, atol=2e-6)
    if rules:  # parameters and their momentum are sharded
        kernel = got.params["conv2"]["kernel"]
        assert kernel.addressable_shards[0].data.size < kernel.size
        momentum = got.opt_state[0].trace["conv2"]["kernel"]
        assert momentum.sharding == kernel.sharding


def test_accumulation_equals_the_whole_batch():
    """Uses BatchNorm groups equal to the accumulated parts, so that the statistics agree."""
    init, make = setup(bn_groups=4)
    rows = np.arange(8).reshape(-1, 4).T.ravel()  # parts take every fourth row, groups adjacent ones
    whole, _ = make()(init(), jax.tree.map(lambda x: x[rows], batch()))
    init, make = setup(accumulation=4)
    parts, metrics = jax.jit(make())(init(), batch())
    chex.assert_trees_all_close(whole.params, parts.params, rtol=1e-5, atol=1e-6)
    assert np.isfinite(metrics["loss"])
    # The running statistics are updated once per part, here four times with momentum 0.9.
    moved = np.abs(parts.model_state["batch_stats"]["bn1"]["var"] - 1).mean()
    once = np.abs(whole.model_state["batch_stats"]["bn1"]["var"] - 1).mean()
    assert moved > 2 * once


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradient_norm_excludes_frozen_parameters(accumulation):
    """Gradient clipping therefore depends on trained parameters only."""

    def frozen(params):
        return {module: jax.tree.map(lambda _, m=module: m != "head", params[module]) for module in params}

    init, make = setup(accumulation=accumulation, tx=optax.sgd(1.0))
    free, metrics = jax.jit(make())(init(), batch())
    init, make = setup(accumulation=accumulation, tx=optax.sgd(1.0), frozen=frozen)
    state = init()
    new, frozen_metrics = jax.jit(make())(state, batch())
    head = optax.tree.norm(jax.tree.map(jnp.subtract, state.params["head"], free.params["head"]))
    assert frozen_metrics["grad_norm"] < metrics["grad_norm"]
    np.testing.assert_allclose(frozen_metrics["grad_norm"], head, rtol=1e-4)
    chex.assert_trees_all_close(new.params["head"], free.params["head"], rtol=1e-5)
    chex.assert_trees_all_equal(new.params["conv1"], state.params["conv1"])


def test_ema_follows_the_parameters():
    init, make = setup(ema=0.5)
    old = init()
    new, _ = jax.jit(make())(old, batch())
    decay = min(0.5, 1 / 10)
    expected = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, old.ema, new.params)
    chex.assert_trees_all_close(new.ema, expected, rtol=1e-6)
    assert new.eval_variables["params"] is new.ema


@pytest.mark.parametrize("nonfinite", ["stop", "skip"])
def test_nonfinite_loss_leaves_the_state_unchanged(nonfinite):
    init, make = setup(nonfinite=nonfinite, ema=0.9)
    step = jax.jit(make())
    good, metrics = step(init(), batch())
    assert metrics["nonfinite"] == 0
    head = good.params["head"]["kernel"]
    poisoned = good.replace(params={**good.params, "head": {**good.params["head"], "kernel": head * jnp.inf}})
    bad, metrics = step(poisoned, batch(1))
    assert not np.isfinite(metrics["loss"]) and metrics["nonfinite"] == 1
    chex.assert_trees_all_equal(bad.model_state, good.model_state)
    chex.assert_trees_all_equal(bad.opt_state, good.opt_state)
    # Afterwards "skip" continues with the next batch and "stop" keeps the state.
    assert bad.step == (2 if nonfinite == "skip" else 1)
    healed, _ = step(bad.replace(params=good.params), batch(2))
    moved = not np.array_equal(healed.params["head"]["kernel"], good.params["head"]["kernel"])
    assert moved == (nonfinite == "skip")


def test_random_key_depends_on_the_step():
    """Two steps from the same state have the same dropout mask, the next step has another."""

    class Noisy(nn.Module):
        num_classes: int = 3

        @nn.compact
        def __call__(self, video, train=False):
            x = nn.Dropout(0.5, deterministic=not train)(jnp.ones((len(video), 64)))
            return nn.Dense(3)(x), {}

    model, tx = Noisy(), optax.sgd(0.0)
    loss = create_task("classification", inputs=INPUTS).loss
    step = jax.jit(make_train_step(loss, model, tx))
    state = init_state(model, tx, 0, CLIP, False)
    first, a = step(state, batch())
    _, b = step(state, batch())
    _, c = step(first, batch())
    assert a["loss"] == b["loss"] != c["loss"]
