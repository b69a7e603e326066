"""Masks: exact counts and structure of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.errors import UserError
from vidjax.layers.masks import KINDS, as_booleans, counts, draw_mask

GRID = (8, 14, 14)


def drawn(kind, ratio=0.9, seed=0, batch=4, grid=GRID):
    draw = jax.jit(draw_mask, static_argnums=(0, 2, 3, 4))
    mask = draw(kind, jax.random.PRNGKey(seed), batch, grid, ratio)
    return mask, np.asarray(as_booleans(mask)).reshape(batch, *grid)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.9])
def test_visible_and_masked_partition_tokens_with_exact_counts(kind, ratio):
    mask, hidden = drawn(kind, ratio)
    visible, masked = counts(kind, GRID, ratio)
    assert mask.visible.shape == (4, visible) and mask.masked.shape == (4, masked)
    assert (hidden.sum((1, 2, 3)) == masked).all()
    both = np.sort(np.concatenate([mask.visible, mask.masked], 1), 1)
    assert (both == np.arange(8 * 196).reshape(1, -1)).all()
    assert (np.diff(mask.visible, axis=1) > 0).all() and (np.diff(mask.masked, axis=1) > 0).all()


def test_counts_match_published_models():
    assert counts("tube", GRID, 0.9) == (160, 1408)
    assert counts("running_cell", GRID, 0.5) == (784, 784)
    assert counts("random", GRID, 0.9) == (156, 1412)  # int(1568 * 0.1) are kept


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_seeded_and_differ_between_clips(kind):
    a, b, c = drawn(kind, 0.5)[1], drawn(kind, 0.5)[1], drawn(kind, 0.5, seed=1, batch=16)[1]
    assert (a == b).all()
    assert len({x.tobytes() for x in c}) > 1


def test_tube_is_constant_in_time_and_frame_in_space():
    hidden = drawn("tube")[1]
    assert (hidden == hidden[:, :1]).all()
    hidden = drawn("frame", 0.75)[1]
    assert (hidden == hidden[:, :, :1, :1]).all() and (hidden[:, :, 0, 0].sum(1) == 6).all()


def test_random_mask_is_neither_tube_nor_frame():
    hidden = drawn("random", 0.5)[1]
    assert (hidden != hidden[:, :1]).any() and (hidden != hidden[:, :, :1, :1]).any()
    assert np.abs(hidden.mean((0, 2, 3)) - 0.5).max() < 0.1


def test_running_cell_shifts_by_one_per_slice():
    """Brute force: queue [1, 1, 0, 0] read from start + slice + 1, tiled over the frame."""
    hidden = drawn("running_cell", 0.5, batch=64)[1]
    wanted = set()
    for start in range(4):
        cells = [np.roll([1, 1, 0, 0], -(start + t + 1)).reshape(2, 2) for t in range(8)]
        wanted.add(np.stack([np.tile(c, (7, 7)) for c in cells]).astype(bool).tobytes())
    assert {x.tobytes() for x in hidden} == wanted


@pytest.mark.parametrize("kind", ["block", "multi_block"])
def test_block_masks_are_contiguous(kind):
    """Neighboring tokens agree far more often than in a random mask of the same ratio."""
    hidden = drawn(kind, 0.5)[1]
    alike = (hidden[:, :, 1:] == hidden[:, :, :-1]).mean()
    assert alike > 0.8 > (lambda h: (h[:, :, 1:] == h[:, :, :-1]).mean())(drawn("random", 0.5)[1])
    if kind == "multi_block":  # through all of time, but for the box cut to the exact count
        assert (hidden == hidden[:, :1]).mean() > 0.8


def test_ratio_without_visible_or_masked_tokens_is_rejected():
    with pytest.raises(UserError, match="no visible token of 8x14x14"):
        counts("tube", GRID, 1.0)
    with pytest.raises(UserError, match="no masked token"):
        counts("tube", GRID, 0.001)
    with pytest.raises(UserError, match="did you mean tube"):
        counts("tub", GRID, 0.5)
    with pytest.raises(UserError, match="even grid"):
        draw_mask("running_cell", jax.random.PRNGKey(0), 1, (8, 7, 7), 0.5)


def test_every_position_is_masked_equally_often():
    hidden = drawn("tube", 0.75, batch=400, grid=(2, 4, 4))[1]
    assert np.abs(hidden[:, 0].mean(0) - 0.75).max() < 0.1
    assert jnp.issubdtype(draw_mask("tube", jax.random.PRNGKey(0), 1, GRID, 0.9).visible.dtype, jnp.int32)
