"""Precise and frozen BatchNorm statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vidjax
from vidjax.checkpoint_io import load_variables
from vidjax.config import resolve
from vidjax.data.pipeline import train_batches
from vidjax.errors import UserError
from vidjax.layers.conv import conv
from vidjax.layers.norm import statistics
from vidjax.layers.preprocess import normalize
from vidjax.train.experiment import build, initial_state
from vidjax.train.loop import train
from vidjax.train.precise_bn import make_precise_bn

CONFIG = dict(
    batch=4,
    steps=2,
    data=dict(
        name="synthetic_motion",
        options=dict(size=32, frames=8, train=24, val=12, test=12),
        frames=4,
        stride=1.0,
        size=16,
        short_side=16,
    ),
    model=dict(name="slow_fusion_conv4", tiny=True),
    optimizer=dict(lr=0.1, weight_decay=0.1, decay_all=True),
    report=False,
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def setup():
    model = vidjax.create_model("slow_fusion_conv4", 3, tiny=True)
    clips = np.random.default_rng(0).normal(1.0, 2.0, (3, 4, 4, 16, 16, 3)).astype(np.float32)
    clips *= np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1, 1, 1, 1)  # batches with different statistics
    return model, jax.jit(model.init)(jax.random.PRNGKey(0), clips[0]), clips


def flat(tree):
    return {k: np.asarray(x) for k, x in flatten_dict(tree, sep="/").items()}


def test_statistics_equal_those_of_the_concatenated_batches():
    model, variables, clips = setup()
    got = flat(make_precise_bn(model)(variables, iter(clips))["batch_stats"])
    with statistics("measured"):
        _, state = model.clone(bn_groups=3).apply(
            variables, clips.reshape(-1, *clips.shape[2:]), train=True, mutable=["batch_stats"]
        )
    expected = flat(state["batch_stats"])
    assert got.keys() == expected.keys()
    for k, x in expected.items():
        np.testing.assert_allclose(got[k], x, rtol=2e-5, atol=1e-6, err_msg=k)

    # The statistics of the first layer are those of its convolution, independent of normalization.
    together = jnp.asarray(clips.reshape(-1, *clips.shape[2:]))
    first = conv(together, variables["params"]["conv1"]["kernel"], (1, 2, 2), 1)
    np.testing.assert_allclose(got["bn1/mean"], np.mean(first, (0, 1, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["bn1/var"], np.var(first, (0, 1, 2, 3)), rtol=1e-4)


def test_old_statistics_are_ignored_and_parameters_unchanged():
    model, variables, clips = setup()
    other = {**variables, "batch_stats": jax.tree.map(lambda x: x + 0.5, variables["batch_stats"])}
    a, b = (flat(make_precise_bn(model)(v, clips)["batch_stats"]) for v in (variables, other))
    for k, x in a.items():
        np.testing.assert_allclose(b[k], x, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="needs at least one batch"):
        make_precise_bn(model)(variables, [])


def test_the_loop_evaluates_and_saves_with_precise_statistics(tmp_path):
    plain = dict(CONFIG, optimizer=dict(lr=0.0))
    train(resolve(plain), tmp_path / "plain")
    larger = ["data.short_side=20", "evals.val.size=20"]  # larger crops in evaluation only
    train(resolve(plain, ["model.precise_bn_batches=3", *larger]), tmp_path / "precise")
    running, precise = (load_variables(tmp_path / name)[0] for name in ("plain", "precise"))
    for k, x in flat(running["params"]).items():
        np.testing.assert_array_equal(flat(precise["params"])[k], x)
    # After two steps, running averages are still close to their initial values; precise statistics are not.
    again = build(resolve(plain))
    spec = vidjax.spec("slow_fusion_conv4")
    batches = train_batches(again.train_source, again.config.data, 4, again.config.seed + 1)
    clips = [normalize(jnp.asarray(next(batches)["inputs"]["rgb"]), spec.mean, spec.std) for _ in range(3)]
    batches.close()
    expected = flat(make_precise_bn(again.model)(jax.tree.map(jnp.asarray, running), clips)["batch_stats"])
    for k, x in flat(precise["batch_stats"]).items():
        np.testing.assert_allclose(x, expected[k], rtol=1e-4, atol=1e-5, err_msg=k)
        assert not np.allclose(flat(running["batch_stats"])[k], x, rtol=1e-2)


@pytest.mark.parametrize("frozen", [True, False])
def test_freeze_bn(frozen):
    """Statistics, scales and biases of BatchNorm are unchanged, even with weight decay on all parameters."""
    exp = build(resolve(CONFIG, [f"model.freeze_bn={frozen}"]))
    state = initial_state(exp)
    before = flat({"params": state.params, **state.model_state})
    before = {k: x.copy() for k, x in before.items()}
    rng = np.random.default_rng(0)
    batch = {
        "inputs": {"rgb": rng.integers(0, 256, (4, 4, 16, 16, 3), np.uint8)},
        "targets": {"label": rng.integers(0, 3, 4).astype(np.int32)},
    }
    batch = jax.tree.map(lambda x: jax.device_put(x, exp.runner.batch_sharding), batch)
    state, _ = exp.runner.step(exp.runner.place(state), batch)
    after = flat({"params": state.params, **state.model_state})
    moved = {k for k, x in before.items() if not np.array_equal(after[k], x)}
    norms = {k for k in before if "/bn" in k}
    assert norms and moved >= before.keys() - norms - {"params/head/bias"}
    if frozen:
        assert not moved & norms
    else:
        assert moved >= norms - {k for k in norms if k.endswith("/bias")}


def test_freeze_bn_and_precise_bn_are_mutually_exclusive():
    with pytest.raises(UserError, match="are mutually exclusive"):
        resolve(CONFIG, ["model.freeze_bn=True", "model.precise_bn_batches=2"])
