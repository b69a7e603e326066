"""Compares training clips with test views of the same videos."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from vidjax.data.audit.findings import Finding, Shown, padding
from vidjax.data.audit.observe import Observed, Seen

_SAME = 0.1  # relative difference of times and sizes that is taken as equal
_BRIGHTER = 30.0  # gray levels
_COLORED = 4.0  # mean difference of the channels of a color image, in gray levels
_GRAY = 0.5  # the same of a gray image, in which decoding may leave a trace of color

Clips = dict[str, list[Seen]]


def mismatch(train: Observed, test: Observed) -> Iterator[Finding]:
    """Differences between training and evaluation.

    Args:
      train: training clips.
      test: one view of each of the same videos, read as an evaluation reads its split.
    """
    tested = test.by_video
    trained = {i: clips for i, clips in train.by_video.items() if i in tested}
    if not trained:
        return
    # Operations such as solarize change the colors of training clips at will.
    colors = (_saturation,) if train.part.cfg.auto_augment else (_saturation, _colors)
    for check in (_shapes, _intervals, _padding, _sizes, *colors):
        for severity, message, change, shown in check(test, trained, tested):
            yield Finding("mismatch", severity, test.part.name, message, change, shown)


Found = Iterator[tuple[str, str, str, tuple[Shown, ...]]]


def _shapes(test: Observed, trained: Clips, tested: Clips) -> Found:
    i = next(iter(trained))
    a, b = trained[i][0], tested[i][0]
    for stream in sorted(a.arrays | b.arrays):
        one, other = (x.arrays.get(stream) for x in (a, b))
        if one == other:
            continue
        message = f"{stream} is {_array(one)} in training and {_array(other)} in the evaluation"
        if one and other and len(one[0]) == len(other[0]) == 4 and _kind(one) == _kind(other):
            change = (
                "this is what the size or frames of the evaluation ask for; check that the model allows it"
            )
            yield "note", message, change, (Shown.of(a), Shown.of(b))
        else:
            yield "error", message, "read both in the same way", (Shown.of(a), Shown.of(b))


def _kind(array: tuple[tuple[int, ...], str]) -> tuple[int, str]:
    """Returns the number of channels and the dtype."""
    return array[0][-1], array[1]


def _array(array: tuple[tuple[int, ...], str] | None) -> str:
    return f"{array[1]} {list(array[0])}" if array else "absent"


def _intervals(test: Observed, trained: Clips, tested: Clips) -> Found:
    ratios = {}
    for i in trained:
        x, y = ([c.interval for c in clips[i] if _regular(c)] for clips in (trained, tested))
        if x and y:
            ratios[i] = float(np.median(y) / np.median(x))
    limit = np.log1p(2 * _SAME)
    off = {i: r for i, r in ratios.items() if abs(np.log(r)) > limit}
    logs = np.log([*ratios.values()])
    if test.part.cfg.sampling == "segments":  # the interval of a training clip is random
        differ = len(logs) > 3 and abs(logs.mean()) > max(limit, 4 * logs.std() / np.sqrt(len(logs)))
    else:
        differ = len(off) > max(1, len(ratios) / 4)
    if differ and off:
        far = f"{np.median([*off.values()]):.3g} times as far apart as those of training clips"
        message = f"frames of test views of {len(off)} of {len(ratios)} videos are {far}"
        change = "use the same stride and frame rate in both, since a model learns how fast motions are"
        yield "error", message, change, _pairs(off, trained, tested, _interval_text)


def _regular(clip: Seen) -> bool:
    return len(clip.times) > 1 and clip.ascending


def _interval_text(clip: Seen) -> str:
    span = f"{clip.times.max() - clip.times.min():.2f} s"
    return f"{clip.interval:.3f} s apart, {span} in all" if _regular(clip) else span


def _padding(test: Observed, trained: Clips, tested: Clips) -> Found:
    cfg, differing = test.part.cfg, {}
    for i in trained:
        a, b = ({padding(c, cfg) for c in clips[i]} - {""} for clips in (trained, tested))
        if a and b and a.isdisjoint(b):
            differing[i] = 1.0
    if differing:
        message = (
            f"training clips and test views of {len(differing)} short videos are padded in different ways"
        )
        shown = _pairs(differing, trained, tested, lambda clip: padding(clip, cfg))
        yield "error", message, "use the same rule data.short in both", shown


def _sizes(test: Observed, trained: Clips, tested: Clips) -> Found:
    ratios, draws = {}, []
    for i in trained:
        x, y = ([_scale(c) for c in clips[i] if c.geometry is not None] for clips in (trained, tested))
        if x and y:
            ratios[i] = float(y[0] / np.median(x))
            draws += [y[0] / each for each in x]
    if len(draws) < 8 or (min(draws) < 1 + _SAME and max(draws) > 1 - _SAME):
        return
    large = f"{np.median([*ratios.values()]):.3g} times as large in test views as in training clips"
    message = f"objects are {large}, and never of the same size"
    change = f"multiply data.short_side by about {1 / np.median([*ratios.values()]):.2g}, or change data.crop"

    def text(clip: Seen) -> str:
        return f"{_scale(clip):.3g} pixels per pixel of the video"

    yield "warning", message, change, _pairs(ratios, trained, tested, text)


def _scale(clip: Seen) -> float:
    """Returns clip pixels per video pixel; 1 for cached features."""
    if clip.geometry is None:
        return 1.0
    (down, across), (tilt, slant) = clip.geometry.scale, clip.geometry.shear
    return float(np.sqrt(abs(down * across - tilt * slant)))


def _saturation(test: Observed, trained: Clips, tested: Clips) -> Found:
    both = [i for i in trained if _is_rgb(trained[i][0]) and _is_rgb(tested[i][0])]
    vivid = {i: [max(c.saturation for c in clips[i]) for clips in (trained, tested)] for i in both}
    colored = {i: pair for i, pair in vivid.items() if max(pair) > _COLORED}
    if colored and all(min(pair) < _GRAY for pair in colored.values()):
        grays = ["training clips", "test views"]
        gray, other = grays if next(iter(colored.values()))[0] < _GRAY else grays[::-1]
        message, change = f"{gray} are gray, and {other} are in color", "read both in color, or both in gray"
        yield "error", message, change, _pairs(dict.fromkeys(colored, 1.0), trained, tested, _color_text)


def _is_rgb(clip: Seen) -> bool:
    return clip.color is not None and len(clip.color) == 3


def _colors(test: Observed, trained: Clips, tested: Clips) -> Found:
    means = {}
    for i in trained:
        x, y = ([c.color for c in clips[i] if c.color is not None] for clips in (trained, tested))
        if x and y and len(x[0]) == len(y[0]):
            means[i] = np.mean(x, 0), np.mean(y, 0)
    if not means:
        return
    trainings, tests = (np.stack(column) for column in zip(*means.values()))
    shown = _pairs(dict.fromkeys(means, 1.0), trained, tested, _color_text)
    difference = tests.mean(1) - trainings.mean(1)
    if abs(np.median(difference)) > _BRIGHTER and abs(np.sign(difference).mean()) > 0.9:
        levels = f"{trainings.mean():.3g} in training clips and {tests.mean():.3g} in test views"
        yield (
            "error",
            f"pixels of the same videos have a mean of {levels}",
            "scale pixels in the same way in both",
            shown,
        )
    if trainings.shape[1] != 3:
        return
    tint, other = trainings[:, 0] - trainings[:, 2], tests[:, 0] - tests[:, 2]
    strength = float(np.sqrt((tint**2).sum() * (other**2).sum()))
    if strength > _COLORED * len(means) and float((tint * other).sum()) < -0.5 * strength:
        message = "red and blue are exchanged between training clips and test views"
        yield "error", message, "read both as RGB", shown


def _color_text(clip: Seen) -> str:
    mean = [] if clip.color is None else clip.color.round(1).tolist()
    return f"mean {mean}, saturation {clip.saturation:.1f}"


def _pairs(
    ratios: dict[str, float], trained: Clips, tested: Clips, text: Callable[[Seen], str]
) -> tuple[Shown, ...]:
    """Returns a training clip and a test view of each video, those of the largest difference first."""
    ids: Iterable[str] = sorted(ratios, key=lambda i: -abs(np.log(ratios[i])))
    clips = (c for i in ids for c in (trained[i][0], tested[i][0]))
    return tuple(Shown.of(c, f"{c.part}: {text(c)}") for c in clips)
