"""Dense optical flow of a clip, by OpenCV.

dis        Kroeger et al., "Fast Optical Flow using Dense Inverse Search", arXiv:1603.03590: the default, the
           quickest and sharp at edges. OpenCV's preset "medium".
farneback  Farnebäck, "Two-Frame Motion Estimation Based on Polynomial Expansion", SCIA 2003: smoother.
tvl1       Zach et al., "A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007: what most
           two-stream results were made with, and the slowest by far. In opencv-contrib only.
"""

from collections.abc import Callable

import cv2
import numpy as np

from vidjax.errors import UserError, unknown

cv2.setNumThreads(1)  # the pipeline runs clips side by side

METHODS = ("dis", "farneback", "tvl1")
SMALLEST = 16  # pixels; below, a pyramid has nothing to start from
Estimator = Callable[[np.ndarray, np.ndarray], np.ndarray]


def flow(clip: np.ndarray, method: str = "dis") -> np.ndarray:
    """Returns the displacement of every pixel from each frame to the next.

    Args:
      clip: uint8 [T + 1, H, W, C], C = 1 (gray) or 3 (RGB, reduced to its BT.601 luma).
      method: one of `METHODS`.

    Returns:
      float32 [T, H, W, 2], pixels per frame: x to the right, then y downwards. What lies at (x, y) in frame t
      lies at (x, y) + flow[t, y, x] in frame t + 1.

    Raises:
      UserError: an unknown method, one that this OpenCV does not have, or frames below 16 pixels.
    """
    frames, height, width, channels = clip.shape
    if min(height, width) < SMALLEST:
        raise UserError(f"optical flow needs frames of at least {SMALLEST} pixels, got {height}x{width}")
    if channels == 3:
        grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in clip]
    else:
        grey = [np.ascontiguousarray(frame[..., 0]) for frame in clip]
    between = estimator(method)
    out = np.empty((frames - 1, height, width, 2), np.float32)
    for t in range(frames - 1):
        out[t] = between(grey[t], grey[t + 1])
    return out


def estimator(method: str) -> Estimator:
    """(grey uint8 [H, W], the next) -> float32 [H, W, 2]. It keeps scratch memory: one thread may use it.

    Raises:
      UserError: as `flow`.
    """
    if method == "dis":
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return lambda a, b: dis.calc(a, b, None)
    if method == "farneback":
        # Pyramid by halves of 3 levels, windows of 15 pixels, 3 turns, polynomials over 5 pixels.
        return lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.1, 0)
    if method == "tvl1":
        if not hasattr(getattr(cv2, "optflow", None), "createOptFlow_DualTVL1"):
            raise UserError(
                "flow method 'tvl1' is not in this OpenCV: install opencv-contrib-python-headless in place "
                "of opencv-python-headless, or use dis or farneback"
            )
        tvl1 = cv2.optflow.createOptFlow_DualTVL1()
        return lambda a, b: tvl1.calc(a, b, None)
    raise unknown("flow method", method, METHODS)
