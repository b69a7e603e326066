"""Temporal sampling: selects the frames of a clip, as int64 indices in [0, total). Pure numpy.

Videos that are too short for a window follow one of two rules. "loop" repeats the video as often as needed
(I3D, arXiv:1705.07750, section 3.1); "hold" repeats its last frame.

Frames are selected by index or by time. In the latter case `times`, float64 [total + 1], are the times at
which each frame appears, followed by the end of the video, and offsets and starts are in the same unit. The
frame at a given time is the last one that has appeared, including frames that appear at most `slack` later.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from vidjax.errors import UserError, unknown

STARTS = ("ends", "left", "centers")  # rules for the starts of test clips, see `spread`
SLACK = 1e-6  # rounding tolerance: 10 x 0.3 is 3, not 2.999...


def uniform(total: int, frames: int) -> np.ndarray:
    """Returns the middle frames of `frames` equal segments: index i is floor((i + 1/2) total / frames).

    This is TSN's test rule (arXiv:1608.00859, section 3.1). If there are fewer frames, they repeat in place.

    Returns:
      int64 [frames], ascending, without repetition if total >= frames.
    """
    _positive(total=total, frames=frames)
    return (2 * np.arange(frames, dtype=np.int64) + 1) * total // (2 * frames)


def segments(total: int, segments: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Draws one frame from each of `segments` equal segments of the video; `uniform` if `rng` is None.

    TSN (arXiv:1608.00859, section 3.1). Segment i starts at frame floor(i total / segments). If there are
    fewer frames than segments, they repeat in place.

    Returns:
      int64 [segments], ascending, without repetition if total >= segments.
    """
    if rng is None:
        return uniform(total, segments)
    _positive(total=total, segments=segments)
    edges = np.arange(segments + 1, dtype=np.int64) * total // segments
    return rng.integers(edges[:-1], np.maximum(edges[1:], edges[:-1] + 1))


def window(
    total: int, frames: int, stride: float, rng: np.random.Generator | None = None, short: str = "loop"
) -> np.ndarray:
    """Samples a window of `frames` frames at distance `stride`.

    SlowFast (arXiv:1812.03982, section 3.2: a clip of T frames with a temporal stride tau). The start is
    drawn uniformly from all that fit, or the window is centered if `rng` is None. Frame i is
    start + floor(i stride), so a fractional stride holds on average. If the window does not fit, it starts at
    frame 0 and continues by the rule `short` ("loop" or "hold").

    Returns:
      int64 [frames].

    Raises:
      UserError: the rule is unknown, or a count or the stride is not positive.
    """
    return place(total, offsets(frames, stride), rng, short)


def test_clips(total: int, frames: int, stride: float, clips: int, short: str = "loop") -> np.ndarray:
    """Returns `clips` windows spread evenly from the start of the video to its end; one clip is centered.

    SlowFast (arXiv:1812.03982, section 3.4: "uniformly sample 10 clips ... along its temporal axis"). All
    clips differ if total >= span + clips - 1, where span = floor((frames - 1) stride) + 1. If no window fits,
    clips start at i total / clips under the rule "loop", and at frame 0 under "hold".

    Returns:
      int64 [clips, frames].

    Raises:
      UserError: the rule is unknown, or a count or the stride is not positive.
    """
    return spread(total, offsets(frames, stride), clips, short)


test_clips.__test__ = False  # not a test, in spite of its name


def offsets(frames: int, stride: float) -> np.ndarray:
    """Returns the frames of a window relative to its first, int64 [frames]."""
    return np.floor(steps(frames, stride) + SLACK).astype(np.int64)


def steps(frames: int, stride: float) -> np.ndarray:
    """Returns `offsets` before rounding, float64 [frames]."""
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
    """Samples a `window` with arbitrary `offsets` [frames] from its start, by index or by time."""
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
    """Returns `test_clips` with arbitrary `offsets` [frames] from their starts, by index or by time.

    `where` is one of `STARTS`. "ends" places the last clip at the end of the video, and a single clip in its
    middle. The others divide the range of starts into as many parts as clips: "left" starts each clip at the
    left of its part (PySlowFast, slowfast/datasets/decoder.py, get_start_end_idx), "centers" at its center
    (mmaction, datasets/pipelines/loading.py, SampleFrames).
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


def hierarchical(
    total: int,
    coarse: int,
    offsets: np.ndarray,
    clips: int = 1,
    rng: np.random.Generator | None = None,
    short: str = "loop",
    times: np.ndarray | None = None,
    slack: float = SLACK,
    where: str = "ends",
) -> np.ndarray:
    """Samples a few frames over the whole video, followed by a dense window within it.

    Models of long videos combine such a coarse context with a detailed clip (long-term feature banks,
    arXiv:1812.05038), but there is no agreed rule for the frames. Here the coarse ones are those of
    `segments`, and the window is placed independently of them, by `place` or `spread`. With `rng`, each clip
    draws both; without it, the clips share the coarse frames and differ in the window.

    Returns:
      int64 [clips, coarse + len(offsets)], the coarse frames first, each part in the order of time.

    Raises:
      UserError: a rule is unknown, or a count is not positive.
    """
    if rng is None:
        dense = spread(total, offsets, clips, short, times, slack, where)
    else:
        dense = np.stack([place(total, offsets, rng, short, times, slack) for _ in range(clips)])
    return np.concatenate([np.stack([segments(total, coarse, rng) for _ in dense]), dense], 1)


def shown_from(
    start: np.ndarray | float, offsets: np.ndarray, times: np.ndarray, short: str, slack: float = SLACK
) -> np.ndarray:
    """Returns the frames shown at `start + offsets`, int64 of their broadcast shape."""
    elapsed, length, total = start - times[0] + offsets, times[-1] - times[0], len(times) - 1
    if short == "loop":
        return shown(times, times[0] + elapsed % length, slack) % total
    if short == "hold":
        return np.minimum(shown(times, times[0] + np.minimum(elapsed, length), slack), total - 1)
    raise unknown("rule for short videos", short, ("loop", "hold"))


def shown(times: np.ndarray, moments: np.ndarray | float, slack: float = SLACK) -> np.ndarray:
    """Returns the frames shown at `moments`, int64 of the same shape; 0 before the first frame."""
    return np.maximum(np.searchsorted(times, moments + slack, "right") - 1, 0)


def resample(
    frames: Iterable[tuple[float, Any]], rate: float, last: float, slack: float = SLACK
) -> Iterator[tuple[float, Any]]:
    """Resamples a stream of frames to a constant rate; the streaming form of `shown`.

    Args:
      frames: (time of appearance, frame), ascending from 0.
      rate: output frames per unit of time.
      last: duration of the frame of a single-frame video; the last of several frames lasts for their mean
        distance.
      slack: see the module docstring.

    Yields:
      (time, frame).
    """
    current, now, count, emitted = None, 0.0, 0, 0
    for now, frame in frames:
        while count and emitted / rate + slack < now:
            yield emitted / rate, current
            emitted += 1
        current, count = frame, count + 1
    end = now + (now / (count - 1) if count > 1 else last)
    while count and emitted / rate + slack < end:
        yield emitted / rate, current
        emitted += 1


def _counted(total: int) -> np.ndarray:
    return np.arange(total + 1.0)


def _room(times: np.ndarray, offsets: np.ndarray, slack: float) -> int:
    """Returns the last frame at which a window can start; negative if no window fits."""
    return int(np.searchsorted(times[:-1] + offsets.max(), times[-1] - slack)) - 1


def _start(times: np.ndarray, offsets: np.ndarray, k: np.ndarray | int, room: int) -> np.ndarray:
    """Returns the k-th of `room` + 1 starts, evenly spaced so that the last window ends at the last frame."""
    last = max(times[room], times[-2] - offsets.max())
    return times[0] + k * (last - times[0]) / max(room, 1)


def _positive(**counts: float) -> None:
    for name, count in counts.items():
        if not count > 0:
            raise UserError(f"{name} must be positive, not {count}")
