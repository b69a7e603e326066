"""Encoding of flow as bytes, for the transfer to the device, and as colors, for display.

A byte q stands for (q - 128) * bound / 127 pixels, so 128 is exactly no motion, 1 and 255 are the bounds, and
a mirrored field has 256 - q. With a bound of 20 pixels, the usual one, a step is 0.16 pixels.
"""

import cv2
import numpy as np

ZERO, STEPS = 128, 127


def quantise(flow: np.ndarray, bound: float) -> np.ndarray:
    """float [..., 2] in pixels, clipped to ± `bound` -> uint8 [..., 2]."""
    steps = np.rint(np.clip(flow, -bound, bound) * (STEPS / bound))
    return (steps + ZERO).astype(np.uint8)


def dequantise(coded: np.ndarray, bound: float) -> np.ndarray:
    """uint8 [..., 2] -> float32 [..., 2] in pixels, within half a step, bound / 254, of what was coded."""
    return (coded.astype(np.float32) - ZERO) * np.float32(bound / STEPS)


def picture(coded: np.ndarray) -> np.ndarray:
    """Coded flow uint8 [..., H, W, 2] in colors, uint8 [..., H, W, 3]: hue is the direction (red to the
    right, then clockwise), and the fastest pixel is the most colourful; white is no motion."""
    x, y = np.moveaxis(coded.astype(np.float32) - ZERO, -1, 0)
    length, angle = cv2.cartToPolar(x.reshape(-1, 1), y.reshape(-1, 1), angleInDegrees=True)
    saturation = length / max(1.0, float(length.max()))
    hsv = np.stack([angle, saturation, np.ones_like(angle)], -1)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.rint(255 * rgb).astype(np.uint8).reshape(*coded.shape[:-1], 3)
