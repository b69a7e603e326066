"""The summary of a sweep: a table, files for other programs, and a plot."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from vidjax import files
from vidjax.reports.markdown import markdown, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEGEND = 8  # lines that a legend can name


def write_summary(summary: Mapping[str, Any], folder: epath.PathLike) -> list[epath.Path]:
    """Writes the summary of a sweep, see `vidjax.sweep.summarize`.

    Args:
      summary: the summary.
      folder: receives summary.json, summary.csv with a row for each run, summary.md, and summary.png if a key
        has two values or more.

    Returns:
      The paths of the files.
    """
    image = plot(summary)
    contents: dict[str, str | bytes] = {
        "summary.json": json.dumps(summary, indent=1, ensure_ascii=False) + "\n",
        "summary.csv": as_csv(summary),
        "summary.md": table(summary) + "\n",
        **({"summary.png": image} if image else {}),
    }
    paths = [epath.Path(folder) / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        files.write(path, content)
    return paths


def table(summary: Mapping[str, Any]) -> str:
    """Returns a Markdown table of the points, best first."""
    title = f"{summary['evaluation']} {summary['metric']}"
    rows = []
    for point in summary["points"]:
        scores = _scores(summary, point)
        seeds = f"{len(scores)} of {len(point['runs'])}"
        values = {key: _text(value) for key, value in point["values"].items()}
        rows.append(values | {"seeds": seeds, title: text_of(scores, percent=False)})
    return markdown(rows)


def as_csv(summary: Mapping[str, Any]) -> str:
    """Returns a row for each run: values, seed, folder, and the metrics, if it has ended."""
    rows = [
        {**point["values"], "seed": run["seed"], "folder": run["folder"], **(run["metrics"] or {})}
        for point in summary["points"]
        for run in point["runs"]
    ]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def plot(summary: Mapping[str, Any]) -> bytes | None:
    """Plots the metric over each swept key as a PNG; None if no key has two values.

    A line joins the points that have the same values of all other keys.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    keys = [key for key in summary["keys"] if len({_text(p["values"][key]) for p in summary["points"]}) > 1]
    if not keys:
        return None
    figure, panels = plt.subplots(
        1, len(keys), figsize=(0.8 + 3.6 * len(keys), 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    for key, panel in zip(keys, panels[0], strict=True):
        _panel(panel, summary, key, [other for other in keys if other != key])
    panels[0][0].set_ylabel(f"{summary['evaluation']} {summary['metric']}")
    image = io.BytesIO()
    figure.savefig(image, dpi=120)
    plt.close(figure)
    return image.getvalue()


def _panel(panel: "Axes", summary: Mapping[str, Any], key: str, others: Sequence[str]) -> None:
    values = [point["values"][key] for point in summary["points"]]
    names = sorted({_text(v) for v in values})
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    lines: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
    for point, value in zip(summary["points"], values, strict=True):
        if point["mean"] is not None:
            label = ", ".join(f"{other}={_text(point['values'][other])}" for other in others)
            lines.setdefault(label, []).append((value if numeric else names.index(_text(value)), point))
    for i, (label, line) in enumerate(sorted(lines.items())):
        line.sort(key=lambda pair: pair[0])
        xs, points = zip(*line, strict=True)
        errors = [point["half_width"] or 0.0 for point in points]
        style: dict[str, Any] = dict(color=f"C{i % 10}", marker="o", markersize=4, capsize=3, linewidth=1)
        panel.errorbar(xs, [point["mean"] for point in points], yerr=errors, label=label, **style)
        for x, point in zip(xs, points, strict=True):
            scores = _scores(summary, point)
            panel.plot([x] * len(scores), scores, "_", color=f"C{i % 10}", alpha=0.6)
    if not numeric:
        panel.set_xticks(range(len(names)), names)
    elif min(values) > 0 and (key.endswith("lr") or max(values) >= 10 * min(values)):
        panel.set_xscale("log")
    panel.set_xlabel(key)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    if 1 < len(lines) <= _LEGEND:
        panel.legend(fontsize=7, frameon=False)


def _scores(summary: Mapping[str, Any], point: Mapping[str, Any]) -> list[float]:
    """Returns the headline metric of the runs that have ended."""
    return [run["metrics"][summary["metric"]] for run in point["runs"] if run["metrics"]]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
