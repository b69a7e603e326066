"""Contract of every registered model, tested on its tiny preset."""

import re
import zlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.errors import UserError
from vidjax.registry import dummy_input

NAMES = [n for n in vidjax.list_models() if vidjax.spec(n).task == "classify"]
VIDEO = [n for n in NAMES if len(vidjax.spec(n).input_shape) != 3]  # not of images


# Only the class token of MViTv2's last block reaches the output. It is not pooled and has no position, so the
# parameters of the other queries never receive a gradient, as in the authors' models.
UNUSED = {
    "MViTv2": r"\['block2'\]\['attn'\]\['(pool_q|rel_pos_.)'\]",
    "VTN": r"^\['block1'\]\['attn'\]\['qkv'\]",  # the class token has its own projections
}
# Scales parameters that are too small in the tiny preset for the order of frames to change the output.
LOUDER = {"vtn_vit_b_16": 12.0}


def _distinct():
    """Returns one name per distinct tiny preset, which variants may share; slow but for one of a class."""
    found, modules, chosen = {}, set(), []
    for name in NAMES:
        s = vidjax.spec(name)
        fields = {k: v for k, v in {**s.preset, **s.tiny}.items() if k != "trunk"}
        found.setdefault((s.module, str(sorted(fields.items()))), name)
    for (module, _), name in found.items():
        chosen.append(pytest.param(name, marks=pytest.mark.slow) if module in modules else name)
        modules.add(module)
    return chosen


def tiny(name, num_classes=5, batch=3, **overrides):
    spec = vidjax.spec(name)
    model = vidjax.create_model(name, num_classes, tiny=True, **overrides)
    normal = lambda shape, dtype: jax.random.normal(jax.random.PRNGKey(1), shape, dtype)  # noqa: E731
    return model, dummy_input(spec.tiny_input_shape, batch, normal)


def init(model, x):
    """Draws variables with numpy, which avoids a compilation.

    No parameter is zero: a zero layer would block the gradients of those before it.
    """

    def draw(path, p):
        rng = np.random.default_rng(zlib.crc32(jax.tree_util.keystr(path).encode()))
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 1.0, p.shape).astype(p.dtype)
        spread = (2 / np.prod(p.shape[:-1])) ** 0.5 if p.ndim > 1 else 0.1
        return (spread * rng.normal(size=p.shape)).astype(p.dtype)

    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0), x)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def _shuffled(name, x):
    order = np.array([2, 0, 3, 1] if x.shape[1] == 4 else np.random.default_rng(0).permutation(x.shape[1]))
    if name.startswith("single_frame"):  # the output depends on the middle frame only
        order[x.shape[1] // 2] = x.shape[1] // 2
        return x[:, order] * (np.arange(x.shape[1]) == x.shape[1] // 2).reshape(1, -1, 1, 1, 1)
    return x[:, order]


@pytest.mark.parametrize("name", _distinct())
def test_outputs_gradients_bfloat16_and_order_awareness(name):
    model, x = tiny(name)
    variables = init(model, x)
    params = variables.pop("params")

    @jax.jit
    def run(params, x):
        def loss(params):
            (logits, endpoints), _ = model.apply(
                {"params": params, **variables},
                x,
                train=True,
                mutable=list(variables),
                rngs={"dropout": jax.random.PRNGKey(3)},
            )
            # A loss with a gradient for every class, unlike that of symmetric targets.
            return (jax.nn.log_softmax(logits) * jnp.arange(15.0).reshape(3, 5)).sum(), (logits, endpoints)

        return jax.grad(loss, has_aux=True)(params)

    grads, (logits, endpoints) = run(params, x)
    assert logits.shape == (3, 5) and logits.dtype == jnp.float32
    assert "pre_logits" in endpoints
    first = next(k for k in endpoints if k.split("/")[-1] in ("stage1", "tokens"))
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        where = jax.tree_util.keystr(path)
        assert jnp.isfinite(g).all(), where
        unused = re.search(UNUSED.get(type(model).__name__, "^$"), where) is not None
        assert (g != 0).any() != unused, where

    half, _ = tiny(name, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(half.init, jax.random.PRNGKey(0), x)["params"]
    assert {p.dtype for p in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    apply = jax.jit(model.apply)
    exact, _ = apply({"params": params, **variables}, x)
    rough, e = jax.jit(half.apply)({"params": params, **variables}, x)
    assert e[first].dtype == jnp.bfloat16 and rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, atol=0.05 * float(jnp.abs(exact).max()))

    if name in VIDEO:
        louder = jax.tree.map(lambda p: p * LOUDER.get(name, 1.0) if p.ndim > 1 else p, params)
        logits, other = (
            apply({"params": louder, **variables}, clip)[0]
            for clip in (x, jax.tree.map(partial(_shuffled, name), x))
        )
        change = float(jnp.abs(other - logits).max() / jnp.abs(logits).max())
        assert change > 1e-4 if vidjax.spec(name).order_aware else change < 1e-5, change


@pytest.mark.parametrize("name", NAMES)
def test_no_classifier_returns_features(name):
    model, x = tiny(name, num_classes=0)
    variables = jax.eval_shape(model.init, jax.random.PRNGKey(0), x)
    assert "head" not in variables["params"]
    features, endpoints = jax.eval_shape(model.apply, variables, x)
    assert features.shape == endpoints["pre_logits"].shape


@pytest.mark.parametrize("name", ["single_frame_resnet18", "slow_fusion_conv4", "late_fusion_resnet18_mlp"])
def test_training_mode_changes_statistics_and_dropout_only(name):
    model, x = tiny(name, dropout=0.5)
    variables = init(model, x)

    @partial(jax.jit, static_argnums=0)
    def run(train, seed=0):
        rngs = {"dropout": jax.random.PRNGKey(seed)}
        (logits, _), state = model.apply(variables, x, train=train, mutable=["batch_stats"], rngs=rngs)
        return logits, state

    assert np.array_equal(run(True)[0], run(True)[0])
    assert not np.array_equal(run(True)[0], run(True, seed=1)[0])
    assert np.array_equal(run(False)[0], run(False, seed=1)[0])
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), run(True)[1]["batch_stats"], variables["batch_stats"]
    )
    assert all(jax.tree.leaves(moved))
    same = jax.tree.map(
        lambda a, b: bool((a == b).all()), run(False)[1]["batch_stats"], variables["batch_stats"]
    )
    assert all(jax.tree.leaves(same))


def test_late_fusion_of_a_repeated_frame_equals_one_frame():
    model, x = tiny("late_fusion_resnet18")
    still = jnp.repeat(x[:, :1], x.shape[1], axis=1)
    variables = init(model, x)
    one, _ = jax.jit(vidjax.create_model("single_frame_resnet18", 5, tiny=True).apply)(variables, still)
    for pool in ("", "_max"):
        fused = vidjax.create_model(f"late_fusion_resnet18{pool}", 5, tiny=True)
        many, _ = jax.jit(fused.apply)(variables, still)
        np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-6)


def test_attention_weights_sum_to_one():
    model, x = tiny("late_fusion_resnet18_attention")
    _, endpoints = jax.jit(model.apply)(init(model, x), x)
    np.testing.assert_allclose(endpoints["frame_attention"].sum((1, 2)), 1.0, rtol=1e-6)


def test_presets_fit_their_class_and_typos_get_suggestions():
    with pytest.raises(UserError, match="did you mean resnet50"):
        vidjax.spec("resnet_50")
    with pytest.raises(UserError, match="unknown option of r3d_18 'widht': did you mean width"):
        vidjax.create_model("r3d_18", widht=3)
    with pytest.raises(UserError, match="negative"):
        vidjax.create_model("r3d_18", -1)
    assert vidjax.list_models("r3*_18") == ["r3d_18"]
