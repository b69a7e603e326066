"""HTML reports of runs and comparisons: accuracy, curves, confusion matrices, clips, config, environment."""

import base64
import dataclasses
import functools
import io
import math
import numbers
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
import matplotlib
import numpy as np
from etils import epath
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vidjax import files
from vidjax.reports.pictures import gif, strip

# Readable on light and dark backgrounds and color-blind safe; models also differ in their markers.
COLOURS = "#2f7ed8", "#d97706", "#0f9d76", "#c2479b", "#8467d7", "#80868f"
DASHES = "--", ":", "-."  # of evaluations with the same metric
MARKERS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚"}
# Placeholders that are replaced by CSS variables, so that figures follow the page's light or dark theme.
INK, MUTED, LINE = "#010203", "#010204", "#010205"
THEME = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)"}
# (title, key in training rows, key in validation rows, whether it is a fraction)
PANELS = (
    ("Loss", "loss", "loss", False),
    ("Accuracy (top-1)", "top1", "video_top1", True),
    ("Precision of the top class", "precision_at_1", None, True),
    ("Binary accuracy", "binary_accuracy", None, True),
    ("Mean average precision", None, "map", True),
    ("kNN probe (top-1)", None, "knn_top1", True),
    ("Feature standard deviation (0: collapsed)", "feature_std", "feature_std", False),
    ("Effective rank of features", None, "effective_rank", False),
    ("Learning rate", "lr", None, False),
    ("Step time, s", "step_time", None, False),
    ("Time spent waiting for data", "data_wait", None, True),
    ("Clips per second", "clips_per_s", None, False),
    ("Model FLOPs utilization", "mfu", None, True),
    ("Device memory in use", "hbm", None, True),
)
# Do not parse dollar signs in class names as math; keep text as text, in the browser's font.
_PLAIN = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "vidjax"}
POINTS = 300  # per curve; longer curves are averaged
CELLS = 100  # rows and columns of a confusion matrix
CLASS_ROWS = 40
GIF_BYTES = 100_000  # per example


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
      title: heading.
      html: content.
      first: whether it is shown before the training curves.
    """

    title: str
    html: Markup
    first: bool = False

    @classmethod
    def table(cls, title: str, rows: Sequence[Mapping[str, Any]], first: bool = False) -> "Section":
        """Makes a section with one table from dicts by column."""
        plain = [{k: _plain(v) for k, v in row.items()} for row in rows]
        return cls(title, _macro("table")(plain, _columns(rows)), first)


@dataclasses.dataclass(frozen=True)
class Example:
    """A clip and its prediction.

    Attributes:
      id: name of the video.
      true: true class; None if unknown.
      frames: uint8 [T, H, W, C], C = 1 or 3.
      probs: (class name, probability) pairs in descending order.
      start, end: position of the clip in the video in seconds, from which its playback speed is computed.
    """

    id: str
    true: str | None
    frames: np.ndarray
    probs: Sequence[tuple[str, float]]
    start: float | None = None
    end: float | None = None


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Reconstructions of a masked autoencoder, drawn by `vidjax.reports.reconstruction`.

    Attributes:
      name: name of the run.
      step: training step of the checkpoint.
      sheet: contents of a PNG file.
      animation: contents of a GIF file.
    """

    name: str
    step: int
    sheet: bytes
    animation: bytes


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Sequence[Mapping[str, Any]]],
    environment: Mapping[str, str],
    sections: Sequence[Section] = (),
    examples: Sequence[Example] = (),
    table: Sequence[Mapping[str, Any]] | None = None,
    note: str = "",
    reconstructions: Sequence[Reconstruction] = (),
) -> None:
    """Writes a self-contained HTML report of at most about 150 kB per example, without empty sections.

    Args:
      path: the HTML file; missing folders are created.
      title, note: heading, and a paragraph under it.
      config: the run's configuration, nested or flat.
      metrics: rows of metrics.jsonl by model.
      environment: result of `vidjax.environment.environment`.
      sections: sections of the task.
      examples: clips to show.
      table: rows of a summary table to show first.
      reconstructions: reconstructions of masked autoencoders to show.
    """
    models = list(metrics)
    with matplotlib.rc_context(_PLAIN):
        html = (
            _templates()
            .get_template("page.html.jinja")
            .render(
                title=title,
                note=note,
                table=[{k: _plain(v) for k, v in row.items()} for row in table or ()],
                columns=_columns(table or ()),
                sections=sections,
                curves=_curves(metrics, models),
                legend=[(m, c, s) for m, (c, _, s) in zip(models, map(_style, range(len(models))))],
                accent=COLOURS[0],
                examples=[_example(e) for e in examples],
                reconstructions=[
                    (r, _data_uri("image/png", r.sheet), _data_uri("image/gif", r.animation))
                    for r in reconstructions
                ],
                config=list(_flatten(config)),
                environment=environment,
            )
        )
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, html.encode("utf-8", "replace"))


@functools.cache
def _templates() -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["percent"] = _percent
    return env


def _macro(name: str) -> Callable[..., Markup]:
    return getattr(_templates().get_template("sections.html.jinja").module, name)


def classification_sections(results: Mapping[str, Any], class_names: Sequence[str]) -> list[Section]:
    """Returns the accuracies, confusion matrices and per-class accuracies of classifiers.

    Args:
      results: `ClassificationResult` by model, all with the classes `class_names`.
      class_names: K names.

    Raises:
      ValueError: a result has another number of classes.
    """
    for name, result in results.items():
        if result.logits.shape[-1] != len(class_names):
            raise ValueError(f"{name} has {result.logits.shape[-1]} classes, the report {len(class_names)}")
    accuracy = [_accuracy(name, r) for name, r in results.items()]
    with matplotlib.rc_context(_PLAIN):
        confusions = [_confusion(name, r, class_names) for name, r in results.items()]
    classes = _classes(results, class_names)
    sections = [
        Section("Accuracy", _macro("accuracy")(accuracy, len(class_names) <= 5), first=True),
        Section("Confusion matrix", _macro("confusion")(confusions)),
    ]
    if classes["rows"]:
        sections.append(Section("Per-class accuracy", _macro("per_class")(classes, len(class_names))))
    return sections if results else []


def _accuracy(name: str, result: Any) -> dict[str, Any]:
    """Returns a row of the accuracy table."""
    videos, views = result.logits.shape[:2]
    low, high = _wilson(result.metrics["video_top1"], videos)
    most = result.confusion.sum(1).max() / videos
    return {
        "model": name,
        "videos": videos,
        "views": views,
        "low": low,
        "high": high,
        "most": most,
        **result.metrics,
    }


def _wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a proportion in n samples (Wilson, 1927)."""
    center = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (center - half) / (1 + z * z / n)), min(1.0, (center + half) / (1 + z * z / n))


def _style(i: int) -> tuple[str, str, str]:
    """Returns the color, the marker and the marker's character of the i-th model."""
    marker = list(MARKERS)[i % len(MARKERS)]
    return COLOURS[i % len(COLOURS)], marker, MARKERS[marker]


def _curves(metrics: Mapping[str, Sequence[Mapping[str, Any]]], models: Sequence[str]) -> list[Markup]:
    """Returns a figure for each of `PANELS` that has any values."""
    figures = []
    for label, train_key, val_key, share in PANELS:
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        ax = _axes(figure)
        evals = _evaluations(metrics, val_key)
        dashes = {name: DASHES[i % len(DASHES)] for i, name in enumerate(evals)}
        for i, name in enumerate(models):
            color, marker, _ = _style(i)
            for split, key in (("train", train_key), *((name, val_key) for name in evals)):
                x, y = _series(metrics[name], split, key)
                if len(x):
                    # Single points need a marker, and several models must differ in more than color.
                    few = split != "train" or len(x) == 1
                    every = 1 if few else max(1, len(x) // 6)
                    shape = marker if few or len(models) > 1 else ""
                    line = {"ls": "-"} if split == "train" else {"ls": dashes[split], "mfc": "none"}
                    ax.plot(x, y, c=color, lw=1.4, marker=shape, ms=4.5, markevery=every, **line)
        if len(evals) > 1:
            lines = [Line2D([], [], c=MUTED, lw=1.4, ls=dash, label=name) for name, dash in dashes.items()]
            ax.legend(handles=lines, fontsize=8, frameon=False, labelcolor=MUTED)
        if ax.lines:
            ax.set_title(label, color=INK, fontsize=10, loc="left")
            ax.set_xlabel("step", color=MUTED, fontsize=9)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
            ax.grid(color=LINE, lw=0.7)
            if share:
                ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
            ax.margins(y=0.08)
            low, high = ax.dataLim.y0, ax.dataLim.y1
            # Start the axis at zero, except for losses that change little, which would look flat.
            if low >= 0 and not (label == "Loss" and low > high / 2):
                ax.set_ylim(0, 1.08 * high or None)
            figures.append(_svg(figure, f"{label} by training step"))
    return figures


def _evaluations(metrics: Mapping[str, Sequence[Mapping[str, Any]]], key: str | None) -> list[str]:
    """Returns the names of the evaluations of any model that have values of a metric."""
    rows = (row for rows in metrics.values() for row in rows)
    named = ((r.get("split", "train"), r.get(key)) for r in rows)
    return list(dict.fromkeys(split for split, value in named if split != "train" and _is_number(value)))


def _series(rows: Sequence[Mapping[str, Any]], split: str, key: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most `POINTS` steps and values; for steps logged again after a restart, the last ones."""
    last = {r["step"]: r[key] for r in rows if r.get("split") == split and _is_number(r.get(key))}
    if not last:
        return np.zeros(0), np.zeros(0)
    points = np.array(sorted(last.items()), float)
    chunks = np.array_split(points, min(len(points), POINTS))
    return np.array([c.mean(0) for c in chunks]).T


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def _confusion(name: str, result: Any, class_names: Sequence[str]) -> dict[str, Any]:
    """Draws the row-normalized confusion matrix, and lists the most frequent confusions."""
    counts = result.confusion
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # If there are many classes, adjacent ones share a cell, which would otherwise be about one pixel.
    group = math.ceil(len(counts) / CELLS)
    drawn = shares
    if group > 1:
        starts = np.arange(0, len(counts), group)
        pooled = np.add.reduceat(np.add.reduceat(counts, starts, 0), starts, 1)
        drawn = pooled / np.maximum(pooled.sum(1, keepdims=True), 1)
    k = len(drawn)
    square_root = k > 30
    side = float(np.clip(2 + 0.3 * k, 3.2, 7.5))
    figure = Figure(figsize=(side, side), layout="constrained")
    ax = _axes(figure)
    cells = np.zeros((k, k, 4), np.uint8)
    cells[..., :3] = np.frombuffer(bytes.fromhex(COLOURS[0][1:]), np.uint8)
    cells[..., 3] = np.round(255 * (np.sqrt(drawn) if square_root else drawn))
    ax.imshow(cells, interpolation="none")
    if k <= 15:
        for i, j in zip(*counts.nonzero()):
            ink = "#ffffff" if shares[i, j] > 0.55 else INK
            ax.text(j, i, counts[i, j], color=ink, fontsize=9, ha="center", va="center")
    ticks = np.arange(0, k, math.ceil(k / 40))
    names = [_shorten(class_names[i * group], 24) for i in ticks]
    ax.set_xticks(ticks, names, rotation=90)
    ax.set_yticks(ticks, names)
    ax.tick_params(labelsize=9 if k <= 20 else 7)
    ax.set_xlabel("predicted", color=MUTED, fontsize=9)
    ax.set_ylabel("true", color=MUTED, fontsize=9)

    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-(wrong + shares / 2), None, kind="stable")  # ties in count are ordered by share
    worst = [np.unravel_index(i, wrong.shape) for i in order[:10]]
    pairs = [(class_names[i], class_names[j], wrong[i, j], shares[i, j]) for i, j in worst if wrong[i, j]]
    return {
        "model": name,
        "figure": _svg(figure, f"Confusion matrix of {name}"),
        "group": group,
        "square_root": square_root,
        "pairs": pairs,
    }


def _classes(results: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """Returns the rows of the per-class table: all classes in order, or the worst if there are many."""
    if not results:
        return {"models": [], "rows": [], "absent": 0}
    right = np.array([np.diag(r.confusion) for r in results.values()])  # [models, K]
    total = np.array([r.confusion.sum(1) for r in results.values()])
    present = (total > 0).any(0)
    mean = np.where(present, right.sum(0) / np.maximum(total.sum(0), 1), np.inf)
    order = np.flatnonzero(present) if len(class_names) <= CLASS_ROWS else np.argsort(mean, kind="stable")
    shown = [i for i in order if present[i]][:CLASS_ROWS]
    rows = [(class_names[i], [(a[i], b[i]) for a, b in zip(right, total)]) for i in shown]
    return {"models": list(results), "rows": rows, "absent": int((~present).sum())}


def _example(example: Example) -> dict[str, Any]:
    frames, start, end = example.frames, example.start, example.end
    timed = start is not None and end is not None and end > start
    fps = float(np.clip(len(frames) / (end - start), 2, 25)) if timed else 8.0
    still = io.BytesIO()
    pick = np.linspace(0, len(frames) - 1, min(4, len(frames))).round().astype(int)
    strip(frames[pick], columns=4, tile=96).quantize(64).save(still, "PNG", optimize=True)
    probs = list(example.probs)[:5]
    return {
        "id": example.id,
        "true": example.true,
        "when": f"{start:.1f}–{end:.1f} s" if timed else "",
        "right": bool(probs) and example.true == probs[0][0],
        "probs": probs,
        "moving": _data_uri("image/gif", gif(frames, fps, 160, GIF_BYTES)),
        "still": _data_uri("image/png", still.getvalue()),
    }


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _axes(figure: Figure) -> Axes:
    ax = figure.add_subplot(facecolor="none")
    figure.patch.set_visible(False)
    ax.tick_params(color=LINE, labelcolor=MUTED, labelsize=9)
    for spine in ax.spines.values():
        spine.set_color(LINE)
    return ax


def _svg(figure: Figure, label: str) -> Markup:
    """Converts a figure to an <svg> element, without group ids, which would not be unique, and metadata."""
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser's fonts draw the text
        figure.savefig(out, format="svg")
    text = out.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    for color, variable in THEME.items():
        body = body.replace(color, variable)
    w, h = (72 * side for side in figure.get_size_inches())
    head = Markup('<svg role="img" aria-label="{}" viewBox="0 0 {:g} {:g}" style="max-width:{:g}pt">')
    return head.format(label, w, h, w) + Markup(body)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if hasattr(value, "items") and len(value):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", repr(value)


def _columns(table: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Returns the columns of a table, and whether each holds numbers."""
    columns: dict[str, bool] = {}
    for row in table:
        for key, value in row.items():
            columns[key] = columns.get(key, False) or isinstance(value, numbers.Real)
    return columns


def _plain(value: Any) -> Any:
    """Formats a value of a table: numbers with four digits, missing values as a dash."""
    if value is None or value == "":
        return "—"
    return float(f"{value:.4g}") if isinstance(value, (float, np.floating)) else value


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
