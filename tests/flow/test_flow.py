"""Tests of optical flow: known displacements, mirroring, encoding as bytes and as colors."""

import cv2
import numpy as np
import pytest

from vidjax.errors import UserError
from vidjax.flow import METHODS, dequantise, flow, picture, quantise

RUNNABLE = [m for m in METHODS if m != "tvl1" or hasattr(cv2, "optflow")]


def moving(dx, dy, frames=3, size=96, margin=40):
    """Returns a smooth texture that moves by (dx, dy) pixels per frame, uint8 [frames, size, size, 1]."""
    noise = np.random.default_rng(0).random((size + 2 * margin,) * 2).astype(np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    shift = lambda t: np.float32([[1, 0, t * dx - margin], [0, 1, t * dy - margin]])  # noqa: E731
    images = [cv2.warpAffine(texture, shift(t), (size, size)) for t in range(frames)]
    return np.rint(images).astype(np.uint8)[..., None]


@pytest.mark.parametrize("method", RUNNABLE)
@pytest.mark.parametrize("step", [(3, 1), (-5, 2), (0.5, -0.5)])
def test_flow_recovers_a_known_displacement(method, step):
    found = flow(moving(*step), method)
    assert found.shape == (2, 96, 96, 2) and found.dtype == np.float32
    inside = found[:, 16:-16, 16:-16]  # pixels that enter at an edge have no counterpart
    assert np.abs(inside - np.float32(step)).max() < 0.2


def test_color_is_reduced_to_luma():
    gray = moving(2, 1)
    np.testing.assert_allclose(flow(np.repeat(gray, 3, -1)), flow(gray), atol=1e-5)


@pytest.mark.parametrize("method", RUNNABLE)
def test_mirroring_negates_x(method):
    clip = moving(3, 1)
    mirrored, found = flow(clip[:, :, ::-1], method), flow(clip, method)[:, :, ::-1] * (-1, 1)
    np.testing.assert_allclose(mirrored[:, 16:-16, 16:-16], found[:, 16:-16, 16:-16], atol=0.2)


@pytest.mark.parametrize("method", RUNNABLE)
def test_static_clip_has_zero_flow(method):
    still = np.repeat(moving(0, 0, frames=1), 3, axis=0)
    assert (quantise(flow(still, method), 20.0) == 128).all()


def test_invalid_inputs_are_rejected():
    with pytest.raises(UserError, match="unknown flow method 'farnback': did you mean farneback"):
        flow(moving(1, 1), "farnback")
    with pytest.raises(UserError, match="at least 16 pixels, got 12x96"):
        flow(moving(1, 1)[:, :12])
    if "tvl1" not in RUNNABLE:
        with pytest.raises(UserError, match="install opencv-contrib-python-headless"):
            flow(moving(1, 1), "tvl1")


@pytest.mark.parametrize("bound", [20.0, 8.0, 3.5])
def test_quantization_error_is_at_most_half_a_step(bound):
    exact = np.random.default_rng(0).uniform(-1.5 * bound, 1.5 * bound, (5, 7, 7, 2)).astype(np.float32)
    exact[0, 0, 0] = 0
    coded = quantise(exact, bound)
    back = dequantise(coded, bound)
    assert coded.dtype == np.uint8 and (coded[0, 0, 0] == 128).all() and (back[0, 0, 0] == 0).all()
    clipped = np.clip(exact, -bound, bound)
    assert np.abs(back - clipped).max() <= bound / 254 * (1 + 1e-5)
    assert coded.min() == 1 and coded.max() == 255
    np.testing.assert_array_equal(quantise(back, bound), coded)
    np.testing.assert_array_equal(quantise(-exact, bound), 256 - coded.astype(int))


def test_picture_shows_direction_as_hue_and_zero_as_white():
    coded = quantise(np.array([[[[0, 0], [9, 0], [-9, 0], [0, 9]]]], np.float32), 20.0)
    white, right, left, down = picture(coded)[0, 0]
    assert white.tolist() == [255, 255, 255] and right.tolist() == [255, 0, 0]
    assert left.tolist() == [0, 255, 255] and down[1] == 255 and down[2] == 0
