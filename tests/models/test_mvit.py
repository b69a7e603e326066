"""Multiscale vision transformers: pooled attention, its relative positions, and the shapes of the stages."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.layers.attention import attention
from vidjax.layers.conv import conv
from vidjax.layers.lowering import lowering_platform
from vidjax.models.transformers.mvit import PoolConv, block_shapes, relative_positions, resize, with_positions


def normal(seed, *shape):
    return jax.random.normal(jax.random.PRNGKey(seed), shape)


def test_relative_positions_depend_only_on_distance():
    n, table = 5, normal(0, 9, 3)
    r = np.asarray(relative_positions(table, n, n))
    for i in range(n):
        for j in range(n):
            assert np.array_equal(r[i, j], table[i - j + n - 1])
    # Half as many keys: a step of one key is a step of two queries.
    r = np.asarray(relative_positions(normal(1, 15, 3), 8, 4))
    assert np.array_equal(r[2:, 1:], r[:-2, :-1])
    assert np.array_equal(r[0, -1], normal(1, 15, 3)[0])


def test_position_interpolation_is_linear_and_exact_at_native_size():
    table = normal(0, 7, 2)
    assert resize(table, (7, 2)) is table
    for size in (4, 13):
        centres = (np.arange(size) + 0.5) * 7 / size - 0.5
        want = np.stack([np.interp(centres, np.arange(7), table[:, c]) for c in range(2)], 1)
        np.testing.assert_allclose(resize(table, (size, 2)), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mvit_v1_b_16x4", "mvit_v2_s_16x4"])
def test_positions_are_interpolated_only_for_other_sizes(name):
    for clip, interpolated in (((4, 32, 32), False), ((6, 48, 48), True)):
        model = vidjax.create_model(name, 5, tiny=True, clip=clip)
        x = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.PRNGKey(0), x)
        assert ("resize" in str(jax.make_jaxpr(model.apply)(variables, x))) == interpolated


def test_extra_columns_equal_relative_position_bias():
    sizes_q, sizes_k, heads, d = (2, 4, 6), (2, 2, 3), 2, 8
    q, k, v = normal(0, 2, 49, heads, d), normal(1, 2, 13, heads, d), normal(2, 2, 13, heads, d)
    positions = [normal(i, a, b, d) for i, (a, b) in enumerate(zip(sizes_q, sizes_k))]
    columns = attention(v=v, **with_positions(q, k, positions))
    with lowering_platform("reference"):
        bias = with_positions(q, k, positions)
        np.testing.assert_allclose(columns, attention(v=v, **bias), rtol=1e-4, atol=1e-5)
    bias = np.asarray(bias["bias"])
    assert (bias[:, :, 0] == 0).all() and (bias[:, :, :, 0] == 0).all()  # the class token has no place
    at_q, at_k = np.unravel_index(17, sizes_q), np.unravel_index(7, sizes_k)
    want = sum(q[1, 18, 1] @ p[i, j] for p, i, j in zip(positions, at_q, at_k))
    np.testing.assert_allclose(bias[1, 1, 18, 8], want, rtol=1e-4)


def test_pooling_is_shared_across_heads():
    grid = normal(0, 2, 3, 6, 5, 8)
    module = PoolConv(2, (1, 2, 2), jnp.float32, jnp.float32)
    y, variables = module.init_with_output(jax.random.PRNGKey(0), grid)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (3, 3, 3, 1, 4) and y.shape == (2, 3, 3, 3, 8)
    for head in (slice(0, 4), slice(4, 8)):
        alone = conv(grid[..., head], kernel, (1, 2, 2), 1, groups=4, lowering="native")
        np.testing.assert_allclose(y[..., head], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("improved", [False, True])
def test_stage_shapes_match_papers(improved):
    """96, 192, 384 and 768 channels on grids of size 56, 28, 14 and 7.

    Keys are on a grid of size 7, or 14 where queries are pooled.
    """
    shapes = block_shapes(96, 1, 16, (1, 3, 14), (1, 8, 8), improved)
    assert [s.heads for s in shapes] == [1] + [2] * 2 + [4] * 11 + [8] * 2
    assert [s.dim for s in shapes] == [96 * s.heads for s in shapes]
    assert all(a.dim_out == b.dim_in for a, b in itertools.pairwise(shapes)) and shapes[-1].dim_out == 768
    side = 56
    for i, s in enumerate(shapes):
        assert side // s.stride_kv[1] == (14 if i in (1, 3, 14) else 7)
        side //= s.stride_q[1]
    assert side == 7
    widening = [i for i, s in enumerate(shapes) if s.dim_in != s.dim_out]
    assert widening == ([1, 3, 14] if improved else [0, 2, 13])
    assert [s.pool_q for s in shapes] == [improved or i in (1, 3, 14) for i in range(16)]


@pytest.mark.parametrize("name", ["mvit_v1_b_16x4", "mvit_v2_s_16x4"])
def test_drop_path_is_training_only_and_attention_is_returned(name):
    x = normal(0, 2, 2, 16, 16, 3)
    fields = dict(clip=(2, 16, 16), depth=2)
    plain = vidjax.create_model(name, 5, tiny=True, **fields)
    dropped = vidjax.create_model(name, 5, tiny=True, drop_path=0.9, return_attention=True, **fields)
    variables = jax.jit(plain.init)(jax.random.PRNGKey(0), x)
    want, _ = jax.jit(plain.apply)(variables, x)
    got, endpoints = jax.jit(dropped.apply)(variables, x)
    assert np.array_equal(got, want)
    assert endpoints["block1_attention"].shape == (2, 2, 1 + 4, 1 + 4)
    np.testing.assert_allclose(endpoints["block0_attention"].sum(-1), 1.0, rtol=1e-5)
    train = jax.jit(lambda key: dropped.apply(variables, x, train=True, rngs={"dropout": key})[0])
    assert any(not np.array_equal(train(jax.random.PRNGKey(i)), want) for i in range(4))


def test_remat_keeps_outputs_and_gradients():
    x = normal(0, 1, 2, 16, 16, 3)

    def grads(remat):
        model = vidjax.create_model("mvit_v2_s_16x4", 5, tiny=True, clip=(2, 16, 16), depth=1, remat=remat)
        return jax.jit(jax.grad(lambda v: model.apply(v, x, train=True)[0].std()))(variables)

    model = vidjax.create_model("mvit_v2_s_16x4", 5, tiny=True, clip=(2, 16, 16), depth=1)
    variables = jax.jit(model.init)(jax.random.PRNGKey(0), x)
    want = grads("none")
    for remat in ("dots", "full"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), want, grads(remat))
