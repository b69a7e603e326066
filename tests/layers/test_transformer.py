"""Transformer layers against their equations; scan and remat against the plain stack."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.layers.norm import LayerNorm
from vidjax.layers.stacking import laid_out_as, stack_blocks, unstack_blocks
from vidjax.layers.transformer import (
    REMAT,
    Attention,
    Block,
    DropPath,
    PatchEmbed,
    TokenGrid,
    apply_blocks,
    gelu,
    interpolate_positions,
    sincos_positions,
)


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


class Encoder(nn.Module):
    scan: bool = False
    remat: str = "none"
    drop_path: float = 0.0
    return_attention: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        block = functools.partial(Block, 2, 12, layer_scale=0.5, return_attention=self.return_attention)
        kinds = dict(drop_path=self.drop_path, scan=self.scan, remat=self.remat)
        return apply_blocks(block, x, 3, train, **kinds)


X = draw(2, 5, 8)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(Encoder().init)(jax.random.key(1), X)


def gradient(model, variables):
    loss = lambda v: (model.apply(v, X)[0] ** 2).sum()  # noqa: E731
    return jax.jit(jax.value_and_grad(loss))(variables)


@pytest.mark.parametrize("remat", REMAT)
@pytest.mark.parametrize("scan", [False, True])
def test_scan_and_remat_keep_outputs_and_gradients(variables, scan, remat):
    want, want_grad = gradient(Encoder(), variables)
    model = Encoder(scan, remat)
    given = laid_out_as(jax.eval_shape(model.init, jax.random.key(1), X), variables)
    got, grad = gradient(model, given)
    assert ("blocks" in grad["params"]) == scan
    np.testing.assert_allclose(got, want, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(laid_out_as(variables, grad)), jax.tree.leaves(want_grad), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("scan", [False, True])
def test_remat_saves_fewer_activations_and_scan_traces_one_block(variables, scan):
    def kept(remat):
        model = Encoder(scan, remat)
        given = laid_out_as(jax.eval_shape(model.init, jax.random.key(1), X), variables)
        jaxpr = jax.make_jaxpr(lambda v: jax.vjp(lambda v: model.apply(v, X)[0], v)[1])(given)
        return sum(v.aval.size for v in jaxpr.jaxpr.outvars), str(jaxpr).count("dot_general")

    sizes, products = zip(*(kept(r) for r in ("none", "dots", "full")))
    assert sizes[0] > sizes[1] > sizes[2]
    assert products[0] <= (6 if scan else 18)


def test_return_attention_gives_weights_of_every_layer(variables):
    for scan in (False, True):
        model = Encoder(scan, return_attention=True)
        given = laid_out_as(jax.eval_shape(model.init, jax.random.key(1), X), variables)
        y, extras = model.apply(given, X)
        assert extras["attention"].shape == (3, 2, 2, 5, 5)
        np.testing.assert_allclose(extras["attention"].sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(y, Encoder().apply(variables, X)[0], atol=1e-6)
    assert Encoder().apply(variables, X)[1] == {}


def test_drop_path_rate_increases_with_depth(variables):
    """At a rate of 1 the last block's branches are always dropped and the first's never."""
    two = {"params": {k: variables["params"][k] for k in ("block0", "block2")}}
    model = Encoder(drop_path=1 - 1e-6)
    run = lambda seed, train: model.apply(variables, X, train, rngs={"dropout": jax.random.key(seed)})[0]  # noqa: E731
    np.testing.assert_array_equal(run(0, False), Encoder().apply(variables, X)[0])
    first = Block(2, 12, layer_scale=0.5).apply({"params": two["params"]["block0"]}, X)[0]
    outcomes = np.stack([run(seed, True) for seed in range(8)])
    whole = np.isclose(outcomes, first[None], atol=1e-6).all((2, 3))  # both later blocks left out: 1 in 4
    assert 0 < whole.sum() < whole.size
    scanned = Encoder(scan=True, drop_path=1 - 1e-6)
    given = laid_out_as(jax.eval_shape(scanned.init, jax.random.key(1), X), variables)
    y = np.stack([scanned.apply(given, X, True, rngs={"dropout": jax.random.key(s)})[0] for s in range(8)])
    assert np.isclose(y, first[None], atol=1e-6).all((2, 3)).any()


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    x = jnp.ones((4000, 2, 3))
    y = DropPath().apply({}, x, 0.3, True, rngs={"dropout": jax.random.key(0)})
    per_sample = np.asarray(y).reshape(4000, -1)
    assert (per_sample == per_sample[:, :1]).all()
    assert {*np.unique(per_sample.round(4))} == {0, np.float32(1 / 0.7).round(4)}
    assert abs(per_sample.mean() - 1) < 0.05
    np.testing.assert_array_equal(DropPath().apply({}, x, 0.3, False), x)


def test_qv_bias_equals_fused_bias_with_any_k_bias():
    """Equals a fused bias with zeros for k; a bias of k does not change the output."""
    model = Attention(2, "qv")
    params = jax.jit(model.init)(jax.random.key(0), X)["params"]
    params |= {"q_bias": draw(8, seed=1), "v_bias": draw(8, seed=2)}
    got, none = model.apply({"params": params}, X)
    assert none is None
    for k_bias in (jnp.zeros(8), draw(8, seed=3)):
        fused = dict(params)
        fused["qkv"] = params["qkv"] | {"bias": jnp.concatenate([fused["q_bias"], k_bias, fused["v_bias"]])}
        del fused["q_bias"], fused["v_bias"]
        want, _ = Attention(2).apply({"params": fused}, X)
        np.testing.assert_allclose(got, want, atol=1e-6)
    assert jax.eval_shape(Attention(2, "").init, jax.random.key(0), X)["params"]["qkv"].keys() == {"kernel"}
    with pytest.raises(ValueError, match="'kv'"):
        Attention(2, "kv").init(jax.random.key(0), X)


def test_gelu_derivatives_match_jax():
    x = jnp.linspace(-8, 8, 4001)
    want = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in np.asarray(x, np.float64)]
    np.testing.assert_allclose(gelu(x), want, atol=1e-6)
    slope = jax.vmap(jax.grad(lambda v: jax.nn.gelu(v, approximate=False)))(x)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), slope, atol=1e-6)
    np.testing.assert_allclose(jax.jvp(gelu, (x,), (jnp.ones_like(x),))[1], slope, atol=1e-6)


def test_layer_norm_is_accurate_for_large_means():
    x = np.random.default_rng(0).normal(size=(3, 7, 64)) * 0.1 + 1000
    model = LayerNorm(1e-6)
    params = {"scale": draw(64), "bias": draw(64, seed=1)}
    x32 = x.astype(np.float32).astype(np.float64)
    normed = (x32 - x32.mean(-1, keepdims=True)) / np.sqrt(x32.var(-1, keepdims=True) + 1e-6)
    want = normed * np.asarray(params["scale"]) + np.asarray(params["bias"])
    got = model.apply({"params": params}, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, want, atol=5e-3)
    flax = nn.LayerNorm(epsilon=1e-6)
    small = draw(3, 64, seed=4)
    loss = lambda m: jax.grad(lambda p, x: (m.apply({"params": p}, x) ** 3).sum(), (0, 1))(params, small)  # noqa: E731
    for a, b in zip(jax.tree.leaves(loss(model)), jax.tree.leaves(loss(flax))):
        np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max()))
    assert LayerNorm(dtype=jnp.bfloat16).apply({"params": params}, small).dtype == jnp.bfloat16


@pytest.mark.parametrize("patch, shape", [((2, 4, 3), (2, 5, 9, 9, 3)), ((4, 4), (2, 9, 8, 3))])
def test_patch_embedding_matches_strided_convolution(patch, shape):
    x = draw(*shape)
    model = PatchEmbed(6, patch)
    params = jax.jit(model.init)(jax.random.key(0), x)["params"]
    params["bias"] = draw(6, seed=1)
    got = model.apply({"params": params}, x)
    conv = nn.Conv(6, patch, strides=patch, padding="VALID")
    np.testing.assert_allclose(got, conv.apply({"params": params}, x), atol=1e-5)
    assert got.shape[1:-1] == tuple(n // p for n, p in zip(shape[1:], patch))
    with pytest.raises(ValueError, match="no patch"):
        model.apply({"params": params}, x[:, :, :1])


def test_sincos_and_interpolated_positions():
    table = sincos_positions(50, 6)
    assert table.dtype == np.float32
    assert table[7, 2] == np.float32(math.sin(7 / 10000 ** (2 / 6)))
    assert table[7, 5] == np.float32(math.cos(7 / 10000 ** (4 / 6)))
    learned = draw(1 + 2 * 3 * 4, 5)
    assert interpolate_positions(learned, (2, 3, 4), (2, 3, 4), prefix=1) is learned
    finer = interpolate_positions(learned, (2, 3, 4), (4, 6, 8), prefix=1)
    assert finer.shape == (1 + 4 * 6 * 8, 5)
    np.testing.assert_array_equal(finer[0], learned[0])
    line = jnp.broadcast_to(jnp.arange(8.0)[None, :, None], (3, 8, 2)).reshape(-1, 2)
    halved = interpolate_positions(line, (3, 8), (3, 4)).reshape(3, 4, 2)
    np.testing.assert_allclose(jnp.diff(halved[:, 1:3], axis=1), 2.0, atol=0.1)


def test_token_grid_unflattens_without_prefix():
    grid = TokenGrid((2, 3, 4), prefix=1)
    assert grid.count == 25
    x = jnp.arange(2 * 25 * 3).reshape(2, 25, 3)
    y = grid.unflatten(x)
    assert y.shape == (2, 2, 3, 4, 3)
    np.testing.assert_array_equal(y[1, 1, 2, 3], x[1, 24])
    assert grid.unflatten(jnp.zeros((2, 25)), axis=-1).shape == (2, 2, 3, 4)


def test_stack_and_unstack_are_inverse_at_any_depth():
    leaf = lambda i: {"kernel": np.full((2, 3), i), "bias": np.full(3, -i)}  # noqa: E731
    apart = {
        "params": {
            "trunk": {f"block{i}": {"fc": leaf(i)} for i in range(12)} | {"norm": leaf(9)},
            **{f"temporal_block{i}": leaf(i) for i in range(2)},
            "stage1_block0": leaf(4),
        },
    }
    stacked = stack_blocks(apart)
    assert stacked["params"]["trunk"]["blocks"]["fc"]["kernel"].shape == (12, 2, 3)
    assert stacked["params"]["temporal_blocks"]["bias"][1, 0] == -1
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(stacked), apart)
    mixed = {"params": apart["params"] | {"trunk": stacked["params"]["trunk"]}}
    for tree in (apart, stacked, mixed):
        for model in (apart, stacked, mixed):
            jax.tree.map(np.testing.assert_array_equal, laid_out_as(model, tree), model)
    with pytest.raises(ValueError, match="numbered"):
        stack_blocks({"block1": leaf(0)})
