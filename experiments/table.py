"""Tables of results: rows and columns as data, one command that runs them, and the README made of them.

Each folder of `experiments` with a table has a run.py that defines `TABLE` and calls `main`. It writes
results/SCALE.json; `render` makes the README's table and the plot from that file alone.
"""

import argparse
import dataclasses
import datetime
import fnmatch
import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.cells import ROOT, Cell, Lab, Outcome
from vidjax.errors import UserError
from vidjax.metrics.uncertainty import half_width
from vidjax.reports.markdown import markdown, text_of

SCALES = ("smoke", "cpu", "full")


@dataclasses.dataclass(frozen=True)
class Column:
    """A measured column.

    Attributes:
      name: title, with the dataset and the metric.
      cell: which cell of a row is measured.
      value: the number of one seed; a fraction if `percent`.
      chance: what guessing reaches, for the plot.
      percent: whether to show percent.
    """

    name: str
    cell: str
    value: Callable[[Outcome], float]
    chance: float | None = None
    percent: bool = True


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
      label: first column.
      cpu, full: cells of the scales by name.
      facts: columns that need no cells, by title, such as counted costs and published accuracies; or a
        function that returns them.
    """

    label: str
    cpu: Mapping[str, Cell] = dataclasses.field(default_factory=dict)
    full: Mapping[str, Cell] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, Any] | Callable[[], Mapping[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Extra:
    """A further section of a README, without trained models: counts, timings, published figures.

    Attributes:
      name: of the README's marks, of results/NAME.json and, if drawn, of NAME.png.
      measure: returns JSON-compatible results.
      text: returns the section for the results.
      draw: draws the results to a PNG file.
    """

    name: str
    measure: Callable[[], Any]
    text: Callable[[Any], str]
    draw: Callable[[Any, pathlib.Path], None] | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of an experiment.

    Attributes:
      folder: of the experiment. Its README.md has the marks `<!-- cpu -->` and `<!-- end of cpu -->`, and the
        same for the extras.
      rows: in order.
      columns: of scale cpu, and of smoke.
      full: columns of scale full.
      smoke: labels of the rows whose first cell scale smoke runs; the first row where not given.
      first: title of the column of labels.
      quoted: labels of the rows whose first column docs/results.md quotes.
      extras: further sections of the README, which scale cpu measures.
    """

    folder: pathlib.Path
    rows: Sequence[Row] = ()
    columns: Sequence[Column] = ()
    full: Sequence[Column] = ()
    smoke: Sequence[str] = ()
    first: str = "model"
    quoted: Sequence[str] = ()
    extras: Sequence[Extra] = ()

    @property
    def name(self) -> str:
        return self.folder.name

    def at(self, scale: str, pattern: str = "*") -> tuple[list[Row], Sequence[Column]]:
        """Returns the columns of a scale, and its rows that match a pattern."""
        rows = [r for r in self.rows if fnmatch.fnmatch(r.label, pattern)]
        if scale == "smoke":
            rows = [r for r in rows if r.label in self.smoke] if self.smoke else rows[:1]
        return rows, self.full if scale == "full" else self.columns

    def cells(self, row: Row, scale: str) -> Mapping[str, Cell]:
        """Returns the cells of a row that a scale runs; of smoke, the first one."""
        cells = row.full if scale == "full" else row.cpu
        used = {c.cell for c in self.at(scale)[1]}
        mine = [name for name in cells if name in used]
        return {name: cells[name] for name in (mine[:1] if scale == "smoke" else mine)}


def measure(table: Table, lab: Lab, pattern: str = "*") -> dict[str, Any]:
    """Runs the cells of a table.

    Args:
      table: the table.
      lab: where they run.
      pattern: of the labels of the rows.

    Returns:
      A JSON-compatible dict with the rows; a row has its facts, and for each cell the provenance and the
      values of every seed by column.

    Raises:
      UserError: a command failed.
    """
    rows, columns = table.at(lab.scale, pattern)
    futures = [{n: lab.solve(c) for n, c in table.cells(r, lab.scale).items()} for r in rows]
    out: list[dict[str, Any]] = []
    for row, cells in zip(rows, futures, strict=True):
        runs = {}
        for name, future in cells.items():
            mine = [c for c in columns if c.cell == name]
            runs[name] = [
                {"values": {c.name: round(float(c.value(o)), 6) for c in mine}, **o.about}
                for o in future.result()
            ]
        facts = row.facts() if callable(row.facts) else row.facts
        out.append({"label": row.label, "facts": dict(facts), "cells": runs})
    return {
        "scale": lab.scale,
        "first": table.first,
        "date": str(datetime.date.today()),
        "seeds": list(lab.seeds),
        "grid": list(lab.grid),
        "jobs": lab.jobs,
        "columns": [
            {"name": c.name, "cell": c.cell, "chance": c.chance, "percent": c.percent} for c in columns
        ],
        "rows": out,
    }


def values_of(row: Mapping[str, Any], column: Mapping[str, Any]) -> list[float]:
    """Returns the values of a row's seeds in a measured column."""
    return [run["values"][column["name"]] for run in row["cells"].get(column["cell"], ())]


def results_text(results: Mapping[str, Any]) -> str:
    """Returns the README's section on some results: the table, how it was measured, and the plot."""
    shown = [
        {results["first"]: r["label"]}
        | {c["name"]: text_of(values_of(r, c), c["percent"]) for c in results["columns"]}
        | r["facts"]
        for r in results["rows"]
    ]
    return f"{markdown(shown)}\n\n{how_measured(results)}\n\n![{results['scale']}]({results['scale']}.png)"


def how_measured(results: Mapping[str, Any]) -> str:
    """Describes the runs behind a table in one paragraph."""
    runs = [run for row in results["rows"] for cell in row["cells"].values() for run in cell]
    sizes = {(run["data"]["name"], *(run["data"][k]["videos"] for k in ("train", "test"))) for run in runs}
    data = "; ".join(f"{name}, {a:,} training and {b:,} test videos" for name, a, b in sorted(sizes))
    env = runs[-1]["environment"]
    commits = ", ".join(sorted({run["environment"]["commit"][:7] for run in runs}))
    text = [
        f"*Measured here*, {results['date']}, commit {commits}, {env['devices']}, jax {env['jax']}. {data}."
    ]
    if len(results["seeds"]) > 1:
        text.append(f"Mean of {len(results['seeds'])} seeds ± half the 95 % t interval of the mean.")
    if any(run.get("tuning") for run in runs):
        grid = ", ".join(f"{lr:g}" for lr in results["grid"])
        text.append(f"The learning rate of each cell is the best of {grid} on validation videos.")
    text.append(
        f"The runs shown took {sum(run['seconds'] for run in runs) / 3600:.1f} hours of one core each."
    )
    return " ".join(text)


def render(table: Table) -> None:
    """Writes the README's sections and the plots of the committed results."""
    for scale in SCALES[1:]:
        if results := saved(table, scale):
            into_readme(table.folder / "README.md", scale, results_text(results))
            plot(results, table.folder / f"{scale}.png")
    for extra in table.extras:
        if results := saved(table, extra.name):
            into_readme(table.folder / "README.md", extra.name, extra.text(results))
            if extra.draw:
                extra.draw(results, table.folder / f"{extra.name}.png")


def saved(table: Table, name: str) -> Any:
    """Reads results/NAME.json of an experiment; None if there is none."""
    path = table.folder / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def save(folder: pathlib.Path, name: str, results: Any) -> None:
    """Writes results as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {folder / name}.json")


def into_readme(path: pathlib.Path, name: str, text: str) -> None:
    """Writes `text` between the marks `<!-- name -->` and `<!-- end of name -->` of a page."""
    page = path.read_text()
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if start not in page or end not in page:
        raise UserError(f"{path} has no marks {start} and {end}")
    before, rest = page.split(start)
    path.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}")


def plot(results: Mapping[str, Any], path: pathlib.Path) -> None:
    """Plots the mean and the interval of each row, a panel per column, with every seed as a mark."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, columns = results["rows"], results["columns"]
    size = (2.6 + 2.6 * len(columns), 1.2 + 0.28 * len(rows))
    figure, panels = plt.subplots(
        1, len(columns), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for i, (panel, column) in enumerate(zip(panels[0], columns)):
        scale = 100 if column["percent"] else 1
        for y, row in enumerate(rows):
            if values := [scale * v for v in values_of(row, column)]:
                half = half_width(values)
                panel.errorbar(np.mean(values), y, xerr=half, fmt="o", color=f"C{i}", ms=5, capsize=3)
                panel.plot(values, [y] * len(values), "|", color="black", ms=7, alpha=0.6)
        if column["chance"] is not None:
            line = panel.axvline(scale * column["chance"], color="black", linestyle="--", linewidth=1)
        panel.set_title(column["name"], fontsize=9)
        if column["percent"]:
            panel.set(xlim=(-2, 104), xlabel="%")
        panel.grid(axis="x", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_yticks(range(len(rows)), [r["label"] for r in rows], fontsize=8)
    panels[0][0].invert_yaxis()
    if any(c["chance"] is not None for c in columns):
        figure.legend([line], ["chance"], fontsize=7, loc="outside lower center")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def run(table: Table, scale: str, workdir: pathlib.Path, jobs: int, pattern: str = "*") -> dict[str, Any]:
    """Runs a table, prints it, and writes its results.

    Args:
      table: the table.
      scale: the results of "cpu" and "full" with all rows become those of the experiment; others are written
        to `workdir`.
      workdir: of the runs.
      jobs: commands at a time, each on its own core; 0 runs them one by one in this process.
      pattern: of the labels of the rows.

    Raises:
      UserError: no row matches, or a command failed.
    """
    if not table.at(scale, pattern)[0]:
        labels = ", ".join(r.label for r in table.at(scale)[0])
        raise UserError(f"no row of scale {scale} matches {pattern!r}: {labels}")
    lab = Lab(workdir, scale, jobs)
    try:
        results = measure(table, lab, pattern)
    finally:
        lab.close()
    print(results_text(results).rpartition("\n\n")[0])
    if scale == "smoke" or pattern != "*":
        save(workdir, f"{table.name}_{scale}", results)
    else:
        save(table.folder / "results", scale, results)
        render(table)
    return results


def main(table: Table, argv: Sequence[str] | None = None) -> None:
    """The command line of an experiment."""
    parser = argparse.ArgumentParser(description=f"Measures the tables of experiments/{table.name}.")
    scales = "smoke: a few steps; cpu: small models; full: the papers' recipes, for accelerators"
    parser.add_argument("--scale", choices=SCALES, required=True, help=scales)
    parser.add_argument(
        "--rows", default="*", metavar="PATTERN", help="only these; the README stays as it is"
    )
    parser.add_argument(
        "--workdir", type=pathlib.Path, help="of the runs (default: runs/tables/SCALE, shared by all tables)"
    )
    parser.add_argument("--jobs", type=int, help="runs at a time (default: one per core; 1 for scale full)")
    parser.add_argument("--list", action="store_true", help="print the commands without running them")
    parser.add_argument("--extras", action="store_true", help="only what needs no training")
    args = parser.parse_args(argv)
    workdir = args.workdir or ROOT / "runs" / "tables" / args.scale
    jobs = args.jobs or (1 if args.scale == "full" else len(os.sched_getaffinity(0)))
    try:
        if args.list:
            lab, (rows, _) = Lab(workdir, args.scale), table.at(args.scale, args.rows)
            cells = [cell for row in rows for cell in table.cells(row, args.scale).values()]
            print("\n".join(dict.fromkeys(line for cell in cells for line in cell.commands(lab))))
            return
        if args.extras or (args.scale == "cpu" and args.rows == "*"):
            for extra in table.extras:
                save(table.folder / "results", extra.name, extra.measure())
            render(table)
        if table.rows and not args.extras:
            run(table, args.scale, workdir, jobs, args.rows)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


def top1(outcome: Outcome) -> float:
    """Returns the accuracy over videos."""
    return outcome.result.metrics["video_top1"]
