"""Multiply-adds against closed forms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from vidjax.analysis.macs import function_cost, model_cost
from vidjax.layers.conv import Conv, conv


def macs(fn, *shapes):
    return function_cost(fn, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).macs


@pytest.mark.parametrize(
    ("x", "kernel", "options", "expected"),
    [
        ((2, 8, 8, 8, 3), (3, 3, 3, 3, 16), dict(padding=1), 2 * 512 * 27 * 3 * 16),
        ((1, 8, 9, 9, 4), (3, 3, 3, 4, 6), dict(padding=1, strides=(1, 2, 2)), 8 * 25 * 27 * 4 * 6),
        ((1, 9, 9, 8), (3, 3, 2, 12), dict(padding=0, groups=4), 49 * 9 * 2 * 12),
        ((1, 4, 6, 6, 8), (3, 3, 3, 1, 8), dict(padding="SAME", groups=8), 4 * 36 * 27 * 8),
        ((1, 11, 11, 3), (3, 3, 3, 5), dict(padding=0, dilation=2), 49 * 9 * 3 * 5),
        ((3, 20, 5), (4, 5, 7), dict(padding=0, strides=4), 3 * 5 * 4 * 5 * 7),
    ],
)
def test_macs_of_convolutions(x, kernel, options, expected):
    assert macs(lambda a, k: conv(a, k, **options), x, kernel) == expected


def test_macs_are_independent_of_convolution_layout():
    def channels_first(x, k):
        return lax.conv_general_dilated(x, k, (2, 2), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW"))

    assert macs(channels_first, (2, 3, 9, 9), (16, 3, 3, 3)) == 2 * 16 * 3 * 9 * 16

    def by_batch(x, k):
        return lax.conv_general_dilated(x, k, (1,), "VALID", batch_group_count=2)

    # Two groups of two images, each with half of the eight features.
    assert macs(by_batch, (4, 3, 10), (8, 3, 3)) == 2 * 8 * 8 * 3 * 3


def test_transposed_convolution_counts_its_inputs():
    layer = lambda x, k: lax.conv_transpose(x, k, (2, 2), "SAME")  # noqa: E731
    assert macs(layer, (1, 8, 8, 4), (4, 4, 4, 6)) == 64 * 16 * 4 * 6


def test_macs_of_matrix_products():
    assert macs(jnp.matmul, (5, 7), (7, 11)) == 5 * 7 * 11
    assert macs(jnp.matmul, (2, 3, 5, 7), (2, 3, 7, 11)) == 6 * 5 * 7 * 11
    scores = lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k)  # noqa: E731
    assert macs(scores, (2, 10, 3, 8), (2, 20, 3, 8)) == 2 * 3 * 10 * 20 * 8


def test_macs_of_attention_are_two_matrix_products():
    q, k = (2, 10, 3, 8), (2, 20, 3, 8)
    assert macs(jax.nn.dot_product_attention, q, k, k) == 2 * (2 * 3 * 10 * 20 * 8)


W = (4, 4)
ONE = 2 * 4 * 4
GRID = jnp.ones((3, 5))


def _custom_vjp():
    f = jax.custom_vjp(lambda x, w: x @ w)
    f.defvjp(lambda x, w: (x @ w, (x, w)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))
    return f


def _custom_jvp():
    f = jax.custom_jvp(lambda x, w: x @ w)
    f.defjvps(lambda t, y, x, w: t @ w, lambda t, y, x, w: x @ t)
    return f


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (jax.jit(lambda x, w: jax.jit(jnp.matmul)(x, w) @ w), 2 * ONE),
        (jax.checkpoint(lambda x, w: jnp.tanh(x @ w) @ w), 2 * ONE),
        (_custom_vjp(), ONE),
        (_custom_jvp(), ONE),
        (lambda x, w: lax.scan(lambda c, _: (c @ w @ w, None), x, length=7)[0], 14 * ONE),
        (lambda x, w: lax.scan(lambda c, i: lax.scan(lambda d, j: (d @ w, j), c, i), x, GRID), 15 * ONE),
        (lambda x, w: lax.cond(x[0, 0] > 0, lambda: x @ w @ w @ w, lambda: x @ w), 3 * ONE),
        (lambda x, w: lax.switch(jnp.int32(x[0, 0]), [lambda: x @ w @ w, lambda: x @ w]), 2 * ONE),
        (lambda x, w: jax.vmap(lambda row: row @ w)(x), ONE),
        (lambda x, w: jax.grad(lambda w: (x @ w).sum())(w), 2 * ONE),
        (lambda x, w: jax.grad(lambda w: (x @ w @ w).sum())(w), 5 * ONE),
        # As above, and x @ w once more.
        (lambda x, w: jax.grad(jax.checkpoint(lambda w: (x @ w @ w).sum()))(w), 6 * ONE),
    ],
)
def test_macs_under_transformations(fn, expected):
    assert macs(fn, (2, 4), W) == expected


def test_while_loop_counts_once_and_is_reported():
    cost = function_cost(
        lambda x, w: lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ w, x), jnp.ones((2, 4)), jnp.ones(W)
    )
    assert (cost.macs, cost.loops) == (ONE, 1)


def test_shard_map_counts_all_shards():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows, whole = PartitionSpec("data"), PartitionSpec()
    fn = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    assert macs(fn, (8, 4), W) == 8 * 16


def test_elementwise_work_is_counted_separately():
    cost = function_cost(lambda x: jnp.exp(nn.relu(x) + 1).sum(1), jnp.ones((3, 5)))
    assert cost.macs == 0
    assert cost.elementwise == {"arithmetic": 30, "transcendental": 15, "reduction": 15}
    pool = function_cost(lambda x: nn.max_pool(x, (2, 2), (2, 2)), jnp.ones((1, 4, 4, 3)))
    assert pool.elementwise == {"reduction": 4 * 3 * 4}


def test_operations_without_a_rule_are_reported():
    assert function_cost(lambda x: jnp.fft.fft(x).real, jnp.ones((8,))).uncounted == {"fft": 1}


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return nn.Dense(4, name="dense")(x), None


class Outer(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        scanned = nn.scan(Inner, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = scanned(name="scanned")(x, None)
        x, _ = nn.remat(Inner)(name="again")(x)
        x = self.two(x) @ jnp.ones(W)
        shared = nn.vmap(Inner, in_axes=0, variable_axes={"params": None}, split_rngs={"params": False})
        return shared(name="each")(x)[0], {}

    def two(self, x):
        return Inner(name="method")(x)[0]


def test_by_module_groups_macs():
    cost = model_cost(Outer(), (4,), batch=2)
    assert cost.by_module() == {"scanned": 3 * ONE, "again": ONE, "method": ONE, "(model)": ONE, "each": ONE}
    assert [*cost.by_module(2)] == ["scanned/dense", "again/dense", "method/dense", "(model)", "each/dense"]
    assert sum(cost.by_module(2).values()) == cost.macs


class Video3D(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = Conv(8, (3, 3, 3), strides=(1, 2, 2), padding=1, name="one")(x)
        x = Conv(64, (3, 3, 3), padding=1, name="two")(x)
        return Conv(64, (1, 3, 3), padding=(0, 1, 1), name="three")(x), {}


def test_counts_do_not_depend_on_the_backend(monkeypatch):
    shape, found = (8, 32, 32, 3), {}
    for backend in ("cpu", "gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        found[backend] = model_cost(Video3D(), shape).by_module()
    places = 8 * 16 * 16
    expected = {"one": places * 27 * 3 * 8, "two": places * 27 * 8 * 64, "three": places * 9 * 64 * 64}
    assert found == dict.fromkeys(("cpu", "gpu", "tpu"), expected)


class Block(nn.Module):
    """A block of ViT-g (Zhai et al., arXiv:2106.04560): 1408 wide, 16 heads, MLP 6144."""

    @nn.compact
    def __call__(self, x):
        b, n, d = x.shape
        q, k, v = jnp.split(nn.Dense(3 * d)(nn.LayerNorm()(x)).reshape(b, n, 48, d // 16), 3, axis=2)
        x = x + nn.Dense(d)(jax.nn.dot_product_attention(q, k, v).reshape(b, n, d))
        return x + nn.Dense(d)(nn.gelu(nn.Dense(6144)(nn.LayerNorm()(x))))


class Giant(nn.Module):
    @nn.compact
    def __call__(self, video, train=False):
        x = Conv(1408, (2, 14, 14), (2, 14, 14), use_bias=True)(video)
        x = x.reshape(x.shape[0], -1, 1408)
        for _ in range(40):
            x = Block()(x)
        return nn.Dense(400)(x.mean(1)), {}


def test_billion_parameter_model_is_traced_without_allocation():
    # VideoMAE V2-g at 16x224x224, patches 2x14x14: 2542.8 GMACs for 2048 tokens.
    assert model_cost(Giant(), (16, 224, 224, 3)).macs / 1e9 == pytest.approx(2542.8, rel=1e-4)
