"""Checks of the pixels of clips, of the geometry that a clip claims, and of test views."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from vidjax.data.audit.findings import RARE, Finding, Shown, videos_text
from vidjax.data.audit.observe import SHIFTS, Observed, Seen

_ASPECT = 0.03  # relative change of the aspect that rounding to whole pixels may make
_UNLIKE = 0.5  # difference of a frame and a clip from which on they show other things; random images have 1.1


def content(seen: Observed) -> Iterator[Finding]:
    """The pixels of a clip are not those at its times, or not those that its geometry describes."""
    shifted: dict[int, list[Seen]] = {}
    apart = []
    for clip, error in seen.errors:
        best, claimed = error.min(), error[SHIFTS.index(0)]
        if best > _UNLIKE:
            apart.append(clip)
        elif best < 0.7 * claimed and claimed - best > 0.02:
            shifted.setdefault(SHIFTS[int(error.argmin())], []).append(clip)
    rows = [
        (
            clips,
            f"show the frames {abs(shift)} {'after' if shift > 0 else 'before'} those of their times",
            "return the times of the frames that are decoded",
        )
        for shift, clips in shifted.items()
    ]
    rows.append(
        (
            apart,
            "do not show what their times and geometry describe",
            "return the times of the frames that are decoded, and the geometry of each transform",
        )
    )
    for clips, what, change in rows:
        if len(clips) > len(seen.errors) / 3:
            message = f"clips of {len(clips)} of {len(seen.errors)} videos {what}"
            shown = tuple(Shown.of(c) for c in clips)
            yield Finding("content", "error", seen.part.name, message, change, shown)


def aspect(seen: Observed) -> Iterator[Finding]:
    """Resizes that change the aspect, and videos whose pixels are not square."""
    part = seen.part.name
    logs: dict[str, list[float]] = {}  # of each video
    stretched: dict[str, tuple[float, Seen]] = {}  # the most stretched clip of each video
    for clip in seen.clips:
        if clip.geometry is None or any(clip.geometry.shear):
            continue
        down, across = clip.geometry.scale
        value = float(np.log(abs(across / down)))
        logs.setdefault(clip.id, []).append(value)
        if abs(value) > max(np.log1p(_ASPECT), abs(stretched.get(clip.id, (0.0,))[0])):
            stretched[clip.id] = value, clip
    ordered = sorted(stretched.values(), key=lambda row: -abs(row[0]))
    shown = tuple(Shown.of(clip, f"width x {np.exp(value):.3g}") for value, clip in ordered)
    if part == "train":
        # Random crops stretch both ways, and what remains on average is a fault.
        values = [x for each in logs.values() for x in each] or [0.0]
        mean, error = float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))
        if abs(mean) > max(4 * error, 2 * np.log1p(_ASPECT)):
            message = f"training clips are {_how(mean)} than their videos on average"
            if np.mean([np.ptp(each) for each in logs.values()]) > np.log1p(_ASPECT):
                # Of the random boxes of a wide frame, those that fit are mostly wide.
                change = "lower the upper end of data.scale, or narrow data.ratio"
                yield Finding("aspect", "note", part, message, change, shown)
            else:
                change = "crop boxes of the aspect of the output"
                yield Finding("aspect", "warning", part, message, change, shown)
    elif ordered:
        message = (
            f"test views of {videos_text(stretched, seen)} are up to {_how(ordered[0][0])} than the video"
        )
        change = "set data.resize_to=None to keep the aspect, or to a height and width of the videos' aspect"
        yield Finding("aspect", "warning", part, message, change, shown)
    odd = {i: x.pixel_aspect for i, x in seen.facts.items() if abs(x.pixel_aspect - 1) > _ASPECT}
    clips = seen.by_video
    if shown := tuple(Shown.of(clips[i][0], f"pixels of {x:.3g}:1") for i, x in odd.items() if i in clips):
        severity = "warning" if len(shown) >= RARE * len(clips) else "note"
        message = f"{videos_text(odd, seen)} have pixels that are not square, and are read as if they were"
        change = "re-encode these videos with square pixels"
        yield Finding("aspect", severity, part, message, change, shown)


def _how(log_ratio: float) -> str:
    return f"{np.exp(abs(log_ratio)):.3g} times {'wider' if log_ratio > 0 else 'narrower'}"


def views(seen: Observed) -> Iterator[Finding]:
    """Test views of a video that are the same."""
    part = seen.part
    if part.name == "train" or part.clips * part.crops == 1:
        return
    same: dict[str, tuple[Shown, Shown]] = {}
    for id, clips in seen.by_video.items():
        first: dict[Any, Seen] = {}
        for clip in clips:
            numbers = b"" if clip.geometry is None else clip.geometry.to_array().tobytes()
            place = clip.times.tobytes() + numbers
            if twin := first.get(place) or first.get(clip.digest):
                same[id] = Shown.of(twin, f"equals {clip.view}"), Shown.of(clip, f"equals {twin.view}")
                break
            first[place] = first[clip.digest] = clip
    if same:
        severity = "error" if len(same) >= len(seen.by_video) / 2 else "warning"
        message = (
            f"{videos_text(same, seen)} have identical views among {part.clips} clips x {part.crops} crops"
        )
        if all(a.view.split()[1] == b.view.split()[1] for a, b in same.values()):  # of the same clip
            change = f"lower evals.{part.name}.crops, or raise data.short_side above the size of a crop"
        else:
            change = f"lower evals.{part.name}.clips: these videos have no room for as many"
        shown = tuple(s for pair in same.values() for s in pair)
        yield Finding("views", severity, part.name, message, change, shown)


def normalization(seen: Observed) -> Iterator[Finding]:
    """Inputs of the model that hardly vary, or vary little around a mean far from 0.

    Networks that were trained on pixels of 0 to 255 minus their mean are sound as well.
    """
    if seen.normalized is None:
        return
    mean, std = seen.normalized
    if abs(mean) > 4 * std or not 0.05 < std < 200:
        message = f"the model's input has a mean of {mean:.3g} and a standard deviation of {std:.3g}"
        change = "set data.mean and data.std for pixels from 0 to 1, not from 0 to 255"
        shown = tuple(Shown.of(c) for c in seen.clips[:1])
        yield Finding("normalization", "warning", seen.part.name, message, change, shown)
