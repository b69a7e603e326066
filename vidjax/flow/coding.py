"""Encoding of flow as bytes, for the transfer to the device, and as colors, for display.

A byte q encodes (q - 128) * bound / 127 pixels, so 128 is exactly zero, 1 and 255 are the bounds, and 256 - q
is the negative. With the usual bound of 20 pixels, one step is 0.16 pixels.
"""

import cv2
import numpy as np

ZERO, STEPS = 128, 127


def quantise(flow: np.ndarray, bound: float) -> np.ndarray:
    """Quantizes flow, float [..., 2] in pixels, clipped to ± `bound`, to uint8 [..., 2]."""
    steps = np.rint(np.clip(flow, -bound, bound) * (STEPS / bound))
    return (steps + ZERO).astype(np.uint8)


def dequantise(coded: np.ndarray, bound: float) -> np.ndarray:
    """Decodes flow, uint8 [..., 2], to float32 [..., 2] in pixels, accurate to bound / 254 (half a step)."""
    return (coded.astype(np.float32) - ZERO) * np.float32(bound / STEPS)


def picture(coded: np.ndarray) -> np.ndarray:
    """Converts encoded flow, uint8 [..., H, W, 2], to colors, uint8 [..., H, W, 3].

    Hue is the direction, from red (right) clockwise. Saturation is the speed relative to the fastest pixel,
    so white is no motion.
    """
    x, y = np.moveaxis(coded.astype(np.float32) - ZERO, -1, 0)
    length, angle = cv2.cartToPolar(x.reshape(-1, 1), y.reshape(-1, 1), angleInDegrees=True)
    saturation = length / max(1.0, float(length.max()))
    hsv = np.stack([angle, saturation, np.ones_like(angle)], -1)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.rint(255 * rgb).astype(np.uint8).reshape(*coded.shape[:-1], 3)
