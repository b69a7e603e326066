"""RandAugment for clips (Cubuk et al., arXiv:1909.13719), with one draw for all frames of a clip.

The fifteen operations and their ranges are timm's "increasing" set, which video recipes use as
"rand-m7-n4-mstd0.5-inc1": 4 operations of magnitude 7 out of 10, with normal noise of standard deviation 0.5.
The operations are implemented with Pillow.
"""

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GREY = (124, 116, 104)  # ImageNet's mean color, which fills areas outside the frame


def rand_augment(
    video: np.ndarray, rng: np.random.Generator, magnitude: float = 7.0, ops: int = 4, deviation: float = 0.5
) -> np.ndarray:
    """Applies random operations to a clip.

    Args:
      video: uint8 [T, H, W, 3].
      rng: random generator.
      magnitude: mean strength of an operation, 0 to 10.
      ops: number of operations drawn, with replacement; each is applied with probability 1/2.
      deviation: standard deviation of the strength.

    Returns:
      uint8 [T, H, W, 3].
    """
    frames = [Image.fromarray(f) for f in video]
    for name in rng.choice(sorted(OPERATIONS), ops):
        strength = float(np.clip(rng.normal(magnitude, deviation), 0.0, 10.0)) / 10
        sign = rng.choice((-1.0, 1.0))
        if rng.random() < 0.5:
            frames = [OPERATIONS[name](f, strength, sign) for f in frames]
    return np.stack([np.asarray(f) for f in frames])


def _enhance(kind: type, frame: Image.Image, strength: float, sign: float) -> Image.Image:
    return kind(frame).enhance(max(0.1, 1 + 0.9 * strength * sign))


def _affine(matrix: Callable, frame: Image.Image, strength: float, sign: float) -> Image.Image:
    coefficients = matrix(strength * sign, *frame.size)
    return frame.transform(frame.size, Image.AFFINE, coefficients, Image.BILINEAR, fillcolor=GREY)


def _solarize_add(frame: Image.Image, strength: float, sign: float) -> Image.Image:
    table = [min(255, i + int(110 * strength)) if i < 128 else i for i in range(256)]
    return frame.point(table * 3)


# name: (frame, strength from 0 to 1, sign of the change) -> frame
OPERATIONS: dict[str, Callable[[Image.Image, float, float], Image.Image]] = {
    "auto_contrast": lambda f, s, _: ImageOps.autocontrast(f),
    "equalize": lambda f, s, _: ImageOps.equalize(f),
    "invert": lambda f, s, _: ImageOps.invert(f),
    "rotate": lambda f, s, sign: f.rotate(30 * s * sign, Image.BILINEAR, fillcolor=GREY),
    "posterize": lambda f, s, _: ImageOps.posterize(f, max(1, 4 - int(4 * s))),
    "solarize": lambda f, s, _: ImageOps.solarize(f, 256 - int(256 * s)),
    "solarize_add": _solarize_add,
    "color": functools.partial(_enhance, ImageEnhance.Color),
    "contrast": functools.partial(_enhance, ImageEnhance.Contrast),
    "brightness": functools.partial(_enhance, ImageEnhance.Brightness),
    "sharpness": functools.partial(_enhance, ImageEnhance.Sharpness),
    "shear_x": functools.partial(_affine, lambda v, w, h: (1, 0.3 * v, 0, 0, 1, 0)),
    "shear_y": functools.partial(_affine, lambda v, w, h: (1, 0, 0, 0.3 * v, 1, 0)),
    "translate_x": functools.partial(_affine, lambda v, w, h: (1, 0, 0.45 * v * w, 0, 1, 0)),
    "translate_y": functools.partial(_affine, lambda v, w, h: (1, 0, 0, 0, 1, 0.45 * v * h)),
}
