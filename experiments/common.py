"""Shared by the experiments: runs in separate processes, tables and plots of their results."""

import csv
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vidjax.tasks.results import ClassificationResult

ROOT = pathlib.Path(__file__).parents[1]
# Pairs of classes of the embedded motion data that are each other's reverse in time.
REVERSED = (
    ("move_left", "move_right"),
    ("move_up", "move_down"),
    ("spin_clockwise", "spin_counterclockwise"),
    ("colours_forward", "colours_backward"),
    ("grow_then_snap", "shrink_then_snap"),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished training run: its folder, its result on the test split, and its wall-clock time."""

    workdir: pathlib.Path
    result: ClassificationResult
    seconds: float

    @property
    def top1(self) -> float:
        return self.result.metrics["video_top1"]


def execute(workdir: pathlib.Path, config: str, overrides: Mapping[str, Any] | None = None) -> float:
    """Trains in a separate process, unless `workdir` holds the finished run of an earlier call.

    Args:
      workdir: of the run.
      config: config file below the repository, with its argument, "configs/a/b.py:arg".
      overrides: config values by key, {"optimizer.lr": 0.1}.

    Returns:
      The wall-clock time in seconds.
    """
    summary = workdir / "summary.json"
    if not summary.is_file():
        start = time.perf_counter()
        command = [sys.executable, "-m", "vidjax", "train", "--config", str(ROOT / config)]
        command += ["--workdir", str(workdir)]
        command += [f"--config.{k}={v}" for k, v in {"report": False, **(overrides or {})}.items()]
        print(f"{workdir.name} ...", flush=True)
        workdir.parent.mkdir(parents=True, exist_ok=True)
        with workdir.with_suffix(".log").open("w") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT).returncode
        if code:
            tail = workdir.with_suffix(".log").read_text().splitlines()[-3:]
            sys.exit("\n".join([f"{' '.join(command)} failed", *tail]))
        summary.write_text(json.dumps({"seconds": time.perf_counter() - start}))
    return json.loads(summary.read_text())["seconds"]


def train(workdir: pathlib.Path, config: str, overrides: Mapping[str, Any] | None = None) -> Run:
    """Trains with `execute` and loads the result of the classifier."""
    seconds = execute(workdir, config, overrides)
    run = Run(workdir, ClassificationResult.load(workdir / "result.npz"), seconds)
    print(f"{workdir.name}: video top-1 {run.top1:.3f}, {run.seconds:.0f} s", flush=True)
    return run


def direction_accuracy(result: ClassificationResult) -> float:
    """Returns how often the true class scores above its reversed version; chance is 0.5.

    Evaluated on the videos of the ten motions that have a reverse. Models that ignore the order of frames
    are at chance, however well they distinguish other classes.
    """
    names = list(result.class_names)
    other = {names.index(a): names.index(b) for pair in REVERSED for a, b in (pair, pair[::-1])}
    scores = result.logits.mean(1)
    rows = [i for i, label in enumerate(result.labels) if int(label) in other]
    right = [scores[i, result.labels[i]] > scores[i, other[int(result.labels[i])]] for i in rows]
    return float(np.mean(right))


def slug(label: str) -> str:
    """Returns a label as a folder name."""
    return "".join(c if c.isalnum() else "_" for c in label)


def machine() -> str:
    """Returns the date and the machine of a measurement."""
    cores = len(os.sched_getaffinity(0))
    return f"{datetime.date.today()}, {cores} CPU core{'s'[: cores > 1]}, {platform.machine()}"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as a Markdown table, with floats to three decimals and numbers right-aligned."""
    columns = list(rows[0])

    def show(x: Any) -> str:
        if x is None:
            return "–"
        return f"{x:.3f}" if isinstance(x, float) else f"{x:,}" if isinstance(x, int) else str(x)

    numbers = [all(isinstance(r[c], int | float | None) for r in rows) for c in columns]
    lines = [
        columns,
        ["--:" if n else "---" for n in numbers],
        *([show(r[c]) for c in columns] for r in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def save(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Writes rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    print(f"written: {path}")


def into_readme(path: pathlib.Path, name: str, text: str) -> None:
    """Writes `text` between the marks `<!-- name -->` and `<!-- end of name -->` of a README."""
    page = path.read_text()
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = page.split(start)
    path.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}")


def bars(
    path: pathlib.Path,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    chance: Mapping[str, float] | None = None,
    title: str = "",
) -> None:
    """Draws horizontal bars, one panel per series, with a dashed line at chance."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = (2.4 + 2.8 * len(series), 0.8 + 0.27 * len(labels))
    figure, panels = plt.subplots(
        1, len(series), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for i, (panel, (name, values)) in enumerate(zip(panels[0], series.items())):
        drawn = [np.nan if v is None else v for v in values]
        panel.barh(range(len(labels)), drawn, color=f"C{i}")
        for y, v in enumerate(drawn):
            if not np.isnan(v):
                panel.text(v, y, f" {v:.2f}", va="center", fontsize=7)
        if chance and name in chance:
            line = panel.axvline(chance[name], color="black", linestyle="--", linewidth=1)
        panel.set(title=name, xlim=(0, 1.12))
        panel.title.set_fontsize(9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_yticks(range(len(labels)), labels, fontsize=8)
    panels[0][0].invert_yaxis()
    figure.suptitle(title, fontsize=10)
    if chance:
        figure.legend([line], ["chance"], fontsize=7, loc="outside lower center")
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"written: {path}")


def publish(
    folder: pathlib.Path,
    rows: Sequence[Mapping[str, Any]],
    chance: Mapping[str, float],
    labels: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Prints rows and writes them to `folder` as results.csv, results.png and the table of README.md.

    Args:
      folder: of the experiment; its README.md has the marks of "results".
      rows: their first column names them.
      chance: the columns that are drawn, and what guessing reaches in each.
      labels: of the bars; the first column where not given.
      title: of the plot.
    """
    print(markdown(rows))
    save(rows, folder / "results.csv")
    drawn = ", ".join(chance)
    table = f"{markdown(rows)}\n\n*Measured here*, {machine()}.\n\n![{drawn}](results.png)"
    into_readme(folder / "README.md", "results", table)
    labels = labels or [str(next(iter(r.values()))) for r in rows]
    bars(folder / "results.png", labels, {c: [r[c] for r in rows] for c in chance}, chance, title)
