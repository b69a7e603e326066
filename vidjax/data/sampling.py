"""Selection of a clip's frames. Pure numpy: from counts or times to int64 frame indices in [0, total).

A video too short for a window follows one of two rules. `loop`: the video starts again after its last frame,
as often as needed (I3D, arXiv:1705.07750, section 3.1). `hold`: its last frame stays.

Frames are counted, or found by their times: `times` are then those at which each frame appears and, last, the
end of the video, float64 [total + 1]. Offsets and starts are in their unit. The frame of a moment is the one
shown then, the last that has appeared; a frame that appears up to `slack` later counts as shown.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from vidjax.errors import UserError, unknown

STARTS = ("ends", "left", "centers")  # of test clips, see `spread`
SLACK = 1e-6  # of rounding: 10 x 0.3 is 3, not 2.999...


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
    """`frames` frames `stride` apart, at a start drawn evenly from all that fit, or centered without `rng`.

    SlowFast (arXiv:1812.03982, section 3.2: a clip of T frames with a temporal stride tau). Frame i is
    start + floor(i stride), so a stride that is not whole is met on average. Where the window does not fit
    it begins at frame 0 and `short` ("loop" or "hold") defines how it continues.

    Returns:
      int64 [frames].

    Raises:
      UserError: for an unknown rule, or a count or stride that is not positive.
    """
    return place(total, offsets(frames, stride), rng, short)


def test_clips(total: int, frames: int, stride: float, clips: int, short: str = "loop") -> np.ndarray:
    """`clips` windows with starts spread evenly from the start of the video to its end; one clip is centered.

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
    return np.floor(steps(frames, stride) + SLACK).astype(np.int64)


def steps(frames: int, stride: float) -> np.ndarray:
    """`offsets` before rounding, float64 [frames]."""
    _positive(frames=frames, stride=stride)
    return np.arange(frames) * float(stride)


def place(
    total: int,
    offsets: np.ndarray,
    rng: np.random.Generator | None = None,
    short: str = "loop",
    times: np.ndarray | None = None,
    slack: float = SLACK,
) -> np.ndarray:
    """`window` of frames at any `offsets` [frames] from its start, counted or by time."""
    _positive(total=total)
    times = _counted(total) if times is None else times
    room = _room(times, offsets, slack)
    if room < 0:
        start = times[0]
    else:
        start = _start(times, offsets, room // 2 if rng is None else rng.integers(room + 1), room)
    return shown_from(start, offsets, times, short, slack)


def spread(
    total: int,
    offsets: np.ndarray,
    clips: int,
    short: str = "loop",
    times: np.ndarray | None = None,
    slack: float = SLACK,
    where: str = "ends",
) -> np.ndarray:
    """`test_clips` of frames at any `offsets` [frames] from the start of each, counted or by time.

    `where` is one of `STARTS`. "ends" puts the last clip at the video's end, and a single one in its middle.
    The others cut the room for starts into as many parts as clips: "left" starts each at the left of its part
    (PySlowFast, slowfast/datasets/decoder.py, get_start_end_idx), "centers" at its center (mmaction,
    datasets/pipelines/loading.py, SampleFrames).
    """
    if where not in STARTS:
        raise unknown("rule for test clips", where, STARTS)
    _positive(total=total, clips=clips)
    times = _counted(total) if times is None else times
    room = _room(times, offsets, slack)
    i = np.arange(clips, dtype=np.int64)
    if room < 0:
        starts = times[i * total // clips if short == "loop" else 0 * i]
    elif where == "left":
        starts = _start(times, offsets, i * room / clips, room)
    elif where == "centers":
        starts = _start(times, offsets, np.floor((i + 0.5) * (room + 1) / clips), room)
    elif clips == 1:
        starts = _start(times, offsets, np.array([room // 2]), room)
    else:
        starts = _start(times, offsets, i * room // (clips - 1), room)
    return shown_from(starts[:, None], offsets, times, short, slack)


def shown_from(
    start: np.ndarray | float, offsets: np.ndarray, times: np.ndarray, short: str, slack: float = SLACK
) -> np.ndarray:
    """The frames shown at `offsets` from `start`, int64 of the shape that both broadcast to."""
    elapsed, length, total = start - times[0] + offsets, times[-1] - times[0], len(times) - 1
    if short == "loop":
        return shown(times, times[0] + elapsed % length, slack) % total
    if short == "hold":
        return np.minimum(shown(times, times[0] + np.minimum(elapsed, length), slack), total - 1)
    raise unknown("rule for short videos", short, ("loop", "hold"))


def shown(times: np.ndarray, moments: np.ndarray | float, slack: float = SLACK) -> np.ndarray:
    """The frame shown at each of `moments`, or 0 before the first. int64, of the shape of `moments`."""
    return np.maximum(np.searchsorted(times, moments + slack, "right") - 1, 0)


def resample(
    frames: Iterable[tuple[float, Any]], rate: float, last: float, slack: float = SLACK
) -> Iterator[tuple[float, Any]]:
    """The frame shown at every multiple of 1 / `rate`: `shown`, for frames that come one by one.

    Args:
      frames: (time it appears, frame), ascending from 0.
      rate: how many are taken in a unit of time.
      last: how long the frame of a video of one is shown; the last of several stays for their mean distance.
      slack: see the module.

    Yields:
      (moment, frame).
    """
    held, now, count, taken = None, 0.0, 0, 0
    for now, frame in frames:
        while count and taken / rate + slack < now:
            yield taken / rate, held
            taken += 1
        held, count = frame, count + 1
    end = now + (now / (count - 1) if count > 1 else last)
    while count and taken / rate + slack < end:
        yield taken / rate, held
        taken += 1


def _counted(total: int) -> np.ndarray:
    return np.arange(total + 1.0)


def _room(times: np.ndarray, offsets: np.ndarray, slack: float) -> int:
    """The last frame at which a window can start; negative where there is none."""
    return int(np.searchsorted(times[:-1] + offsets.max(), times[-1] - slack)) - 1


def _start(times: np.ndarray, offsets: np.ndarray, k: np.ndarray | int, room: int) -> np.ndarray:
    """The k-th of `room` + 1 starts, evenly apart in time; the last window ends with the last frame."""
    last = max(times[room], times[-2] - offsets.max())
    return times[0] + k * (last - times[0]) / max(room, 1)


def _positive(**counts: float) -> None:
    for name, count in counts.items():
        if not count > 0:
            raise UserError(f"{name} must be positive, not {count}")
