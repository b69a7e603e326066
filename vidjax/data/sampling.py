"""Which frames of a video make a clip. Pure numpy: counts in, int64 frame indices in [0, total) out.

A video too short for a window follows one of two rules. `loop`: the video starts again after its last frame,
as often as needed (I3D, arXiv:1705.07750, section 3.1). `hold`: its last frame stays.
"""

import numpy as np

from vidjax.errors import UserError, unknown


def uniform(total: int, frames: int) -> np.ndarray:
    """The middle frames of `frames` equal parts of the video: index i is floor((i + 1/2) total / frames).

    The test rule of TSN (arXiv:1608.00859, section 3.1). A video of fewer frames repeats them in place.

    Returns:
      int64 [frames], ascending; strictly where total >= frames.
    """
    _positive(total=total, frames=frames)
    return (2 * np.arange(frames, dtype=np.int64) + 1) * total // (2 * frames)


def segments(total: int, segments: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """One frame drawn from each of `segments` equal parts of the video; `uniform` where `rng` is None.

    TSN (arXiv:1608.00859, section 3.1). Part i holds the frames from floor(i total / segments) to the next
    part's first. A video of fewer frames repeats them in place.

    Returns:
      int64 [segments], ascending; strictly where total >= segments.
    """
    if rng is None:
        return uniform(total, segments)
    _positive(total=total, segments=segments)
    edges = np.arange(segments + 1, dtype=np.int64) * total // segments
    return rng.integers(edges[:-1], np.maximum(edges[1:], edges[:-1] + 1))


def window(
    total: int, frames: int, stride: float, rng: np.random.Generator | None = None, short: str = "loop"
) -> np.ndarray:
    """`frames` frames `stride` apart, at a start drawn evenly from all that fit, or centred without `rng`.

    SlowFast (arXiv:1812.03982, section 3.2: a clip of T frames with a temporal stride tau). Frame i is
    start + floor(i stride), so a stride that is not whole is met on average. Where the window does not fit
    it begins at frame 0 and `short` ("loop" or "hold") says how it goes on.

    Returns:
      int64 [frames].

    Raises:
      UserError: for an unknown rule, or a count or stride that is not positive.
    """
    return place(total, offsets(frames, stride), rng, short)


def test_clips(total: int, frames: int, stride: float, clips: int, short: str = "loop") -> np.ndarray:
    """`clips` windows with starts spread evenly from the video's begin to its end; one clip is centred.

    SlowFast (arXiv:1812.03982, section 3.4: "uniformly sample 10 clips ... along its temporal axis"). All
    clips differ where total >= span + clips - 1, the span being floor((frames - 1) stride) + 1 frames. Where
    not even one window fits, looped clips start at i total / clips, and held clips all start at frame 0.

    Returns:
      int64 [clips, frames].

    Raises:
      UserError: for an unknown rule, or a count or stride that is not positive.
    """
    return spread(total, offsets(frames, stride), clips, short)


test_clips.__test__ = False  # the name is not a test's


def offsets(frames: int, stride: float) -> np.ndarray:
    """The frames of a window counted from its first, int64 [frames]."""
    _positive(frames=frames, stride=stride)
    return np.floor(np.arange(frames) * stride + 1e-6).astype(np.int64)  # 10 x 0.3 is 3, not 2.999...


def place(
    total: int, offsets: np.ndarray, rng: np.random.Generator | None = None, short: str = "loop"
) -> np.ndarray:
    """`window` of frames at any `offsets` int64 [frames] from its start."""
    _positive(total=total)
    room = int(total - 1 - offsets.max())
    if room < 0:
        start = 0
    elif rng is None:
        start = room // 2
    else:
        start = rng.integers(room + 1)
    return _fold(start + offsets, total, short)


def spread(total: int, offsets: np.ndarray, clips: int, short: str = "loop") -> np.ndarray:
    """`test_clips` of frames at any `offsets` int64 [frames] from the start of each."""
    _positive(total=total, clips=clips)
    room = int(total - 1 - offsets.max())
    i = np.arange(clips, dtype=np.int64)
    if room < 0:
        starts = i * total // clips if short == "loop" else 0 * i
    elif clips == 1:
        starts = np.array([room // 2])
    else:
        starts = i * room // (clips - 1)
    return _fold(starts[:, None] + offsets[None, :], total, short)


def _fold(indices: np.ndarray, total: int, short: str) -> np.ndarray:
    if short == "loop":
        return indices % total
    if short == "hold":
        return np.minimum(indices, total - 1)
    raise unknown("rule for short videos", short, ("loop", "hold"))


def _positive(**counts: float) -> None:
    for name, count in counts.items():
        if not count > 0:
            raise UserError(f"{name} must be positive, not {count}")
