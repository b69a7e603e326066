"""Clip transforms: crop, resize, flip and color, applied between decoding and batching.

Clips are uint8 [T, H, W, C] with C = 1 or 3. Random parameters are drawn once per clip, so that all frames
are transformed alike, and only from the given `rng`. Random crops are cut before resizing, which matches
resizing first up to the rounding of the box to whole pixels, at a fraction of the cost. Crops are returned
with the `Geometry` that maps the pixels of the given video to theirs.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vidjax.data.auto_augment import auto_augment
from vidjax.data.geometry import Geometry
from vidjax.errors import UserError, unknown

cv2.setNumThreads(1)  # the pipeline processes clips in parallel

View = tuple[np.ndarray, Geometry]  # a crop of a clip

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def resize(video: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes a clip [T, H, W, C] to [T, height, width, C].

    Frames are halved while they are at least twice as large as the target, then interpolated bilinearly.
    Bilinear interpolation alone reads two pixels per axis, so strong reductions would alias and flicker.
    Halving drops an odd last row or column, which `Geometry.resize` ignores; positions differ by less than
    one output pixel.
    """
    frames, h, w, channels = video.shape
    if (h, w) == (height, width):
        return video
    out = np.empty((frames, height, width, channels), np.uint8)
    for image, small in zip(video, out):
        h, w = image.shape[:2]
        while h >= 2 * height and w >= 2 * width:
            h, w = h // 2, w // 2
            image = cv2.resize(image[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        small[:] = image.reshape(small.shape)  # OpenCV drops a single channel
    return out


@dataclasses.dataclass(frozen=True)
class ResizeRule:
    """How a library resizes a test clip and crops its center.

    Attributes:
      frames: (uint8 [T, H, W, C], height, width) -> uint8 [T, height, width, C].
      longer: rounds the exact length of the longer side to whole pixels.
      middle: maps the excess pixels along an axis to the offset of the centered crop.
    """

    frames: Callable[[np.ndarray, int, int], np.ndarray]
    longer: Callable[[float], int]
    middle: Callable[[int], int]


def _each(resize_image: Callable[[np.ndarray, tuple[int, int]], np.ndarray]) -> Callable:
    """Converts a function of one image [H, W, C] and (width, height) to a `ResizeRule.frames`."""

    def frames(video: np.ndarray, height: int, width: int) -> np.ndarray:
        if video.shape[1:3] == (height, width):
            return video
        resized = [resize_image(image, (width, height)) for image in video]
        return np.stack(resized).reshape(len(video), height, width, video.shape[3])

    return frames


def _bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolates bilinearly without antialiasing, in float32 and rounded once, as PyTorch does."""
    resized = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return np.rint(resized).astype(np.uint8)


def _truncated(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolates as `_bilinear`, but truncates as TensorFlow does, with a margin for float32 rounding."""
    resized = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return (resized + 1e-4).astype(np.uint8)


def _fixed_point(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def _antialiased(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).resize(size, 2))


def _half(room: int) -> int:
    return room // 2


# Values of `data.resize`, the library whose test resize is reproduced. PySlowFast normalizes before it
# resizes and therefore does not round.
RESIZES = {
    "area": ResizeRule(resize, round, _half),
    "torchvision": ResizeRule(_each(_bilinear), int, lambda room: round(room / 2)),  # video presets
    "pyslowfast": ResizeRule(_each(_bilinear), int, lambda room: math.ceil(room / 2)),
    "tensorflow": ResizeRule(_each(_truncated), int, _half),  # dmvr (ViViT) and the Model Garden (MoViNet)
    "opencv": ResizeRule(_each(_fixed_point), int, _half),  # VideoMAE
    "mmaction": ResizeRule(_each(_fixed_point), lambda length: int(length + 0.5), _half),  # Video Swin
    "pil": ResizeRule(_each(_antialiased), int, lambda room: round(room / 2)),  # torchvision on PIL images
}


def resize_short_side(video: np.ndarray, side: int, rule: str = "area") -> np.ndarray:
    """Resizes a clip so that its short side is `side` pixels, keeping the aspect ratio.

    `rule` is one of `RESIZES`.
    """
    h, w = video.shape[1:3]
    short, resizer = min(h, w), RESIZES[rule]
    return resizer.frames(
        video, *(side if n == short else max(side, resizer.longer(n * side / short)) for n in (h, w))
    )


def crop(video: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Crops a box, which must lie within the frame; returns a view."""
    return video[:, top : top + height, left : left + width]


def _crop_and_resize(video: np.ndarray, top: int, left: int, height: int, width: int, size: int) -> View:
    """Crops a box and resizes it to [T, size, size, C]."""
    geometry = Geometry.identity(*video.shape[1:3]).crop(top, left, height, width).resize(size, size)
    return resize(crop(video, top, left, height, width), size, size), geometry


def center_crop(video: np.ndarray, size: int) -> View:
    """Crops the centered square [T, size, size, C]. Raises `UserError` if the frame is smaller."""
    return test_crops(video, size, 1)[0]


def test_crops(video: np.ndarray, size: int, crops: int, rule: str = "area") -> list[View]:
    """Returns `crops` square crops, spread evenly along the longer side and centered on the shorter one.

    One crop is the center crop, three are SlowFast's test crops (arXiv:1812.03982, section 3.4).

    Args:
      video: uint8 [T, H, W, C].
      size: side of a crop in pixels.
      crops: number of crops.
      rule: one of `RESIZES`, which defines how the position of a centered crop is rounded.

    Returns:
      For each crop its view [T, size, size, C] and its geometry.

    Raises:
      UserError: the frame is smaller than `size`.
    """
    h, w = video.shape[1:3]
    if size > min(h, w):
        raise UserError(f"crops of {size} pixels do not fit into frames of {h}x{w}: set short_side >= size")
    tall, room = h > w, abs(h - w) + min(h, w) - size
    middle = RESIZES[rule].middle
    mid = middle(min(h, w) - size)
    places = [middle(room) if 2 * i + 1 == crops else i * room // (crops - 1) for i in range(crops)]
    boxes = [(*((p, mid) if tall else (mid, p)), size, size) for p in places]
    return [(crop(video, *box), Geometry.identity(h, w).crop(*box)) for box in boxes]


test_crops.__test__ = False  # not a test, in spite of its name


def three_crops(video: np.ndarray, size: int) -> list[View]:
    """Returns `test_crops` with three crops."""
    return test_crops(video, size, 3)


def random_resized_crop(
    video: np.ndarray,
    size: int,
    rng: np.random.Generator,
    scale: Sequence[float] = (0.35, 1.0),
    ratio: Sequence[float] = (0.75, 1.333),
) -> View:
    """Crops a box of random area and aspect ratio, and resizes it to [T, size, size, C].

    Inception's training crop (Szegedy et al., arXiv:1409.4842, section 6). The area is drawn uniformly from
    `scale` times that of the frame, the ratio of width to height log-uniformly from `ratio`. If ten boxes in
    a row do not fit into the frame, the largest centered box whose ratio is nearest to the range is used.
    """
    h, w = video.shape[1:3]
    for _ in range(10):
        area = h * w * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        box_h, box_w = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
        if 0 < box_h <= h and 0 < box_w <= w:
            top, left = rng.integers(h - box_h + 1), rng.integers(w - box_w + 1)
            return _crop_and_resize(video, top, left, box_h, box_w, size)
    aspect = np.clip(w / h, *ratio)
    box_h, box_w = max(1, min(h, round(w / aspect))), max(1, min(w, round(h * aspect)))
    return _crop_and_resize(video, (h - box_h) // 2, (w - box_w) // 2, box_h, box_w, size)


def multi_scale_crop(
    video: np.ndarray,
    size: int,
    rng: np.random.Generator,
    scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66),
) -> View:
    """Crops a box at one of 13 positions and in one of several sizes, and resizes it to [T, size, size, C].

    TSN (Wang et al., arXiv:1608.00859, section 3.2, "corner cropping and scale-jittering"). Height and width
    are each the shorter side times one of `scales`, at most one step apart. The positions are those points of
    a 5 x 5 grid over the possible offsets whose row and column are both even or both odd: corners, center,
    midpoints of the sides, and quarters. A length within two pixels of `size` becomes `size`, as in TSN's
    code.
    """
    h, w = video.shape[1:3]
    sides = [max(1, int(min(h, w) * s)) for s in scales]
    sides = [size if abs(side - size) < 3 and size <= min(h, w) else side for side in sides]
    pairs = [(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1]
    box_h, box_w = pairs[rng.integers(len(pairs))]
    grid = [(y, x) for y in range(5) for x in range(5) if y % 2 == x % 2]
    y, x = grid[rng.integers(len(grid))]
    return _crop_and_resize(video, (h - box_h) * y // 4, (w - box_w) * x // 4, box_h, box_w, size)


def short_side_jitter(
    video: np.ndarray,
    size: int,
    rng: np.random.Generator,
    short_side_range: Sequence[int],
    inverse: bool = False,
) -> View:
    """Resizes the short side to a random length in `short_side_range` and crops a random square.

    SlowFast (arXiv:1812.03982, section 3.3, after Simonyan & Zisserman). With `inverse`, the inverse of the
    length is uniform instead of the length, as in PySlowFast's recipes for Something-Something and Charades.

    Returns:
      uint8 [T, size, size, C] and the geometry.

    Raises:
      UserError: the range starts below `size`.
    """
    low, high = short_side_range
    if not size <= low <= high:
        raise UserError(
            f"short_side_range is ({low}, {high}): it must be ascending and start at size={size} or more"
        )
    h, w = video.shape[1:3]
    length = 1 / rng.uniform(1 / high, 1 / low) if inverse else rng.integers(low, high + 1)
    side = max(1, min(h, w, round(size * min(h, w) / length)))
    top, left = rng.integers(h - side + 1), rng.integers(w - side + 1)
    return _crop_and_resize(video, top, left, side, side, size)


def flip(video: np.ndarray) -> np.ndarray:
    """Flips a clip horizontally."""
    return cv2.flip(_rows(video), 1).reshape(video.shape)


def color_jitter(
    video: np.ndarray,
    rng: np.random.Generator,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> np.ndarray:
    """Jitters the brightness, contrast, saturation and hue of a clip.

    The first three are scaled by a factor drawn uniformly from 1 ± the argument (at least 0): brightness
    about black, contrast about the clip's mean luma, saturation about each pixel's luma. Hue is rotated about
    the luma axis of YIQ by up to ± the argument, in turns. All four are affine in RGB, so they are applied as
    one matrix, with one rounding and clipping. They commute, so that the random order of torchvision, which
    rounds and clips after each, needs no counterpart. For gray clips, only brightness and contrast apply.
    """
    b, c, s = (rng.uniform(max(0.0, 1 - x), 1 + x) for x in (brightness, contrast, saturation))
    angle = 2 * np.pi * rng.uniform(-hue, hue)
    channels = video.shape[-1]
    mean = np.dot(cv2.mean(_rows(video))[:channels], LUMA if channels == 3 else [1.0])
    shift = (1 - c) * b * mean
    if channels == 1:
        table = np.arange(256) * b * c + shift
        return np.clip(np.rint(table), 0, 255).astype(np.uint8)[video]
    saturate = s * np.eye(3) + (1 - s) * LUMA[None, :]
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix = b * c * np.linalg.solve(YIQ, turn @ YIQ) @ saturate
    affine = np.concatenate([matrix, np.full((3, 1), shift)], 1)
    return cv2.transform(_rows(video), affine).reshape(video.shape)


def grayscale(video: np.ndarray) -> np.ndarray:
    """Replaces the colors of a clip by their luma and keeps the number of channels."""
    return cv2.transform(_rows(video), np.tile(LUMA, (3, 1))).reshape(video.shape)


def _rows(video: np.ndarray) -> np.ndarray:
    """Reshapes a clip to one image [T H, W, C] for OpenCV."""
    frames, h, w, channels = video.shape
    return np.ascontiguousarray(video).reshape(frames * h, w, channels)


def train_transform(video: np.ndarray, cfg: Any, rng: np.random.Generator, flip_ok: bool) -> View:
    """Augments a clip for training.

    Args:
      video: uint8 [T, H, W, C].
      cfg: the config's data section. `crop` is "random_resized", "multi_scale", "short_side" or "center";
        `color_jitter` is the strength for brightness, contrast and saturation, and a quarter of it for hue
        (the proportions of SimCLR, arXiv:2002.05709, appendix A); `color_jitter_probability` and `grayscale`
        are the probabilities of jitter and of losing all color; `auto_augment`, with its fill color and
        interpolation, is applied to the crop; `flip` enables horizontal flips with probability 1/2.
      rng: random generator.
      flip_ok: whether flips preserve the class.

    Returns:
      uint8 [T, S, S, C] and the geometry.

    Raises:
      UserError: the crop is unknown, or a size does not fit.
    """
    if cfg.crop == "random_resized":
        clip, geometry = random_resized_crop(video, cfg.size, rng, cfg.scale, cfg.ratio)
    elif cfg.crop == "multi_scale":
        clip, geometry = multi_scale_crop(video, cfg.size, rng)
    elif cfg.crop == "short_side":
        clip, geometry = short_side_jitter(video, cfg.size, rng, cfg.short_side_range, cfg.short_side_inverse)
    elif cfg.crop == "center":
        resized = resize_short_side(video, cfg.short_side)
        clip, geometry = center_crop(resized, cfg.size)
        geometry = _resized(video, resized).then(geometry)
    else:
        raise unknown("crop", cfg.crop, ("random_resized", "multi_scale", "short_side", "center"))
    if cfg.color_jitter and rng.random() < cfg.color_jitter_probability:
        clip = color_jitter(
            clip, rng, cfg.color_jitter, cfg.color_jitter, cfg.color_jitter, cfg.color_jitter / 4
        )
    if cfg.grayscale and clip.shape[-1] == 3 and rng.random() < cfg.grayscale:
        clip = grayscale(clip)
    if cfg.auto_augment:
        clip, warps = auto_augment(
            clip, rng, cfg.auto_augment, cfg.auto_augment_fill, cfg.auto_augment_interpolation
        )
        geometry = geometry.then(warps)
    if cfg.flip and flip_ok and rng.random() < 0.5:
        return flip(clip), geometry.flip()
    return clip, geometry


def test_views(video: np.ndarray, cfg: Any, crops: int) -> list[View]:
    """Returns `crops` test crops [T, S, S, C] of `video` [T, H, W, C], each with its geometry.

    The clip is resized by the rule `cfg.resize`, to height and width `cfg.resize_to` if that is set, else to
    the short side `cfg.short_side`.
    """
    if cfg.resize_to:
        resized = RESIZES[cfg.resize].frames(video, *cfg.resize_to)
    else:
        resized = resize_short_side(video, cfg.short_side, cfg.resize)
    before = _resized(video, resized)
    return [(view, before.then(g)) for view, g in test_crops(resized, cfg.size, crops, cfg.resize)]


test_views.__test__ = False


def _resized(video: np.ndarray, resized: np.ndarray) -> Geometry:
    return Geometry.identity(*video.shape[1:3]).resize(*resized.shape[1:3])
