"""Mixup, cutmix and random erasing keep their books."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.objectives.mixing import mix, random_erasing

B, T, H, W = 4, 2, 16, 24
VIDEO = jnp.arange(B, dtype=jnp.float32).reshape(B, 1, 1, 1, 1) * jnp.ones((B, T, H, W, 3))
TARGETS = jnp.eye(B)


@pytest.mark.parametrize("seed", range(4))
def test_mixup_averages_clips_and_targets_alike(seed):
    video, targets = jax.jit(mix, static_argnums=3)(jax.random.PRNGKey(seed), VIDEO, TARGETS, 0.8)
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    lam = float(targets[0, 0])
    assert 0 < lam < 1
    np.testing.assert_allclose(video[0], (1 - lam) * 3.0 * np.ones((T, H, W, 3)), rtol=1e-5)
    np.testing.assert_allclose(video[3], lam * 3.0 * np.ones((T, H, W, 3)), rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_cutmix_pastes_one_box_and_counts_its_pixels(seed):
    video, targets = mix(jax.random.PRNGKey(seed), VIDEO, TARGETS, cutmix=1.0)
    pasted = np.asarray(video[0] == 3.0)
    assert np.isin(video[0], (0.0, 3.0)).all() and (pasted == pasted[:1, :, :, :1]).all()
    np.testing.assert_allclose(targets[0, 3], pasted.mean(), atol=1e-6)
    rows, columns = pasted[0, :, :, 0].any(1), pasted[0, :, :, 0].any(0)
    assert pasted[0, :, :, 0].sum() == rows.sum() * columns.sum()


def test_both_take_turns_and_none_changes_nothing():
    kinds = [
        bool(np.isin(mix(jax.random.PRNGKey(s), VIDEO, TARGETS, 0.8, 1.0)[0], (0, 1, 2, 3)).all())
        for s in range(12)
    ]
    assert 0 < sum(kinds) < 12
    assert mix(jax.random.PRNGKey(0), VIDEO, TARGETS)[0] is VIDEO


def test_erasing_fills_one_box_per_clip_with_noise():
    video = jnp.full((64, T, H, W, 3), 7.0)
    erased = np.asarray(random_erasing(jax.random.PRNGKey(0), video, 0.5)) != 7.0
    assert 15 < erased.any((1, 2, 3, 4)).sum() < 49
    assert (erased == erased[:, :1, :, :, :1]).all()
    boxes = erased[:, 0, :, :, 0]
    assert (boxes.sum((1, 2)) == boxes.any(2).sum(1) * boxes.any(1).sum(1)).all()
    assert boxes.mean((1, 2)).max() < 0.45
    assert (random_erasing(jax.random.PRNGKey(0), video, 0.0) == video).all()
