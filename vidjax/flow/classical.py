"""Dense optical flow of a clip, computed by OpenCV.

dis        Kroeger et al., "Fast Optical Flow using Dense Inverse Search", arXiv:1603.03590. The default:
fastest,
           and sharp at edges. OpenCV's preset "medium".
farneback  Farnebäck, "Two-Frame Motion Estimation Based on Polynomial Expansion", SCIA 2003. Smoother.
tvl1       Zach et al., "A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007. Used for most
           published two-stream results, and by far the slowest. Requires opencv-contrib.
"""

from collections.abc import Callable

import cv2
import numpy as np

from vidjax.errors import UserError, unknown

cv2.setNumThreads(1)  # the pipeline processes clips in parallel

METHODS = ("dis", "farneback", "tvl1")
SMALLEST = 16  # pixels; smaller frames have no pyramid levels
Estimator = Callable[[np.ndarray, np.ndarray], np.ndarray]


def flow(clip: np.ndarray, method: str = "dis") -> np.ndarray:
    """Returns the displacement of every pixel from each frame to the next.

    Args:
      clip: uint8 [T + 1, H, W, C], C = 1 (gray) or 3 (RGB, reduced to its BT.601 luma).
      method: one of `METHODS`.

    Returns:
      float32 [T, H, W, 2], pixels per frame: x to the right, then y downwards. The point at (x, y) in frame t
      moves to (x, y) + flow[t, y, x] in frame t + 1.

    Raises:
      UserError: the method is unknown or missing from this OpenCV build, or frames are below 16 pixels.
    """
    frames, height, width, channels = clip.shape
    if min(height, width) < SMALLEST:
        raise UserError(f"optical flow needs frames of at least {SMALLEST} pixels, got {height}x{width}")
    if channels == 3:
        gray = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in clip]
    else:
        gray = [np.ascontiguousarray(frame[..., 0]) for frame in clip]
    estimate = estimator(method)
    out = np.empty((frames - 1, height, width, 2), np.float32)
    for t in range(frames - 1):
        out[t] = estimate(gray[t], gray[t + 1])
    return out


def estimator(method: str) -> Estimator:
    """Returns a function that estimates flow float32 [H, W, 2] from two gray frames, uint8 [H, W].

    The function is not thread-safe, because it reuses its working memory.

    Raises:
      UserError: the method is unknown or missing from this OpenCV build.
    """
    if method == "dis":
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return lambda a, b: dis.calc(a, b, None)
    if method == "farneback":
        # Pyramid scale 0.5 with 3 levels, window 15, 3 iterations, polynomial neighborhood 5 with sigma 1.1.
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
