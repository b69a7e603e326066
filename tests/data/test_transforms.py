"""Tests of transforms: sizes, boxes, one draw per clip, one and three channels, hand-computed colors."""

import colorsys
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from vidjax.data import transforms
from vidjax.errors import UserError

CROPS = ("random_resized", "multi_scale", "short_side", "center")


def config(**changes):
    fields = {
        "crop": "random_resized", "size": 32, "short_side": 40, "scale": (0.35, 1.0), "ratio": (0.75, 1.333),
        "short_side_range": (36, 48), "flip": False, "color_jitter": 0.0,
        "color_jitter_probability": 1.0, "grayscale": 0.0, "short_side_inverse": False,
        "auto_augment": None, "auto_augment_fill": (128, 128, 128), "auto_augment_interpolation": "bicubic",
        "resize": "area", "resize_to": None,
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


def noise(frames=3, height=60, width=90, channels=3):
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, channels), np.uint8)


def ramps(height, width, frames=2):
    """Returns frames whose colors encode x, y and the frame number, so that a crop shows its box."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([np.stack([x, y, np.full_like(x, 9 * t)], -1) for t in range(frames)])


def box(clip):
    """Reads the box (top, left, height, width) of a resized crop of `ramps`."""
    size = clip.shape[1]
    x, y = clip[0, 0, :, 0].astype(float), clip[0, :, 0, 1].astype(float)
    w, h = ((v[-2] - v[1]) / (size - 3) * size for v in (x, y))
    return y.mean() + 0.5 - h / 2, x.mean() + 0.5 - w / 2, h, w


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (41, 41), (33, 200), (31, 20), (300, 420)])
def test_train_transform_accepts_any_shape(shape, crop, channels):
    video = noise(2, *shape, channels)
    cfg = config(crop=crop, flip=True, color_jitter=0.4)
    before = video.copy()
    clips = [transforms.train_transform(video, cfg, np.random.default_rng(s), True)[0] for s in (1, 1, 2)]
    for clip in clips:
        assert clip.shape == (2, 32, 32, channels) and clip.dtype == np.uint8
    np.testing.assert_array_equal(clips[0], clips[1])
    assert (clips[0] != clips[2]).any()
    np.testing.assert_array_equal(video, before)


@pytest.mark.parametrize("crop", CROPS)
def test_all_frames_share_one_draw(crop):
    still = np.repeat(noise(1), 6, 0)
    cfg = config(crop=crop, flip=True, color_jitter=0.5)
    for seed in range(4):
        clip, _ = transforms.train_transform(still, cfg, np.random.default_rng(seed), True)
        np.testing.assert_array_equal(clip, np.repeat(clip[:1], 6, 0))


def test_random_resized_crop_draws_the_documented_boxes():
    video, rng = ramps(100, 140), np.random.default_rng(0)
    boxes = np.array([box(transforms.random_resized_crop(video, 32, rng, (0.2, 0.9))[0]) for _ in range(300)])
    top, left, height, width = boxes.T
    assert top.min() > -1 and left.min() > -1 and (top + height).max() < 102 and (left + width).max() < 142
    area, shape = height * width / (100 * 140), width / height
    assert 0.17 < area.min() < 0.25 and 0.8 < area.max() < 0.93
    assert 0.7 < shape.min() < 0.8 and 1.25 < shape.max() < 1.42
    assert abs(np.log(shape).mean()) < 0.05 and top.std() > 10 and left.std() > 15
    # No box of this ratio fits: the largest centered box whose ratio is nearest is used.
    wide = box(transforms.random_resized_crop(ramps(40, 200), 32, rng, (1.0, 1.0), (0.75, 1.333))[0])
    np.testing.assert_allclose(wide, [0, (200 - 53) / 2, 40, 53], atol=1.5)


def test_multi_scale_crop_draws_the_documented_boxes():
    video, rng = ramps(100, 140), np.random.default_rng(0)
    boxes = np.array([box(transforms.multi_scale_crop(video, 32, rng)[0]) for _ in range(400)])
    sides = np.array([100, 87, 75, 66])
    for side in boxes[:, 2:].T:
        steps = np.abs(side[:, None] - sides)
        assert steps.min(1).max() < 2.5
        assert set(steps.argmin(1)) == {0, 1, 2, 3}
    places = [
        ((100 - h) / 4 * y, (140 - w) / 4 * x)
        for h in sides for w in sides for y in range(5) for x in range(5) if y % 2 == x % 2
    ]  # fmt: skip
    for top, left, _, _ in boxes:
        assert min(abs(top - y) + abs(left - x) for y, x in places) < 4
    steps = [np.abs(boxes[:, i, None] - sides).argmin(1) for i in (2, 3)]
    assert np.abs(steps[0] - steps[1]).max() == 1


def test_short_side_jitter_draws_the_documented_boxes():
    video, rng = ramps(100, 140), np.random.default_rng(0)
    boxes = np.array([box(transforms.short_side_jitter(video, 32, rng, (40, 64))[0]) for _ in range(300)])
    np.testing.assert_allclose(boxes[:, 2], boxes[:, 3], atol=1.5)
    assert 49 < boxes[:, 2].min() < 53 and 78 < boxes[:, 2].max() < 82  # 32/64 and 32/40 of the height
    assert boxes[:, 0].min() < 2 and boxes[:, 1].max() > 75
    with pytest.raises(UserError, match="short_side_range"):
        transforms.short_side_jitter(video, 32, rng, (30, 64))


def test_the_inverse_of_the_short_side_can_be_uniform():
    """PySlowFast draws 1 / uniform(1 / high, 1 / low), so that the side of the box is uniform."""
    video, rng = ramps(100, 140, 1), np.random.default_rng(0)
    views = [transforms.short_side_jitter(video, 32, rng, (40, 128), inverse=True) for _ in range(4000)]
    sides = [geometry.scale[0] for _, geometry in views]
    sides = 32 / np.array(sides)
    assert 24.5 < sides.min() < 26 and 79 < sides.max() < 80.5
    np.testing.assert_allclose(np.quantile(sides, [0.25, 0.5, 0.75]), [38.75, 52.5, 66.25], atol=2)


def test_multi_scale_crop_avoids_a_resize_by_few_pixels():
    video, rng = ramps(100, 140), np.random.default_rng(0)
    sides = {transforms.multi_scale_crop(video, 85, rng)[1].scale for _ in range(100)}
    assert (1.0, 1.0) in sides and (85 / 87, 85 / 87) not in sides
    shapes = {transforms.multi_scale_crop(video[:, :99], 101, rng)[1].scale for _ in range(100)}
    assert min(min(s) for s in shapes) > 1  # never larger than the frame


def test_crops_along_the_longer_side():
    for shape in ((60, 90), (90, 60)):
        video = ramps(*shape)
        (left, _), (middle, _), (right, _) = transforms.three_crops(video, 40)
        np.testing.assert_array_equal(middle, transforms.center_crop(video, 40)[0])
        np.testing.assert_array_equal(middle, transforms.test_crops(video, 40, 1)[0][0])
        corners = [(int(c[0, 0, 0, 1]), int(c[0, 0, 0, 0])) for c in (left, middle, right)]
        expected = [(10, 0), (10, 25), (10, 50)]
        assert corners == (expected if shape == (60, 90) else [c[::-1] for c in expected])
        assert len({c.tobytes() for c, _ in transforms.test_crops(video, 40, 5)}) == 5
    with pytest.raises(UserError, match="short_side"):
        transforms.center_crop(video, 61)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_crops_of_the_resized_video(channels):
    video = noise(2, 60, 90, channels)
    views = [view for view, _ in transforms.test_views(video, config(), 3)]
    resized = transforms.resize_short_side(video, 40)
    assert resized.shape == (2, 40, 60, channels)
    assert [v.shape for v in views] == [(2, 32, 32, channels)] * 3
    np.testing.assert_array_equal(views[0], resized[:, 4:36, :32])
    np.testing.assert_array_equal(views[2], resized[:, 4:36, 28:])


def test_resize():
    video = ramps(120, 200)
    assert transforms.resize(video, 120, 200) is video
    for side, expected in ((60, (60, 100)), (77, (77, 128)), (240, (240, 400))):
        small = transforms.resize_short_side(video, side)
        assert small.shape == (2, *expected, 3)
        factor = 120 / side  # a ramp remains a ramp, without a shift
        x = (np.arange(expected[1]) + 0.5) * 200 / expected[1] - 0.5
        assert np.abs(small[0, 0, 2:-2, 0] - x[2:-2]).max() < 1
        y = (np.arange(side) + 0.5) * factor - 0.5
        assert np.abs(small[0, 2:-2, 0, 1] - y[2:-2]).max() < 1
    assert transforms.resize_short_side(noise(1, 3, 500), 8).shape == (1, 8, 1333, 3)
    # Single bright pixels do not vanish or flicker under strong reduction.
    dots = np.zeros((1, 128, 128, 1), np.uint8)
    dots[:, ::8, ::8] = 255
    small = transforms.resize(dots, 16, 16)
    assert small.min() == small.max() == 4  # 255 / 64


def test_flip_only_if_allowed():
    video = noise()
    np.testing.assert_array_equal(transforms.flip(video), video[:, :, ::-1])
    np.testing.assert_array_equal(transforms.flip(video[..., :1]), video[:, :, ::-1, :1])
    cfg = config(crop="center", flip=True)
    straight, _ = transforms.train_transform(video, config(crop="center"), np.random.default_rng(0), True)
    flipped = 0
    for seed in range(200):
        clip, _ = transforms.train_transform(video, cfg, np.random.default_rng(seed), True)
        flipped += not np.array_equal(clip, straight)
        assert np.array_equal(clip, straight) or np.array_equal(clip[:, :, ::-1], straight)
        np.testing.assert_array_equal(
            transforms.train_transform(video, cfg, np.random.default_rng(seed), False)[0], straight
        )
    assert 70 < flipped < 130


class Fixed:
    """A random generator that returns given values."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def uniform(self, low, high):
        return self.draws.pop(0)


def test_color_jitter_matches_hand_computed_values():
    video = noise().astype(float) * 0.5 + 60  # nothing is clipped
    video = video.astype(np.uint8)
    luma = video @ [0.299, 0.587, 0.114]

    def jittered(*draws):
        return transforms.color_jitter(video, Fixed(*draws)).astype(float)

    np.testing.assert_array_equal(jittered(1, 1, 1, 0), video)
    np.testing.assert_allclose(jittered(1.2, 1, 1, 0), 1.2 * video, atol=0.6)
    np.testing.assert_allclose(jittered(1, 0.5, 1, 0), 0.5 * video + 0.5 * luma.mean(), atol=0.6)
    np.testing.assert_allclose(jittered(1, 1, 0, 0), luma[..., None].repeat(3, -1), atol=0.6)
    gray = transforms.color_jitter(video[..., :1], Fixed(1.2, 0.5, 1, 0.3))
    by_hand = 0.6 * video[..., :1] + 0.5 * 1.2 * video[..., 0].mean()
    np.testing.assert_allclose(gray, by_hand, atol=0.6)
    turned = jittered(1, 1, 1, 0.1) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(turned, luma, atol=1.5)  # hue preserves luma
    np.testing.assert_allclose(jittered(1, 1, 1, 1), video, atol=0.6)  # a full turn
    bright = transforms.color_jitter(np.full((1, 4, 4, 3), 200, np.uint8), Fixed(1.5, 1, 1, 0))
    assert (bright == 255).all()


def test_the_steps_of_color_jitter_commute():
    """Single steps in any order, as torchvision applies them, equal all at once but for rounding."""
    video = (noise().astype(float) * 0.4 + 60).astype(np.uint8)  # nothing is clipped
    draws, neutral = (1.2, 0.7, 0.5, 0.05), (1, 1, 1, 0)
    at_once = transforms.color_jitter(video, Fixed(*draws)).astype(int)
    for order in itertools.permutations(range(4)):
        out = video
        for step in order:
            single = [draws[k] if k == step else neutral[k] for k in range(4)]
            out = transforms.color_jitter(out, Fixed(*single))
        assert np.abs(out - at_once).max() <= 2 and np.abs(out - at_once).mean() < 0.6


def test_grayscale_and_jitter_have_their_probabilities():
    video = noise(2, 40, 40)
    cfg = config(crop="center", short_side=40, size=40, grayscale=0.3)
    clips = [transforms.train_transform(video, cfg, np.random.default_rng(s), True)[0] for s in range(200)]
    grays = [clip for clip in clips if np.ptp(clip, -1).max() == 0]
    assert 40 < len(grays) < 80
    np.testing.assert_allclose(grays[0][..., 0], video @ [0.299, 0.587, 0.114], atol=0.6)
    cfg = config(crop="center", short_side=40, size=40, color_jitter=0.4, color_jitter_probability=0.8)
    clips = [transforms.train_transform(video, cfg, np.random.default_rng(s), True)[0] for s in range(200)]
    assert 20 < sum(np.array_equal(clip, video) for clip in clips) < 60
    one = transforms.train_transform(video[..., :1], config(grayscale=1.0), np.random.default_rng(0), True)[0]
    assert one.shape[-1] == 1


def test_hue_rotates_in_the_right_direction():
    red = np.full((1, 2, 2, 3), (200, 80, 80), np.uint8)
    third = transforms.color_jitter(red, Fixed(1, 1, 1, 1 / 3))[0, 0, 0] / 255
    other = transforms.color_jitter(red, Fixed(1, 1, 1, -1 / 3))[0, 0, 0] / 255
    hues = sorted(colorsys.rgb_to_hsv(*c)[0] for c in (third, other))
    np.testing.assert_allclose(hues, [1 / 3, 2 / 3], atol=0.08)


def test_jitter_stays_within_its_strength():
    gray = np.full((2, 8, 8, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    levels = [transforms.color_jitter(gray, rng, 0.3, 0.3, 0.3, 0.1).mean() for _ in range(200)]
    assert 69 < min(levels) < 75 and 125 < max(levels) < 131


def test_unknown_crop():
    with pytest.raises(UserError, match="unknown crop 'centre': did you mean center"):
        transforms.train_transform(noise(), config(crop="centre"), np.random.default_rng(0), True)
