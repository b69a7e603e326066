"""Attention rollout against explicit matrix products, and on a model."""

import jax
import jax.numpy as jnp
import numpy as np

import vidjax
from vidjax.analysis.rollout import attention_rollout


def test_rollout_multiplies_layers_last_first():
    maps = jax.nn.softmax(jax.random.normal(jax.random.key(0), (3, 2, 4, 5, 5)))
    got = attention_rollout(maps, residual=0.25)
    for b in range(2):
        first, second, third = (0.75 * np.mean(m[b], 0) + 0.25 * np.eye(5) for m in np.asarray(maps))
        np.testing.assert_allclose(got[b], third @ second @ first, atol=1e-6)
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(attention_rollout(maps, residual=1.0)[0], np.eye(5))


def test_rollout_of_a_model_fits_its_token_grid():
    name = "videomae_s"
    shape = vidjax.spec(name).tiny_input_shape
    model = vidjax.create_model(name, tiny=True, return_attention=True)
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    _, endpoints = jax.jit(model.apply)(variables, x)
    grid = model.token_grid(shape)
    assert grid.count == endpoints["tokens"].shape[1] and grid.prefix == 0
    picture = grid.unflatten(attention_rollout(endpoints["attention"]).mean(1), axis=-1)
    assert picture.shape == (2, 2, 2, 2)
    np.testing.assert_allclose(jnp.sum(picture, (1, 2, 3)), 1, atol=1e-5)
