"""RandAugment, AutoAugment and 3-Augment for clips, with one draw for all frames of a clip.

Policies are named as in timm, such as "rand-m7-n4-mstd0.5-inc1", and every operation gives timm's pixels,
which are Pillow's. Operations that depend on the histogram of an image treat each frame by itself, as
PySlowFast and VideoMAE do. Papers: Cubuk et al., RandAugment, arXiv:1909.13719, and AutoAugment,
arXiv:1805.09501; Touvron et al., DeiT III (3-Augment), arXiv:2204.07118.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vidjax.data.geometry import Geometry
from vidjax.errors import UserError, unknown

INTERPOLATIONS = {
    "bicubic": (Image.Resampling.BICUBIC,),
    "bilinear": (Image.Resampling.BILINEAR,),
    "random": (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC),
}

Frame = Image.Image


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation on an image.

    Attributes:
      argument: (strength, sign) -> argument of `apply` or `warp`. The strength is 1 at level 10, the sign is
        1 or -1 at random.
      apply: (image, argument) -> image; None for warps.
      warp: (argument, width, height) -> `read_at` of `Geometry.warp`.
    """

    argument: Callable[[float, int], Any]
    apply: Callable[[Frame, Any], Frame] | None = None
    warp: Callable[[float, int, int], tuple[float, ...]] | None = None


def _rotation(degrees: float, width: int, height: int) -> tuple[float, ...]:
    angle = -math.radians(degrees % 360)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)  # as Pillow rounds
    x, y = width / 2, height / 2
    return cos, sin, -cos * x - sin * y + x, -sin, cos, sin * x - cos * y + y


def _solarize_add(frame: Frame, add: int) -> Frame:
    table = [min(255, i + add) if i < 128 else i for i in range(256)]
    return frame.point(table * 3)


def _posterize(frame: Frame, bits: int) -> Frame:
    """Keeps the highest bits; none makes the image black."""
    mask = 256 - 2 ** (8 - max(0, min(bits, 8)))
    return frame.point([i & mask for i in range(256)] * 3)


def _sharpness(frame: Frame, factor: float) -> Frame:
    """Blends a frame with a smooth one, as `ImageEnhance.Sharpness` but with OpenCV's filter.

    The sums of the filter are multiples of 1/13 and never close to half a level, so both round alike.
    """
    image = np.asarray(frame)
    smooth = image.copy()  # Pillow leaves the outermost pixels as they are
    smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, _SMOOTH)[1:-1, 1:-1]
    return Image.blend(Image.fromarray(smooth), frame, factor)


_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def _enhance(kind: Callable[[Frame], Any]) -> Callable[[Frame, float], Frame]:
    return lambda frame, factor: kind(frame).enhance(factor)


_color = _enhance(ImageEnhance.Color)
_contrast = _enhance(ImageEnhance.Contrast)
_brightness = _enhance(ImageEnhance.Brightness)


def _nothing(strength: float, sign: int) -> None:
    return None


def _factor(strength: float, sign: int) -> float:
    return strength * 1.8 + 0.1


def _rising_factor(strength: float, sign: int) -> float:
    return max(0.1, 1.0 + sign * (strength * 0.9))


def _within(low: float, high: float) -> Callable[[float, int], float]:
    return lambda strength, sign: max(low, min(high, low + (high - low) * strength))


def _bits(strength: float, sign: int) -> int:
    return int(strength * 4)


def _threshold(strength: float, sign: int) -> int:
    return min(256, int(strength * 256))


def _signed(limit: float) -> Callable[[float, int], float]:
    return lambda strength, sign: sign * (strength * limit)


# By timm's names. "Increasing" operations change an image more at higher levels.
OPERATIONS = {
    "AutoContrast": Operation(_nothing, lambda f, _: ImageOps.autocontrast(f)),
    "Equalize": Operation(_nothing, lambda f, _: ImageOps.equalize(f)),
    "Invert": Operation(_nothing, lambda f, _: ImageOps.invert(f)),
    "Rotate": Operation(_signed(30.0), warp=_rotation),
    "Posterize": Operation(_bits, _posterize),
    "PosterizeIncreasing": Operation(lambda s, sign: 4 - _bits(s, sign), _posterize),
    "PosterizeOriginal": Operation(lambda s, sign: 4 + _bits(s, sign), _posterize),
    "Solarize": Operation(_threshold, ImageOps.solarize),
    "SolarizeIncreasing": Operation(lambda s, sign: 256 - _threshold(s, sign), ImageOps.solarize),
    "SolarizeAdd": Operation(lambda s, _: min(128, int(s * 110)), _solarize_add),
    "Color": Operation(_factor, _color),
    "ColorIncreasing": Operation(_rising_factor, _color),
    "Contrast": Operation(_factor, _contrast),
    "ContrastIncreasing": Operation(_rising_factor, _contrast),
    "Brightness": Operation(_factor, _brightness),
    "BrightnessIncreasing": Operation(_rising_factor, _brightness),
    "Sharpness": Operation(_factor, _sharpness),
    "SharpnessIncreasing": Operation(_rising_factor, _sharpness),
    "ShearX": Operation(_signed(0.3), warp=lambda v, w, h: (1, v, 0, 0, 1, 0)),
    "ShearY": Operation(_signed(0.3), warp=lambda v, w, h: (1, 0, 0, v, 1, 0)),
    "TranslateXRel": Operation(_signed(0.45), warp=lambda v, w, h: (1, 0, v * w, 0, 1, 0)),
    "TranslateYRel": Operation(_signed(0.45), warp=lambda v, w, h: (1, 0, 0, 0, 1, v * h)),
    "Desaturate": Operation(_within(0.5, 1.0), lambda f, amount: _color(f, min(1.0, max(0.0, 1.0 - amount)))),
    "GaussianBlur": Operation(
        _within(0.1, 2.0), lambda f, radius: f.filter(ImageFilter.GaussianBlur(radius))
    ),
    # The radius is drawn between 0.1 and twice the argument, see `Step.draw`.
    "GaussianBlurRand": Operation(
        _within(0.0, 1.0), lambda f, radius: f.filter(ImageFilter.GaussianBlur(radius))
    ),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """An operation that is applied with some probability.

    Attributes:
      name: key of `OPERATIONS`.
      probability: of being applied.
      magnitude: mean level.
      deviation: standard deviation of the level; inf draws it uniformly from 0 to `magnitude`.
      limit: highest level.
    """

    name: str
    probability: float
    magnitude: float
    deviation: float = 0.0
    limit: float = 10.0

    def draw(self, rng: np.random.Generator) -> Any:
        """Draws the argument of the operation."""
        level = self.magnitude
        if self.deviation == math.inf:
            level = rng.uniform(0, level)
        elif self.deviation:
            level = rng.normal(level, self.deviation)
        strength = max(0.0, min(level, self.limit)) / 10
        argument = OPERATIONS[self.name].argument(strength, 1 if rng.random() < 0.5 else -1)
        return rng.uniform(0.1, 2.0 * argument) if self.name == "GaussianBlurRand" else argument


@dataclasses.dataclass(frozen=True)
class Policy:
    """Lists of steps, of which `count` are drawn for a clip and applied in turn.

    Attributes:
      choices: lists of steps.
      count: number of lists that are drawn.
      weights: probabilities of the lists, which are then drawn without replacement; None draws with
        replacement.
    """

    choices: tuple[tuple[Step, ...], ...]
    count: int = 1
    weights: tuple[float, ...] | None = None

    def draw(self, rng: np.random.Generator) -> list[Step]:
        drawn = rng.choice(len(self.choices), self.count, replace=self.weights is None, p=self.weights)
        return [step for i in drawn for step in self.choices[i]]


def auto_augment(
    video: np.ndarray,
    rng: np.random.Generator,
    policy: str,
    fill: Sequence[int] = (128, 128, 128),
    interpolation: str = "bicubic",
) -> tuple[np.ndarray, Geometry]:
    """Applies the operations of a policy to a clip.

    Args:
      video: uint8 [T, H, W, 3].
      rng: random generator.
      policy: see `parse`.
      fill: color of areas that rotations, shears and translations move into the frame. PySlowFast and
        VideoMAE fill with gray, timm with the mean color of the model.
      interpolation: of rotations, shears and translations: "bicubic" (the video recipes), "bilinear", or
        "random" for one of them at random (timm's default).

    Returns:
      uint8 [T, H, W, 3], and the geometry of the rotations, shears and translations.

    Raises:
      UserError: the policy is malformed.
    """
    geometry = Geometry.identity(*video.shape[1:3])
    frames = [Image.fromarray(f) for f in video]
    for step in parse(policy).draw(rng):
        if rng.random() >= step.probability:
            continue
        operation, argument = OPERATIONS[step.name], step.draw(rng)
        if operation.warp:
            read_at = operation.warp(argument, *frames[0].size)
            methods = INTERPOLATIONS[interpolation]
            method = methods[rng.integers(len(methods))]
            frames = [warp(f, read_at, method, fill) for f in frames]
            geometry = geometry.warp(read_at)
        else:
            frames = [operation.apply(f, argument) for f in frames]
    return np.stack([np.asarray(f) for f in frames]), geometry


def warp(frame: Frame, read_at: Sequence[float], method: Image.Resampling, fill: Sequence[int]) -> Frame:
    """Warps an image; `read_at` is that of `Geometry.warp`."""
    return frame.transform(frame.size, Image.Transform.AFFINE, read_at, method, fillcolor=tuple(fill))


_BASE = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color",
    "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel",
)  # fmt: skip
_INCREASING = tuple(f"{name}Increasing" if f"{name}Increasing" in OPERATIONS else name for name in _BASE)
# Sets of operations of "rand-t…", with their weights.
SETS = {
    "3a": ("SolarizeIncreasing", "Desaturate", "GaussianBlur"),
    "3aw": {
        "SolarizeIncreasing": 6, "Desaturate": 6, "GaussianBlur": 6, "Rotate": 3, "ShearX": 2, "ShearY": 2,
        "PosterizeIncreasing": 1, "AutoContrast": 1, "ColorIncreasing": 1, "SharpnessIncreasing": 1,
        "ContrastIncreasing": 1, "BrightnessIncreasing": 1, "Equalize": 1, "Invert": 1,
    },
    "weights": {
        "Rotate": 3, "ShearX": 2, "ShearY": 2, "TranslateXRel": 1, "TranslateYRel": 1,
        "ColorIncreasing": 0.25, "SharpnessIncreasing": 0.25, "AutoContrast": 0.25,
        "SolarizeIncreasing": 0.05, "SolarizeAdd": 0.05, "ContrastIncreasing": 0.05,
        "BrightnessIncreasing": 0.05, "Equalize": 0.05, "PosterizeIncreasing": 0.05, "Invert": 0.05,
    },
}  # fmt: skip
# "rand-w0" of earlier versions of timm and of PySlowFast, in the order of `_BASE`.
_WEIGHTS_0 = (0.025, 0.005, 0, 0.3, 0, 0.005, 0.005, 0.025, 0.005, 0.005, 0.025, 0.2, 0.2, 0.1, 0.1)

# Pairs of operations, each with its probability and level.
_ORIGINAL = """
Posterize* 0.4 8, Rotate 0.6 9
Solarize 0.6 5, AutoContrast 0.6 5
Equalize 0.8 8, Equalize 0.6 3
Posterize* 0.6 7, Posterize* 0.6 6
Equalize 0.4 7, Solarize 0.2 4
Equalize 0.4 4, Rotate 0.8 8
Solarize 0.6 3, Equalize 0.6 7
Posterize* 0.8 5, Equalize 1.0 2
Rotate 0.2 3, Solarize 0.6 8
Equalize 0.6 8, Posterize* 0.4 6
Rotate 0.8 8, Color 0.4 0
Rotate 0.4 9, Equalize 0.6 2
Equalize 0.0 7, Equalize 0.8 8
Invert 0.6 4, Equalize 1.0 8
Color 0.6 4, Contrast 1.0 8
Rotate 0.8 8, Color 1.0 2
Color 0.8 8, Solarize 0.8 7
Sharpness 0.4 7, Invert 0.6 8
ShearX 0.6 5, Equalize 1.0 9
Color 0.4 0, Equalize 0.6 3
Equalize 0.4 7, Solarize 0.2 4
Solarize 0.6 5, AutoContrast 0.6 5
Invert 0.6 4, Equalize 1.0 8
Color 0.6 4, Contrast 1.0 8
Equalize 0.8 8, Equalize 0.6 3
"""
_V0 = """
Equalize 0.8 1, ShearY 0.8 4
Color 0.4 9, Equalize 0.6 3
Color 0.4 1, Rotate 0.6 8
Solarize 0.8 3, Equalize 0.4 7
Solarize 0.4 2, Solarize 0.6 2
Color 0.2 0, Equalize 0.8 8
Equalize 0.4 8, SolarizeAdd 0.8 3
ShearX 0.2 9, Rotate 0.6 8
Color 0.6 1, Equalize 1.0 2
Invert 0.4 9, Rotate 0.6 0
Equalize 1.0 9, ShearY 0.6 3
Color 0.4 7, Equalize 0.6 0
Posterize* 0.4 6, AutoContrast 0.4 7
Solarize 0.6 8, Color 0.6 9
Solarize 0.2 4, Rotate 0.8 9
Rotate 1.0 7, TranslateYRel 0.8 9
ShearX 0.0 0, Solarize 0.8 4
ShearY 0.8 0, Color 0.6 4
Color 1.0 0, Rotate 0.6 2
Equalize 0.8 4, Equalize 0.0 8
Equalize 1.0 4, AutoContrast 0.6 2
ShearY 0.4 7, SolarizeAdd 0.6 7
Posterize* 0.8 2, Solarize 0.6 10
Solarize 0.6 8, Equalize 0.6 1
Color 0.8 6, Rotate 0.4 5
"""
_3A = "Solarize 1.0 5\nDesaturate 1.0 10\nGaussianBlurRand 1.0 10"
# AutoAugment's policies. They differ in what a level of Posterize means.
POLICIES = {
    "original": _ORIGINAL.replace("*", "Original"),
    "originalr": _ORIGINAL.replace("*", "Increasing"),
    "v0": _V0.replace("*", ""),
    "v0r": _V0.replace("*", "Increasing"),
    "3a": _3A,
}


def parse(text: str) -> Policy:
    """Returns the policy that a text names.

    Either AutoAugment: "original" (the paper's), "originalr", "v0", "v0r" or "3a" (3-Augment), followed by
    "-mstd" and the standard deviation of the levels, such as "original-mstd0.5". Or RandAugment: "rand",
    followed by any of these parts, such as "rand-m7-n4-mstd0.5-inc1":
      m     level of the operations, 0 to 10; default 10.
      n     number of operations that are drawn; default 2.
      p     probability that a drawn operation is applied; default 0.5.
      mstd  standard deviation of the level; above 100 it is drawn uniformly from 0 to m.
      mmax  highest level; default 10.
      inc1  operations change an image more at higher levels.
      w0    draw operations without replacement, rotations and shears most often.
      t     set of operations: "tweights", "t3a" or "t3aw".

    Raises:
      UserError: it names none.
    """
    if not isinstance(text, str):
        raise UserError(f"data.auto_augment must be a text such as rand-m7-n4-mstd0.5-inc1, got {text!r}")
    return _parse(text)


@functools.lru_cache
def _parse(text: str) -> Policy:
    kind, *parts = text.split("-")
    if kind != "rand" and kind not in POLICIES:
        raise unknown("policy of data.auto_augment", kind, ("rand", *POLICIES))
    values = {}
    for part in parts:
        key, value = re.fullmatch(r"(t|[a-z]*)(.*)", part).groups()
        known = ("m", "n", "p", "mstd", "mmax", "inc", "w", "t") if kind == "rand" else ("mstd",)
        if key not in known:
            raise UserError(
                f"data.auto_augment={text}: unknown part '{part}'; {kind} takes {', '.join(known)}"
            )
        values[key] = value if key == "t" else _number(text, part, key, value)
    if kind != "rand":
        return _auto_augment(POLICIES[kind], values.get("mstd", 0.0))
    return _rand_augment(text, **values)


# Range of each number of a RandAugment policy.
_RANGES = {
    "m": (0.0, 100.0),
    "n": (1, 100),
    "p": (0.0, 1.0),
    "mstd": (0.0, 1e6),
    "mmax": (0.0, 100.0),
    "inc": (1, 1),
    "w": (0, 0),
}


def _number(text: str, part: str, key: str, value: str) -> float:
    low, high = _RANGES[key]
    try:
        number = type(low)(value)
        if low <= number <= high:
            return number
    except ValueError:
        pass
    kind = "an integer" if isinstance(low, int) else "a number"
    limits = f"{key}{low}" if low == high else f"{key} and {kind} from {low:g} to {high:g}"
    raise UserError(f"data.auto_augment={text}: the part '{part}' must be {limits}")


def _auto_augment(table: str, deviation: float) -> Policy:
    rows = [[step.split() for step in row.split(",")] for row in table.strip().splitlines()]
    return Policy(
        tuple(tuple(Step(name, float(p), float(level), deviation) for name, p, level in row) for row in rows)
    )


def _rand_augment(
    text: str,
    m: float = 10.0,
    n: int = 2,
    p: float = 0.5,
    mstd: float = 0.0,
    mmax: float = 10.0,
    inc: int = 0,
    w: int | None = None,
    t: str | None = None,
) -> Policy:
    names: Any = _INCREASING if inc else _BASE
    if t is not None:
        if t not in SETS:
            raise unknown(f"set of operations in data.auto_augment={text}:", t, SETS)
        names = SETS[t]
    weights = list(names.values()) if isinstance(names, dict) else None
    if w is not None:
        if t is not None:
            raise UserError(f"data.auto_augment={text}: use w0 or t, not both")
        weights = _WEIGHTS_0
    if weights and n > np.count_nonzero(weights):
        raise UserError(
            f"data.auto_augment={text}: {n} different operations cannot be drawn from "
            f"{np.count_nonzero(weights)}; lower n"
        )
    deviation = math.inf if mstd > 100 else mstd
    steps = tuple((Step(name, p, m, deviation, mmax or 10.0),) for name in names)
    return Policy(steps, n, tuple(np.divide(weights, np.sum(weights)).tolist()) if weights else None)
