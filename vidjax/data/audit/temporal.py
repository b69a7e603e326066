"""Checks of the frames of clips: which they are, and how far apart."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vidjax.data.audit.findings import RARE, WHOLE, Finding, Shown, padding, videos_text
from vidjax.data.audit.observe import Facts, Observed, Seen
from vidjax.data.streams import clip_moments

_EXPECTED = 14.0  # draws that should reach a frame before none is a fault; chance is exp(-14)
_SAME = 0.1  # relative difference of times that is taken as equal


def frames(seen: Observed) -> Iterator[Finding]:
    """Frames that do not exist, are outside of the segment, or are not in the order of the video."""
    name = seen.part.name
    missing, beyond, order = [], [], []
    for id, (indices, total) in seen.outside.items():
        wrong = indices[(indices < 0) | (indices >= total)]
        text = f"there is no frame {wrong[0]}, the video has {total}"
        missing.append(Shown(id, "", tuple(indices.tolist()), (), text))
    for clip in seen.clips:
        facts = seen.facts[clip.id]
        early, late = facts.first - clip.index.min(), clip.index.max() - facts.last
        if early > 0 or late > 0:
            side = f"{early} before the first" if early > 0 else f"{late} after the last"
            beyond.append(Shown.of(clip, f"{side} frame of the segment, {facts.first} to {facts.last}"))
        if (np.diff(clip.index) < 0).any() and _long_enough(clip, facts, seen.part.cfg):
            order.append(Shown.of(clip))
    for shown, what, change in (
        (
            missing,
            "request frames that do not exist, and count as corrupt",
            "make the sampler return indices from 0 to the number of frames - 1",
        ),
        (
            beyond,
            "have clips with frames outside of their segment",
            "sample from the frames between start and end of the record",
        ),
        (
            order,
            "are long enough for a clip, but the frames of their clips go back in time",
            "make the sampler return ascending indices",
        ),
    ):
        if shown:
            message = f"{videos_text([s.id for s in shown], seen)} {what}"
            yield Finding("frames", "error", name, message, change, tuple(shown))


def coverage(seen: Observed) -> Iterator[Finding]:
    """The first or the last frame of videos is never sampled, or test clips are not centered."""
    part, cfg = seen.part, seen.part.cfg
    clips = seen.by_video
    usable = [i for i in seen.extents if i in clips and not any(padding(c, cfg) for c in clips[i])]
    # Frames before the first and after the last frame of each read.
    left = {i: seen.extents[i][:, 0] - seen.facts[i].first for i in usable}
    right = {i: seen.facts[i].last - seen.extents[i][:, 1] for i in usable}
    if not usable:
        return
    if part.name == "train":
        yield from _training_ends(seen, left, right)
    elif cfg.sampling in WHOLE or cfg.starts == "centers" or (part.clips == 1 and cfg.starts == "ends"):
        yield from _off_center(seen, left, right)
    else:
        ends = {"first": left, "last": right} if cfg.starts == "ends" else {"first": left}
        for which, gaps in ends.items():
            if missed := {i: int(x.min()) for i, x in gaps.items() if x.min() > bool(cfg.target_fps)}:
                yield _never(seen, which, missed, f"no test clip reaches the {which} frame")


def _training_ends(
    seen: Observed, left: dict[str, np.ndarray], right: dict[str, np.ndarray]
) -> Iterator[Finding]:
    fixed = {i for i in left if np.ptp(left[i]) == np.ptp(right[i]) == 0}
    stuck = [i for i in fixed if left[i][0] > 0 and right[i][0] > 0]
    if len(stuck) > len(left) / 2 and seen.part.cfg.sampling != "uniform":
        message = f"the training clips of {videos_text(stuck, seen)} always have the same frames"
        change = "draw the start of a training clip from the random generator"
        shown = tuple(Shown.of(c) for i in stuck for c in seen.by_video[i][:2])
        yield Finding("coverage", "error", "train", message, change, shown)
        return
    moving = [i for i in left if i not in fixed]
    for which, gaps in (("first", left), ("last", right)):
        # A frame within the range of a start is drawn about once in as many draws as the range is wide.
        expected = sum(len(gaps[i]) / (np.ptp(gaps[i]) + 1) for i in moving)
        if expected > _EXPECTED and all(gaps[i].min() > 0 for i in moving):
            missed = {i: int(gaps[i].min()) for i in moving}
            draws = sum(len(gaps[i]) for i in moving)
            yield _never(
                seen,
                which,
                missed,
                f"none of {draws:,} training clips reaches the {which} frame of its video",
            )


def _never(seen: Observed, which: str, missed: dict[str, int], text: str) -> Finding:
    edge = min if which == "first" else max
    shown = []
    for i in sorted(missed, key=missed.__getitem__):
        clip = edge(seen.by_video[i], key=lambda c: c.index[0 if which == "first" else -1])
        end = seen.facts[i].first if which == "first" else seen.facts[i].last
        shown.append(Shown.of(clip, f"the {which} frame is {end}, {missed[i]} from the nearest clip"))
    near = min(missed.values())
    message = f"{text}; the nearest is {near} frame{'s' * (near != 1)} away ({videos_text(missed, seen)})"
    change = "check the bounds of the sampler: starts range from 0 to frames - span, both included"
    return Finding("coverage", "error", seen.part.name, message, change, tuple(shown))


def _off_center(
    seen: Observed, left: dict[str, np.ndarray], right: dict[str, np.ndarray]
) -> Iterator[Finding]:
    cfg = seen.part.cfg
    off = {i: int(left[i].min() - right[i].min()) for i in left}
    # Rounding puts a single window at most half a frame early, and the middles of parts half a frame late.
    low, high = (-1, 0) if cfg.sampling not in WHOLE and cfg.starts == "ends" else (0, 1)
    slack = 0.5 + bool(cfg.target_fps)
    middle = float(np.mean([*off.values()]))
    if low - slack <= middle <= high + slack:
        return
    shown = [
        Shown.of(seen.by_video[i][0], f"{left[i].min()} frames before, {right[i].min()} after the clips")
        for i in sorted(off, key=lambda i: -abs(off[i]))
    ]
    size, side = abs(middle - (low + high) / 2) / 2, "late" if middle > 0 else "early"
    message = f"test clips are {size:.3g} frames too {side} on average ({videos_text(off, seen)})"
    change = "center a single window, and take the middles of equal parts of the whole video"
    yield Finding("coverage", "error", seen.part.name, message, change, tuple(shown))


def short(seen: Observed) -> Iterator[Finding]:
    """Videos that are too short for a clip, or too slow, so that its frames repeat."""
    cfg = seen.part.cfg
    found: dict[str, dict[str, Shown]] = {"loop": {}, "hold": {}, "repeat": {}}
    for clip in seen.clips:
        if kind := padding(clip, cfg):
            facts = seen.facts[clip.id]
            seconds = facts.times[facts.last + 1] - facts.times[facts.first]
            text = f"{facts.frames} frames, {seconds:.2f} s at {facts.fps:.4g} fps"
            found[kind].setdefault(clip.id, Shown.of(clip, text))
    rate = f" at {cfg.target_fps:g} fps" if cfg.target_fps else ""
    needed = f"{cfg.frames} frames, stride {cfg.stride:g}{rate}"
    texts = {
        "loop": (
            f"are shorter than a clip ({needed}), which jumps from their end back to their start",
            "lower data.frames or data.stride, or set data.short=hold to repeat the last frame",
        ),
        "hold": (
            f"are shorter than a clip ({needed}), which ends with repetitions of their last frame",
            "lower data.frames or data.stride, or set data.short=loop to repeat the video",
        ),
        "repeat": (
            f"have fewer than {cfg.frames} frames, which repeat in place",
            "lower data.frames",
        )
        if cfg.sampling in WHOLE
        else (
            f"have fewer frames per second than a clip ({needed}), whose frames repeat in place",
            "raise data.stride or lower data.target_fps",
        ),
    }
    for kind, shown in found.items():
        if shown:
            severity = "warning" if len(shown) >= RARE * len(seen.by_video) else "note"
            message = f"{videos_text(shown, seen)} {texts[kind][0]}"
            yield Finding("short", severity, seen.part.name, message, texts[kind][1], tuple(shown.values()))


def spacing(seen: Observed) -> Iterator[Finding]:
    """Distances between frames that differ by a factor of two or more within a clip."""
    cfg = seen.part.cfg
    if cfg.sampling == "hierarchical" or (cfg.sampling == "segments" and seen.part.name == "train"):
        return
    uneven: dict[str, Shown] = {}
    for clip in seen.clips:
        gaps = np.diff(clip.index)
        if clip.id not in uneven and clip.ascending and len(gaps) and gaps.max() >= 2 * gaps.min():
            text = f"{gaps.min()} to {gaps.max()} frames apart, {seen.facts[clip.id].fps:.4g} fps"
            uneven[clip.id] = Shown.of(clip, text)
    if not uneven or len(uneven) < RARE * len(seen.by_video):
        return
    if cfg.sampling in WHOLE:
        change = f"lower data.frames: these videos have fewer than {2 * cfg.frames} frames"
    elif cfg.target_fps:
        change = "choose data.stride / data.target_fps as a multiple of the distance of their frames"
    else:
        change = "use a whole number of frames for data.stride"
    message = (
        f"{videos_text(uneven, seen)} have clips whose frames are unevenly spaced, by a factor of 2 or more"
    )
    yield Finding("spacing", "note", seen.part.name, message, change, tuple(uneven.values()))


def fps(parts: Sequence[Observed]) -> Iterator[Finding]:
    """Distances of frames in seconds that depend on the video; over all parts that read in the same way."""
    train, cfg = parts[0].part.name, parts[0].part.cfg
    if cfg.sampling != "window":
        return
    rows: list[tuple[float, float, Seen]] = []  # seconds from frame to frame, frames per second, a clip
    for seen in parts:
        for clips in seen.by_video.values():
            regular = [c for c in clips if len(c.times) > 1 and c.ascending]
            if regular:
                step = float(np.median([c.interval for c in regular]))
                rows.append((step, seen.facts[regular[0].id].fps, regular[0]))
    rows.sort(key=lambda row: row[0])

    def show(step: float, rate: float, clip: Seen) -> Shown:
        return Shown.of(clip, f"{clip.part}: {step:.3f} s apart, {rate:.4g} fps")

    if rows and cfg.target_fps:
        wanted = cfg.stride / cfg.target_fps
        # The first and the last frame may each be shown up to a frame late.
        off = [r for r in rows if abs(r[0] / wanted - 1) > _SAME + 1 / r[1] / wanted / (len(r[2].times) - 1)]
        if off:
            each = f"{wanted:.3f} s apart, data.stride / data.target_fps"
            message = f"frames of {len(off)} of {len(rows)} videos are not {each}"
            change = "select frames by their times, not by their numbers"
            yield Finding("fps", "error", train, message, change, tuple(show(*row) for row in off))
    elif rows:
        (low, quick, clip), (high, slow, _) = rows[0], rows[-1]
        if high > (1 + _SAME) * low and quick > (1 + _SAME) * slow:
            count, usual = len(clip.times) - 1, np.median([rate for _, rate, _ in rows])
            message = (
                f"data.stride={cfg.stride:g} counts frames, but videos have {slow:.4g} to {quick:.4g} fps: "
                f"clips span {low * count:.2f} to {high * count:.2f} s"
            )
            change = f"set data.target_fps, such as {usual:.4g}"
            shown = tuple(show(*row) for row in (rows[0], rows[-1]))
            yield Finding("fps", "warning", train, message, change, shown)


def _long_enough(clip: Seen, facts: Facts, cfg: Any) -> bool:
    """Whether a video is so long that its clips should be ascending."""
    if cfg.sampling == "hierarchical":
        return False
    if cfg.sampling in WHOLE:
        return True
    span = clip_moments(cfg, [s for s in clip.arrays if s in ("rgb", "flow", "features")]).max()
    length = facts.times[facts.last] - facts.times[facts.first] if cfg.target_fps else facts.frames - 1
    return bool(length >= span)
