"""Pooling against Flax, XLA and explicit definitions."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.layers.lowering import lowering_platform
from vidjax.layers.pool import adaptive_avg_pool, avg_pool, max_pool

CASES = [
    ((2, 9, 3), (3,), (2,), [(1, 1)]),
    ((2, 11, 8, 3), (3, 3), (2, 2), [(1, 1), (1, 1)]),
    ((2, 9, 10, 3), (2, 2), (2, 2), [(0, 0), (0, 0)]),
    ((1, 6, 7, 8, 2), (3, 3, 3), (1, 1, 1), [(1, 1)] * 3),
    ((2, 5, 7, 9, 2), (1, 3, 3), (1, 2, 2), [(0, 0), (0, 1), (1, 0)]),
    ((1, 6, 8, 6, 2), (2, 2, 2), (2, 2, 2), [(0, 0), (1, 1), (0, 0)]),
    ((1, 9, 8, 2), (2, 5), (3, 1), [(0, 1), (2, 2)]),
]


def both(f, x):
    """Returns the output and the gradient for a fixed random output gradient."""
    y, pull = jax.vjp(f, x)
    return y, pull(jax.random.normal(jax.random.key(1), y.shape, y.dtype))[0]


def draw(shape, levels=None):
    x = jax.random.normal(jax.random.key(0), shape)
    return x if levels is None else jnp.round(x * levels)


@pytest.mark.parametrize("levels", [None, 1])  # with a few levels most windows hold equal elements
@pytest.mark.parametrize("shape, window, strides, pads", CASES)
def test_max_pool_and_gradient_match_flax(shape, window, strides, pads, levels):
    x = draw(shape, levels)
    got = both(lambda x: max_pool(x, window, strides, pads), x)
    want = both(lambda x: nn.max_pool(x, window, strides, pads), x)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_allclose(got[1], want[1], atol=1e-6)
    np.testing.assert_array_equal(max_pool(x, window, strides, pads), want[0])
    same = max_pool(x, window, strides, "SAME")
    np.testing.assert_array_equal(same, nn.max_pool(x, window, strides, "SAME"))


def test_max_pool_gradient_goes_to_first_of_ties():
    x = jnp.zeros((1, 2, 4, 4, 1))
    grad = jax.grad(lambda x: max_pool(x, 2, 2).sum())(x)
    want = np.zeros((1, 2, 4, 4, 1))
    want[:, 0, ::2, ::2] = 1
    np.testing.assert_array_equal(grad, want)


def test_max_pool_propagates_nan():
    x = draw((1, 6, 6, 1)).at[0, 2, 3, 0].set(jnp.nan)
    for y in (max_pool(x, 3, 1, 1), both(lambda x: max_pool(x, 3, 2, 1), x)[0]):
        assert jnp.isnan(y).any() and not jnp.isnan(y).all()


def test_max_pool_jvp_and_lowering():
    x, dx = draw((2, 8, 8, 3)), jax.random.normal(jax.random.key(3), (2, 8, 8, 3))
    y, dy = jax.jvp(lambda x: max_pool(x, 3, 2, 1), (x,), (dx,))
    back = jax.vjp(lambda x: max_pool(x, 3, 2, 1), x)[1](jnp.ones_like(y))[0]
    assert float(dy.sum()) == pytest.approx(float((back * dx).sum()), rel=1e-4)
    text = str(jax.make_jaxpr(jax.grad(lambda x: max_pool(x, 3, 2, 1).sum()))(x))
    assert "select_and_scatter" not in text
    with lowering_platform("reference"):
        assert "reduce_window_max" in str(jax.make_jaxpr(lambda x: max_pool(x, 3, 1, 1))(x))


def windows(n, k, step, pad, ceil):
    """Returns the positions of each window by PyTorch's rule; the padded axis starts at -pad."""
    count = (math.ceil if ceil else math.floor)((n + 2 * pad - k) / step) + 1
    if ceil and (count - 1) * step >= n + pad:
        count -= 1
    return [range(i * step - pad, i * step - pad + k) for i in range(count)]


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("n", range(4, 12))
@pytest.mark.parametrize("k, step, pad", [(3, 2, 0), (3, 2, 1), (2, 2, 0), (2, 3, 1), (3, 1, 1)])
def test_ceil_mode_matches_pytorch(n, k, step, pad, ceil):
    x = np.asarray(draw((1, n, 1)))
    spans = windows(n, k, step, pad, ceil)
    real = [[i for i in span if 0 <= i < n] for span in spans]
    got = max_pool(x, k, step, pad, ceil)
    np.testing.assert_array_equal(got[0, :, 0], [max(x[0, i, 0] for i in w) for w in real])
    sums = [sum(x[0, i, 0] for i in w) for w in real]
    padded = [len([i for i in span if i < n + pad]) for span in spans]
    for include, counts in ((True, padded), (False, [len(w) for w in real])):
        got = avg_pool(x, k, step, pad, include, ceil)
        np.testing.assert_allclose(got[0, :, 0], np.divide(sums, counts), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape, window, strides, pads", CASES)
@pytest.mark.parametrize("include", [False, True])
def test_avg_pool_and_gradient_match_flax(shape, window, strides, pads, include):
    x = draw(shape)
    got = both(lambda x: avg_pool(x, window, strides, pads, include), x)
    want = both(lambda x: nn.avg_pool(x, window, strides, pads, include), x)
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_adaptive_avg_pool_averages_pytorch_cells():
    x = np.asarray(draw((1, 5, 7, 2)))
    got = adaptive_avg_pool(x, (3, 7))
    want = [x[:, a:b].mean(1) for a, b in ((0, 2), (1, 4), (3, 5))]
    np.testing.assert_allclose(got, np.stack(want, 1), rtol=1e-6)
    np.testing.assert_array_equal(
        adaptive_avg_pool(x[:, :1, :1], 7), np.broadcast_to(x[:, :1, :1], (1, 7, 7, 2))
    )
    np.testing.assert_allclose(adaptive_avg_pool(x, 1)[:, 0, 0], x.mean((1, 2)), rtol=1e-5)


def test_pooling_keeps_dtype():
    x = draw((1, 4, 4, 2)).astype(jnp.bfloat16)
    assert max_pool(x, 2, 2).dtype == avg_pool(x, 2, 2).dtype == jnp.bfloat16
