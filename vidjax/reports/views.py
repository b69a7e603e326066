"""Plots of accuracy over the number of test views and over their cost."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from vidjax.reports.page import COLOURS
from vidjax.tasks.views import ViewAccuracy

_STYLES = ("-", "o"), ("--", "s")  # of protocols, by number of crops
_RANDOM = ":"


def views_figure(
    accuracies: Mapping[str, Sequence[ViewAccuracy]], gmacs: Mapping[str, float | None]
) -> Figure:
    """Draws accuracies over the number of views and, where it is known, over the cost of a video.

    The bands are the intervals of random views.

    Args:
      accuracies: rows by result.
      gmacs: multiply-adds of a view by result, in 1e9; None if unknown.
    """
    panels = [("views per video", dict.fromkeys(accuracies, 1.0))]
    if known := {name: g for name, g in gmacs.items() if g}:
        panels.append(("GMACs per video", known))
    figure = Figure((4.4 * len(panels) + 0.6, 3.9), layout="constrained")
    crops = sorted({r.crops for rows in accuracies.values() for r in rows if r.crops})
    style = dict(zip(crops, (_STYLES[min(i, 1)] for i in range(len(crops)))))
    for i, (label, unit) in enumerate(panels):
        ax = figure.add_subplot(1, len(panels), i + 1)
        for name, color in zip(accuracies, _colors(len(accuracies))):
            if name in unit:
                _draw(ax, accuracies[name], unit[name], color, style)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        ax.set(xlabel=label, ylabel="" if i else "video top-1")
        ax.grid(color="#e5e5e5", lw=0.7)
        ax.spines[["top", "right"]].set_visible(False)
    lines = [Line2D([], [], c=c, lw=3, label=n) for n, c in zip(accuracies, _colors(len(accuracies)))]
    for n, (dash, marker) in style.items():
        text = "center crop" if n == 1 else f"{n} crops"
        lines.append(
            Line2D([], [], c="#555555", ls=dash, marker=marker, ms=4, label=f"evenly spaced clips, {text}")
        )
    lines.append(Line2D([], [], c="#555555", ls=_RANDOM, label="random views"))
    with matplotlib.rc_context({"text.parse_math": False}):  # dollar signs of paths are not math
        figure.legend(handles=lines, fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    return figure


def _colors(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _draw(
    ax: Axes,
    rows: Sequence[ViewAccuracy],
    unit: float,
    color: str,
    style: Mapping[int, tuple[str, str]],
) -> None:
    for crops in (*style, None):
        chosen = [r for r in rows if r.crops == crops]
        x, y = [r.views * unit for r in chosen], [r.top1 for r in chosen]
        if crops is None:
            ax.plot(x, y, c=color, ls=_RANDOM, lw=1.4)
            ax.fill_between(
                x, [r.low for r in chosen], [r.high for r in chosen], color=color, alpha=0.1, lw=0
            )
        else:
            dash, marker = style[crops]
            ax.plot(x, y, c=color, ls=dash, marker=marker, ms=3.5, lw=1.4)
