"""Video Swin: window partition, shift, relative position biases and padding."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vidjax
from vidjax.analysis.params import abstract_variables, count_params
from vidjax.convert.engine import export
from vidjax.convert.origins.video_swin import IMAGE, _index
from vidjax.layers.transformer import Attention
from vidjax.models.transformers.video_swin import (
    PatchMerging,
    WindowAttention,
    fit_window,
    merge,
    partition,
    position_bias,
    window_regions,
)


def places(size):
    """Coordinates of all tokens of a grid, [tokens, 3]."""
    return np.array(list(itertools.product(*map(range, size))))


def same_window(size, window, shift):
    """Returns bool [tokens, tokens]: whether two tokens share a window.

    The grid is cut at `shift` plus multiples of `window`, without a cyclic shift.
    """
    ids = (places(size) - shift) // window
    return (ids[:, None] == ids[None]).all(-1)


@pytest.mark.parametrize(
    "size, window, shift",
    [((4, 6, 6), (2, 3, 3), (1, 1, 1)), ((8, 4, 6), (4, 2, 3), (2, 1, 1)), ((2, 6, 9), (2, 3, 3), (0, 1, 1))],
)
def test_shifted_window_mask_matches_brute_force(size, window, shift):
    regions = window_regions(size, window, shift)
    tokens = np.arange(np.prod(size)).reshape(1, *size, 1)
    rolled = np.roll(tokens, [-s for s in shift], (1, 2, 3))
    found = np.zeros((np.prod(size),) * 2, bool)
    for window_tokens, region in zip(partition(rolled, window)[0, :, :, 0], regions):
        found[np.ix_(window_tokens, window_tokens)] |= region[:, None] == region[None]
    assert np.array_equal(found, same_window(size, window, shift))


def test_merge_inverts_partition():
    x = np.arange(2 * 4 * 6 * 6 * 5).reshape(2, 4, 6, 6, 5)
    assert np.array_equal(merge(partition(x, (2, 3, 2)), (4, 6, 6), (2, 3, 2)), x)
    assert np.array_equal(partition(x, (2, 3, 2))[1, 0].reshape(2, 3, 2, 5), x[1, :2, :3, :2])


def test_bias_depends_on_the_relative_offset():
    window = (2, 3, 4)
    table = np.random.default_rng(0).standard_normal((3, 5, 7, 2)).astype(np.float32)
    at = places(window)
    offset = at[:, None] - at[None] + np.array(window) - 1
    want = table[tuple(np.moveaxis(offset, -1, 0))].transpose(2, 0, 1)
    assert np.array_equal(position_bias(jnp.asarray(table), window), want)
    assert np.array_equal(table.reshape(-1, 2)[_index(window)].transpose(2, 0, 1), want)


def attend(size, window, shift, edges, width=8, heads=2):
    module = WindowAttention(heads, window, shift, edges, False, jnp.float32, jnp.float32)
    x = jax.random.normal(jax.random.PRNGKey(0), (2, *size, width))
    variables = module.init(jax.random.PRNGKey(1), x)
    variables = jax.tree.map(
        lambda p: 0.5 * jax.random.normal(jax.random.PRNGKey(p.size), p.shape), variables
    )
    return (
        np.asarray(module.apply(variables, x)[0]),
        np.asarray(x),
        jax.tree.map(np.asarray, variables["params"]),
    )


@pytest.mark.parametrize("size", [(4, 6, 6), (4, 5, 7), (3, 4, 3), (1, 2, 8)])
@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 1, 1)])
def test_window_attention_equals_masked_full_attention(size, shift):
    """Against attention over all real tokens, so padding has no part in it."""
    window, heads = (2, 3, 3), 2
    y, x, p = attend(size, window, shift, "exact")
    fitted, moved = fit_window(size, window, shift)
    x = x.reshape(2, -1, x.shape[-1])
    qkv = (x @ p["qkv"]["kernel"] + p["qkv"]["bias"]).reshape(*x.shape[:2], 3, heads, -1)
    q, k, v = np.moveaxis(qkv, 2, 0)
    at = places(size)
    offset = at[:, None] - at[None] + np.array(window) - 1
    seen = same_window(size, fitted, moved)
    table = p["relative_position_bias"].reshape(3, 5, 5, heads)
    bias = table[tuple(np.moveaxis(np.where(seen[..., None], offset, 0), -1, 0))]
    scores = np.einsum("bqhd,bkhd->bqkh", q, k) / 2 + bias[None]
    weights = np.where(seen[None, ..., None], np.exp(scores), 0)
    weights /= weights.sum(2, keepdims=True)
    want = np.einsum("bqkh,bkhd->bqhd", weights, v).reshape(x.shape) @ p["proj"]["kernel"] + p["proj"]["bias"]
    np.testing.assert_allclose(y.reshape(x.shape), want, rtol=1e-4, atol=1e-5)


def test_padding_rules_agree_only_if_windows_divide_the_grid():
    for size, shift, same in [
        ((4, 6, 6), (1, 1, 1), True),
        ((1, 6, 6), (1, 1, 1), True),  # cut short in time
        ((4, 5, 6), (1, 1, 1), False),
        ((4, 6, 2), (1, 1, 1), False),
    ]:
        a, b = (attend(size, (2, 3, 3), shift, edges)[0] for edges in ("reference", "exact"))
        assert (np.abs(a - b).max() < 1e-6) == same, size


def test_single_window_equals_full_attention():
    y, x, p = attend((2, 3, 4), (2, 3, 4), (1, 1, 2), "reference")
    assert np.abs(p["relative_position_bias"]).max() > 0.1
    module = WindowAttention(2, (2, 3, 4), (1, 1, 2), "reference", False, jnp.float32, jnp.float32)
    p = {**p, "relative_position_bias": np.zeros_like(p["relative_position_bias"])}
    y, _ = module.apply({"params": p}, x)
    p.pop("relative_position_bias")
    want, _ = Attention(2).apply({"params": p}, x.reshape(2, -1, 8))
    np.testing.assert_allclose(y.reshape(want.shape), want, rtol=1e-4, atol=1e-5)


def test_patch_merging_concatenates_2x2_and_pads_odd_sides():
    x = jax.random.normal(jax.random.PRNGKey(0), (1, 2, 3, 5, 4))
    module = PatchMerging(jnp.float32, jnp.float32)
    y, variables = module.init_with_output(jax.random.PRNGKey(1), x)
    assert y.shape == (1, 2, 2, 3, 8)
    even = module.apply(variables, jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0))))
    assert np.array_equal(even, y)
    alone = module.apply(variables, x[:, :, 2:, 2:4])  # the square at (2, 2) depends on itself alone
    np.testing.assert_allclose(alone[:, :, 0, 0], y[:, :, 1, 1], rtol=1e-5, atol=1e-6)


def test_something_something_and_384_pixel_presets():
    for name, classes, fields, size, params in [
        ("swin3d_b", 174, dict(window=(16, 7, 7)), 224, 88_834_038),
        ("swin3d_l", 400, dict(window=(8, 12, 12)), 384, 199_999_516),
    ]:
        model = vidjax.create_model(name, classes, **fields)
        assert count_params(abstract_variables(model, (32, size, size, 3))["params"]) == params


def test_drop_path_is_training_only_and_remat_keeps_outputs():
    x = jax.random.normal(jax.random.PRNGKey(0), (2, 2, 12, 12, 3))

    def make(**fields):
        return vidjax.create_model("swin3d_t", 5, tiny=True, depths=(2,), heads=(2,), **fields)

    def grads(remat):
        return jax.jit(jax.grad(lambda v: make(remat=remat).apply(v, x, train=True)[0].std()))(variables)

    model = make(drop_path=0.9)
    variables = jax.jit(model.init)(jax.random.PRNGKey(0), x)
    plain, _ = jax.jit(make().apply)(variables, x)
    assert np.array_equal(jax.jit(model.apply)(variables, x)[0], plain)
    train = jax.jit(lambda key: model.apply(variables, x, train=True, rngs={"dropout": key})[0])
    trained = [train(jax.random.PRNGKey(i)) for i in range(4)]
    assert any(not np.array_equal(t, plain) for t in trained)
    for remat in ("dots", "full"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads("none"), grads(remat)
        )


def test_return_attention_gives_window_weights():
    x = jax.random.normal(jax.random.PRNGKey(0), (2, 8, 32, 32, 3))
    model = vidjax.create_model("swin3d_t", 5, tiny=True, return_attention=True)
    (_, endpoints), _ = jax.jit(model.init_with_output)(jax.random.PRNGKey(0), x)
    weights = endpoints["stage1_block1_attention"]
    assert weights.shape == (2, 2 * 3 * 3, 1, 18, 18)  # a grid of 4x8x8 in windows of 2x3x3
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    assert (weights == 0).any()  # tokens from opposite edges are masked


def test_inflated_weights_match_on_still_clips_of_any_length():
    fields = dict(width=8, depths=(2, 1, 1, 1), heads=(1, 2, 2, 2), edges="exact")
    shapes = abstract_variables(vidjax.create_model("swin3d_t", 7, **fields), (8, 28, 28, 3))
    rng = np.random.default_rng(0)
    ours = {k: rng.normal(size=s.shape).astype(np.float32) for k, s in flatten_dict(shapes, sep="/").items()}
    image = export(ours, IMAGE["swin3d_t"])
    assert image["patch_embed.proj.weight"].shape == (8, 3, 4, 4)
    assert image["layers.0.blocks.1.attn.relative_position_bias_table"].shape == (13 * 13, 1)
    model, variables = vidjax.load_pretrained("swin3d_t", image, **fields)
    still = jax.random.normal(jax.random.PRNGKey(0), (1, 1, 28, 28, 3))
    short, long = (jax.jit(model.apply)(variables, jnp.repeat(still, n, 1))[0] for n in (2, 20))
    assert short.shape == (1, 7)
    np.testing.assert_allclose(short, long, rtol=1e-4, atol=1e-4)
