"""Tests of GIFs and strips of frames."""

import io

import numpy as np
import pytest
from PIL import Image

from vidjax.reports.pictures import gif, strip


def moving_square(t=6, size=32, channels=3):
    frames = np.zeros((t, size, size, channels), np.uint8)
    for i in range(t):
        frames[i, 4:12, 4 * i : 4 * i + 8] = 255
    return frames


def decode(data):
    image = Image.open(io.BytesIO(data))
    frames = []
    for i in range(image.n_frames):
        image.seek(i)
        frames.append(np.asarray(image.convert("RGB")))
    return image, np.stack(frames)


@pytest.mark.parametrize("channels", [1, 3])
def test_gif_enlarges_frames_by_an_integer_factor(channels):
    frames = moving_square(channels=channels)
    image, out = decode(gif(frames, fps=5, size=100))
    assert image.info["loop"] == 0 and image.info["duration"] == 200
    want = frames.repeat(3, 1).repeat(3, 2)  # 32 -> 96
    np.testing.assert_array_equal(out, np.broadcast_to(want, (6, 96, 96, 3)))


def test_gif_reduces_large_clips_and_keeps_their_aspect_ratio():
    image, _ = decode(gif(np.zeros((2, 90, 300, 3), np.uint8), size=100))
    assert image.size == (100, 30)


def test_gif_limit_keeps_the_playback_speed():
    noise = np.random.default_rng(0).integers(0, 256, (16, 96, 96, 3), np.uint8)
    full = gif(noise, fps=10)
    limit = len(full) // 8
    small = gif(noise, fps=10, limit=limit)
    assert len(small) <= limit < len(full)
    total = []
    for data in (full, small):
        image, frames = decode(data)
        total.append(image.info["duration"] * len(frames))
    assert total[0] == total[1] == 1600
    assert gif(noise, fps=10, limit=len(full)) == full


def test_gif_of_one_frame():
    _, out = decode(gif(moving_square(1)))
    assert len(out) == 1


def test_strip_places_every_frame():
    values = np.arange(40, 240, 40, dtype=np.uint8)  # 5 gray frames, in rows of 3
    frames = np.broadcast_to(values[:, None, None, None], (5, 20, 40, 1)).copy()
    image = np.asarray(strip(frames, columns=3, tile=40))
    for value, (x, y) in zip(values, [(8, 8), (56, 8), (104, 8), (8, 36), (56, 36)]):
        np.testing.assert_array_equal(image[y : y + 20, x : x + 40], value)
    assert (image[36:56, 104:144] == 255).all()  # no sixth frame


def test_strip_bars_are_proportional_to_probabilities():
    probs = [("a", 0.75), ("b" * 400, 0.25)]
    image = np.asarray(strip(moving_square(2), ["0.0 s", "0.5 s"], "a title\nof two lines", probs)).astype(
        int
    )
    blue = (image == (0x2F, 0x6F, 0xDF)).all(-1).sum(1)
    lengths = sorted(set(blue[blue > 20].tolist()))
    assert len(lengths) == 2 and lengths[1] / lengths[0] == pytest.approx(3, abs=0.15)


def test_strip_writes_captions():
    plain, captioned = (np.asarray(strip(moving_square(2), c)) for c in ((), ["left", "right" * 50]))
    assert captioned.shape[0] > plain.shape[0]
    caption = captioned[plain.shape[0] - 6 :]
    assert (caption < 200).any()
    assert (captioned[:, :8] == 255).all() and (captioned[:, -8:] == 255).all()  # long captions are truncated


def test_flow_is_drawn_in_colors():
    still, right = np.full((1, 8, 8, 2), 128, np.uint8), np.full((1, 8, 8, 2), 128, np.uint8)
    right[..., 0] = 200
    drawn = np.asarray(strip(np.concatenate([still, right]), tile=8).convert("RGB")).reshape(-1, 3)
    assert {tuple(map(int, c)) for c in np.unique(drawn, axis=0)} == {(255, 255, 255), (255, 0, 0)}


@pytest.mark.parametrize("shape", [(4, 8, 8), (0, 8, 8, 3), (4, 8, 8, 4)])
def test_invalid_clips_are_rejected(shape):
    for draw in (gif, strip):
        with pytest.raises(ValueError, match="a clip must be uint8"):
            draw(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="float32"):
        gif(np.zeros((4, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="3 captions for 2 frames"):
        strip(moving_square(2), ["a", "b", "c"])
