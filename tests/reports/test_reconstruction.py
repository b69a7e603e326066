"""Tests of the panels of reconstructions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.evaluation.reconstructions import reconstruct, unpatch
from vidjax.layers.preprocess import normalize
from vidjax.layers.transformer import patches
from vidjax.reports.reconstruction import PANELS, animation, sheet
from vidjax.tasks.masked_autoencoding import draw


@pytest.mark.parametrize("name", ["videomae_s_pretrain", "videomae_v2_b_pretrain", "mae_st_b_pretrain"])
def test_panels_match_their_definitions(name):
    model = vidjax.create_model(name, tiny=True)
    video = jax.random.randint(jax.random.PRNGKey(0), (2, 4, 32, 32, 3), 0, 256).astype(jnp.uint8)
    variables = model.init(jax.random.PRNGKey(1), video.astype(jnp.float32))
    key, args = jax.random.PRNGKey(2), ((0.5,) * 3, (0.25,) * 3)
    panels = reconstruct(model, variables, video, key, *args)
    assert tuple(panels) == PANELS
    np.testing.assert_allclose(panels["original"], video / 255.0, atol=1e-6)
    visible, decoded, _ = draw(model, key, video.shape)
    tokens = {k: np.asarray(patches(v, model.patch)).reshape(2, 32, -1) for k, v in panels.items()}
    for b in range(2):
        for k in PANELS:
            np.testing.assert_array_equal(tokens[k][b, visible[b]], tokens["original"][b, visible[b]])
        hidden = np.setdiff1d(np.arange(32), visible[b])
        assert (tokens["masked"][b, hidden] == 0.5).all()
        predicted = np.intersect1d(hidden, decoded[b])
        assert (tokens["leak-free"][b, predicted] != tokens["true statistics"][b, predicted]).any()
        assert (tokens["leak-free"][b, predicted] != 0.5).any()
    # Masked pixels affect only the panel with true statistics.
    changed = np.array(video)
    place = np.unravel_index(int(np.setdiff1d(np.asarray(decoded[0]), np.asarray(visible[0]))[0]), (2, 4, 4))
    window = tuple(slice(i * p, (i + 1) * p) for i, p in zip(place, model.patch))
    changed[(0, *window)] = 255 - changed[(0, *window)] // 3
    other = reconstruct(model, variables, jnp.asarray(changed), key, *args)
    np.testing.assert_array_equal(other["leak-free"], panels["leak-free"])
    assert (other["true statistics"] != panels["true statistics"]).any()
    clip = {k: np.asarray(v[0]) for k, v in panels.items()}
    assert sheet(clip, frames=4).size[1] == 4 * 98 and len(animation(clip)) == 4


def test_predictions_of_plain_pixels_are_shown_unchanged():
    for name in ("videomae_s_pretrain", "mae_st_b_pretrain"):
        model = vidjax.create_model(name, tiny=True)
        video = jax.random.randint(jax.random.PRNGKey(0), (1, 4, 32, 32, 3), 0, 256).astype(jnp.uint8)
        key, args = jax.random.PRNGKey(2), ((0.4,) * 3, (0.25,) * 3)
        x = normalize(video, *args)
        variables = model.init(jax.random.PRNGKey(1), x)
        panels = reconstruct(model, variables, video, key, *args, normalized=False)
        assert tuple(panels) == PANELS[:3]
        visible, decoded, _ = draw(model, key, video.shape)
        predicted, _ = model.apply(variables, x, False, visible, decoded)
        if model.predicts_one_frame:
            predicted = jnp.tile(predicted * 0.25 + 0.4, (1, 1, model.patch[0]))
        shown = patches(panels["leak-free"], model.patch).reshape(1, 32, -1)
        np.testing.assert_allclose(shown[0, decoded[0]], jnp.clip(predicted[0], 0, 1), atol=1e-5)


def test_unpatch_is_the_inverse_of_patches():
    video = jax.random.uniform(jax.random.PRNGKey(0), (2, 4, 8, 12, 3))
    tokens = patches(video, (2, 4, 4)).reshape(2, -1, 96)
    np.testing.assert_array_equal(unpatch(tokens, (2, 4, 4), (2, 2, 3)), video)
