"""Pictures of a dataset: frames of a few clips per class, and distributions of its videos."""

import base64
import dataclasses
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vidjax.data.datasets import Source
from vidjax.data.decode import DecodeError
from vidjax.data.prepare.check import Checked, labels_of, open_video
from vidjax.data.prepare.encode import span_of
from vidjax.data.record import Record
from vidjax.data.targets import BoxesTarget, DenseTextTarget, MomentsTarget, QuestionTarget, TextTarget
from vidjax.reports.page import COLOURS
from vidjax.reports.pictures import strip

_CLASSES = 60  # bars of the class balance; more classes are drawn as a curve


@dataclasses.dataclass(frozen=True)
class Example:
    """A clip of a contact sheet.

    Attributes:
      title: its classes or text.
      id: of the record.
      frames: uint8 [T, H, W, 3].
      times: of the frames in seconds, [T].
      labels: what is annotated at each of the frames.
      spans: annotated segments (start, end, name) in seconds.
      seconds: duration of the video.
    """

    title: str
    id: str
    frames: np.ndarray
    times: np.ndarray
    labels: Sequence[str]
    spans: Sequence[tuple[float, float, str]]
    seconds: float


def examples(source: Source, classes: int, clips: int, frames: int) -> tuple[list[Example], list[str]]:
    """Returns clips to look at, and why others cannot be read.

    Args:
      source: the records.
      classes: number of classes, evenly chosen among those that have records.
      clips: number of clips per class; without classes, classes * clips are evenly chosen.
      frames: number of frames per clip, evenly spaced.
    """
    by_class: dict[int, list[int]] = {}
    for i in range(len(source)):
        for label in labels_of(source[i].target):
            by_class.setdefault(label, []).append(i)
    found: list[Example] = []
    errors: list[str] = []
    if not by_class:
        by_class = {-1: list(range(len(source)))}
        classes, clips = 1, classes * clips
    shown: set[int] = set()
    for label in _even(sorted(by_class), classes):
        left = clips
        for i in _even(by_class[label], len(by_class[label])) if left else ():
            if i in shown:
                continue
            shown.add(i)
            try:
                found.append(_example(source[i], source.class_names, frames))
                left -= 1
            except DecodeError as error:
                errors.append(str(error))
            if not left:
                break
    return found, errors


def _even(items: list[int], count: int) -> list[int]:
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _example(record: Record, names: tuple[str, ...], count: int) -> Example:
    with open_video(record) as video:
        first, total = span_of(video, record)
        index = first + np.linspace(0, total - 1, min(count, total)).round().astype(int)
        images, times = video.frames(index), video.times[index]
        seconds = float(video.times[-1] + 1 / video.fps)
    spans = list(itertools.islice(_spans(record.target, names), 12))
    at = [", ".join(dict.fromkeys(n for a, b, n in spans if a <= t < b)) for t in times]
    return Example(_title(record.target, names), record.id, images, times, at, spans, seconds)


def _spans(target: Any, names: tuple[str, ...]) -> Iterator[tuple[float, float, str]]:
    if isinstance(target, MomentsTarget):
        yield from ((start, end, target.query) for start, end in target.moments)
    elif isinstance(target, DenseTextTarget):
        yield from ((start, end, texts[0] if texts else "") for start, end, texts in target.segments)
    else:
        for segment in getattr(target, "segments", ()):
            yield segment.start, segment.end, names[segment.label]


def _title(target: Any, names: tuple[str, ...]) -> str:
    match target:
        case TextTarget(texts):
            return texts[0] if texts else ""
        case QuestionTarget(question, answer):
            return f"{question} {answer}"
        case MomentsTarget(query):
            return query
        case BoxesTarget(time):
            return f"{', '.join(names[label] for label in sorted(labels_of(target)))} at {time:g} s"
    return ", ".join(names[label] for label in sorted(labels_of(target)))


def contact_sheet(examples: Sequence[Example], tile: int = 160) -> Image.Image:
    """Draws the examples below each other, in two columns if there are many."""
    rows = []
    for example in examples:
        captions = [f"{t:.1f} s {label}".strip() for t, label in zip(example.times, example.labels)]
        title = f"{example.title}\n{example.id}"
        rows.append(strip(example.frames, captions, title, columns=len(captions), tile=tile))
    columns = 2 if len(rows) > 8 else 1
    width = max(row.width for row in rows)
    heights = [max(row.height for row in rows[i : i + columns]) for i in range(0, len(rows), columns)]
    sheet = Image.new("RGB", (columns * width, sum(heights)), "white")
    for i, row in enumerate(rows):
        sheet.paste(row, (i % columns * width, sum(heights[: i // columns])))
    return sheet


def contact_page(title: str, examples: Sequence[Example]) -> str:
    """Renders the examples as an HTML page that needs no other file."""
    loader = jinja2.PackageLoader("vidjax", "reports")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    clips = [
        {
            "example": example,
            "images": [_data_uri(frame) for frame in example.frames],
            "captions": list(zip(example.times, example.labels)),
            "bars": [
                (100 * start / example.seconds, 100 * (end - start) / example.seconds, name)
                for start, end, name in example.spans
            ],
        }
        for example in examples
    ]
    return environment.get_template("dataset.html.jinja").render(title=title, clips=clips)


def _data_uri(frame: np.ndarray) -> str:
    file = io.BytesIO()
    image = Image.fromarray(frame)
    image.thumbnail((240, 240))
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def plot(splits: Mapping[str, Checked]) -> Figure:
    """Draws durations, frame rates, sizes and the class balance of each split."""
    figure = Figure((11, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    panels = (
        ("Duration, s", lambda about: about.seconds),
        ("Frames per second", lambda about: about.fps),
        ("Short side, pixels", lambda about: min(about.height, about.width)),
    )
    for ax, (title, value) in zip(axes.flat, panels):
        columns = {split: [value(about) for about, _ in c.facts] for split, c in splits.items()}
        _histogram(ax, columns)
        ax.set(title=title, ylabel="videos")
    _balance(axes.flat[-1], {split: c.classes for split, c in splits.items()})
    axes.flat[0].legend(frameon=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _histogram(ax: Axes, columns: Mapping[str, Sequence[float]]) -> None:
    values = np.concatenate([np.asarray(column, float) for column in columns.values()])
    if not values.size:
        return
    low, high = values.min(), values.max()
    if high - low < 0.01 * high:  # frame rates may differ by rounding
        low, high = low - 0.5, high + 0.5
    bins = np.linspace(low, high, 31)
    colors = COLOURS[: len(columns)] if len(columns) <= len(COLOURS) else None
    ax.hist([*columns.values()], bins, stacked=True, label=[*columns], color=colors)


def _balance(ax: Axes, splits: Mapping[str, Mapping[str, int]]) -> None:
    """Draws the number of records of each class, the most frequent first."""
    totals: dict[str, int] = {}
    for counts in splits.values():
        for name, count in counts.items():
            totals[name] = totals.get(name, 0) + count
    order = sorted(totals, key=lambda name: (-totals[name], name))
    ax.set(title=f"Records per class ({len(order)} classes)", ylabel="records")
    if not order:
        ax.set_axis_off()
        return
    base, place = np.zeros(len(order)), np.arange(len(order))
    for (split, counts), color in zip(splits.items(), COLOURS * len(splits)):
        height = np.array([counts.get(name, 0) for name in order], float)
        ax.bar(place, height, 0.8 if len(order) <= _CLASSES else 1.0, base, label=split, color=color)
        base += height
    if len(order) <= _CLASSES:
        ax.set_xticks(place, order, rotation=90, fontsize=8 if len(order) <= 30 else 6, parse_math=False)
    else:
        ax.set_xlabel("class, by frequency")
