"""Normalization against float64 on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from vidjax.layers.norm import BatchNorm, local_response_norm


def apply(module, variables, x, train):
    return module.apply(variables, x, train, mutable=["batch_stats"])


@pytest.mark.parametrize("shape", [(4, 7), (4, 5, 3, 7), (4, 2, 5, 3, 7)])
@pytest.mark.parametrize("groups", [1, 2])
def test_batch_norm_uses_statistics_per_group(shape, groups):
    module = BatchNorm(momentum=0.75, groups=groups)
    x = 3 + 2 * jax.random.normal(jax.random.key(0), shape)
    variables = module.init(jax.random.key(1), x, False)
    variables["params"] = {"scale": jnp.arange(1.0, 8), "bias": jnp.arange(7.0)}
    y, state = apply(module, variables, x, True)

    parts = np.asarray(x, np.float64).reshape(groups, -1, 7)
    mean, var = parts.mean(1, keepdims=True), parts.var(1, keepdims=True)
    exact = (parts - mean) / np.sqrt(var + 1e-5) * np.arange(1, 8) + np.arange(7)
    np.testing.assert_allclose(y, exact.reshape(shape), rtol=1e-4, atol=1e-4)
    stats = state["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.25 * mean.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.75 + 0.25 * var.mean((0, 1)), rtol=1e-5)

    still = module.apply({**variables, **state}, x, False)
    mean, var = (np.asarray(stats[k], np.float64) for k in ("mean", "var"))
    exact = (np.asarray(x) - mean) / np.sqrt(var + 1e-5) * np.arange(1, 8) + np.arange(7)
    np.testing.assert_allclose(still, exact, rtol=1e-4, atol=1e-4)


def test_batch_norm_gradient_matches_finite_differences():
    module = BatchNorm()
    x = jax.random.normal(jax.random.key(0), (3, 4, 5, 2))
    variables = module.init(jax.random.key(1), x, False)
    check_grads(lambda x: apply(module, variables, x, True)[0], (x,), order=1, modes=("rev",), rtol=0.02)


def test_batch_norm_variance_is_accurate_for_large_means():
    module = BatchNorm()
    x = 3000 + jax.random.normal(jax.random.key(0), (8, 16, 16, 3))
    variables = module.init(jax.random.key(1), x, False)
    variables["batch_stats"]["mean"] += 2990.0
    y, _ = apply(module, variables, x, True)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1.0, atol=1e-3)


def test_batch_must_be_divisible_by_groups():
    module = BatchNorm(groups=3)
    with pytest.raises(ValueError, match="4 is not divisible by 3 groups"):
        module.init(jax.random.key(0), jnp.zeros((4, 2)), True)


def test_local_response_norm_matches_loop_over_channels():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 9)) * 5
    want = np.empty_like(x)
    for c in range(9):
        near = x[..., max(0, c - 1) : c + 2]
        want[..., c] = x[..., c] / (2 + 0.5 / 3 * (near**2).sum(-1)) ** 0.6
    got = local_response_norm(jnp.asarray(x, jnp.float32), size=3, alpha=0.5, beta=0.6, k=2)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert local_response_norm(jnp.ones((1, 4), jnp.bfloat16)).dtype == jnp.bfloat16
