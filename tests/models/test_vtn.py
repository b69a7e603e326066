"""VTN: attention pattern of frames and class token, with cost linear in the frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.convert import read_weights
from vidjax.convert.engine import export
from vidjax.convert.load import ORIGINS
from vidjax.models.transformers.vtn import LongformerBlock, WindowAttention, sliding_window


@pytest.mark.parametrize("frames, reach", [(1, 3), (3, 3), (7, 2), (12, 4), (5, 8)])
def test_sliding_window_equals_masked_attention(frames, reach):
    rng = np.random.default_rng(frames)
    q, k, v = (rng.normal(size=(2, n, 2, 4)).astype(np.float32) for n in (frames, frames + 1, frames + 1))
    scores = np.einsum("bnhd,bmhd->bhnm", q, k) / 2
    at = np.arange(frames)
    near = abs(at.reshape(-1, 1) - at.reshape(1, -1)) <= reach
    seen = np.concatenate([np.ones((frames, 1), bool), near], axis=1)
    weights = np.where(seen[None, None], np.exp(scores), 0)
    want = np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(sliding_window(q, k, v, reach, "plain"), want, rtol=1e-4, atol=1e-5)


def layer_and_input(frames=12, window=4):
    layer, x = WindowAttention(2, window), jax.random.normal(jax.random.PRNGKey(0), (1, 1 + frames, 8))
    params = jax.jit(layer.init)(jax.random.PRNGKey(1), x)
    return layer, jax.tree.map(lambda p: p + 0.3 * jnp.sin(jnp.arange(p.size)).reshape(p.shape), params), x


def test_attention_pattern_is_window_plus_class_token():
    """Gradients between tokens are nonzero within the window and to and from the class token."""
    layer, params, x = layer_and_input()
    reach = jax.jit(jax.jacobian(lambda x: layer.apply(params, x)[0].sum(-1)))(x)[:, 0]
    at = np.arange(13)
    seen = abs(at.reshape(-1, 1) - at.reshape(1, -1)) <= 2
    seen[0] = seen[:, 0] = True
    np.testing.assert_array_equal(np.asarray(jnp.abs(reach).max(-1) > 1e-7), seen)


def macs(frames):
    block = LongformerBlock(12, 3072, 32)
    trace = graph.trace(block, (1 + frames, 768))
    return jaxpr_cost(trace.jaxpr).macs


def test_temporal_layers_use_truncated_normal_of_initializer_range():
    block, x = LongformerBlock(2, 64, 4, initializer_range=0.1), jnp.zeros((1, 13, 32))
    params = jax.jit(block.init)(jax.random.PRNGKey(1), x)["params"]
    kernels = [p for p in jax.tree.leaves(params) if p.ndim == 2]
    assert len(kernels) == 6
    for kernel in kernels:
        assert 0.08 < kernel.std() < 0.1 and 0.19 < abs(kernel).max() <= 0.2  # cut at two of them


def test_macs_are_linear_in_frames():
    """250 frames are 8 chunks; twice as many need twice the MACs, except for the class token's."""
    one, two, four = (macs(n) for n in (256, 512, 1024))
    assert (four - two) == pytest.approx(2 * (two - one), rel=1e-6)
    each = 768 * 768 * 6 + 2 * 768 * 3072 + 2 * 768 * (3 * 16 + 1) + 2 * 768
    assert (two - one) / 256 == pytest.approx(each, rel=1e-3)


def test_positions_are_indexed_by_frame_number():
    model = vidjax.create_model("vtn_vit_b_16", 5, tiny=True, stride=3)
    x = jax.random.normal(jax.random.PRNGKey(1), (1, 5, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.PRNGKey(0), x)

    @jax.jit
    def used(params):
        grads = jax.grad(lambda p: (model.apply({"params": p}, x)[0] ** 2).sum())(params)
        return jnp.abs(grads["pos_embed"]).max(-1) > 0

    # 0, 3, 6, 9 and, after the tenth, 2; row 10 is the class token's, 11 padding's
    assert np.flatnonzero(used(variables["params"])).tolist() == [0, 2, 3, 6, 9, 10]


def test_training_clips_start_at_random_frame_numbers():
    model = vidjax.create_model("vtn_vit_b_16", 5, tiny=True)
    x = jax.random.normal(jax.random.PRNGKey(1), (1, 3, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.PRNGKey(0), x)

    @jax.jit
    def run(seed):
        return model.apply(variables, x, train=True, rngs={"dropout": jax.random.PRNGKey(seed)})[0]

    assert len({float(run(seed)[0, 0]) for seed in range(12)}) > 3


def test_image_weights_load_into_the_trunk():
    vit = vidjax.create_model("vit_b_16", 7, tiny=True)
    shapes = jax.eval_shape(vit.init, jax.random.PRNGKey(0), jnp.zeros((1, 32, 32, 3)))
    draw = lambda s: np.random.default_rng(s.size).normal(size=s.shape).astype(np.float32)  # noqa: E731
    flat = {jax.tree_util.keystr(p, simple=True, separator="/"): draw(s) for p, s in leaves(shapes)}
    weights = export(flat, ORIGINS["timm"]["vit_b_16"])
    found = read_weights("vtn_vit_b_16", weights, trunk_options=dict(tiny=True))
    assert found.owner == "vit_b_16" and "trunk" in found.notes[0]
    got = found.variables["params"]["trunk"]["block1"]["mlp"]["fc1"]["kernel"]
    np.testing.assert_array_equal(got, flat["params/block1/mlp/fc1/kernel"])


def leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)
