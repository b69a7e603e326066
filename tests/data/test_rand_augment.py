"""Tests that RandAugment is reproducible and applies the same operations to all frames of a clip."""

import numpy as np
import pytest

from vidjax.data.rand_augment import OPERATIONS, rand_augment

RNG = np.random.default_rng(0)
FRAME = RNG.integers(0, 256, (24, 32, 3), np.uint8)
VIDEO = np.repeat(FRAME[None], 3, 0)


def test_one_draw_per_clip_that_depends_only_on_the_seed():
    outs = [rand_augment(VIDEO, np.random.default_rng(s)) for s in (1, 1, 2, 3, 4, 5)]
    for out in outs:
        assert out.shape == VIDEO.shape and out.dtype == np.uint8
        assert (out == out[:1]).all()
    assert (outs[0] == outs[1]).all()
    assert sum((o != VIDEO).any() for o in outs[1:]) >= 4
    assert (rand_augment(VIDEO, np.random.default_rng(0), ops=0) == VIDEO).all()


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_higher_magnitude_changes_the_frame_more(name):
    from PIL import Image

    smooth = np.linspace(20, 200, 24 * 32).reshape(24, 32, 1) * [1.0, 0.7, 0.4]
    smooth = FRAME if name == "sharpness" else smooth.astype(np.uint8)  # a ramp cannot be sharpened
    change = [
        np.abs(np.asarray(OPERATIONS[name](Image.fromarray(smooth), s, 1.0)).astype(int) - smooth).mean()
        for s in (0.2, 0.9)
    ]
    if name in ("auto_contrast", "equalize", "invert"):  # operations without a strength
        assert change[0] == change[1] > 0
    else:
        assert change[1] > change[0]
