"""The points of a sweep: their configs, folders and commands, and the summary of their results.

A point is a run of `vidjax train` in a folder named after its values. A folder with the config of a point is
its run, whatever its name, so a changed grid keeps the runs that fit.
"""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import re
import shlex
import string
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from vidjax import files, registry
from vidjax.config import ConfigDict, differences, flatten, load, restore
from vidjax.data.datasets import option_names
from vidjax.errors import UserError, unknown
from vidjax.metrics.uncertainty import half_width
from vidjax.tasks.base import Result
from vidjax.tasks.results import read_result

_LONGEST = 120  # characters of a folder's name; file systems accept 255 bytes
_SPEC = "sweep.json"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is swept.

    Attributes:
      config: file or name of a config, see `vidjax.config.load`.
      overrides: config values of all points, such as "epochs=10".
      grid: values by key, as text.
      seeds: number of seeds; the first is that of the config.
    """

    config: str
    overrides: tuple[str, ...] = ()
    grid: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    seeds: int = 1

    def write(self, workdir: epath.Path) -> None:
        """Writes sweep.json, from which `read` continues without the arguments."""
        workdir.mkdir(parents=True, exist_ok=True)
        files.write(workdir / _SPEC, json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, workdir: epath.Path) -> "Sweep":
        """Reads the last sweep of a workdir. Raises `UserError` if there is none."""
        try:
            saved = json.loads((workdir / _SPEC).read_text())
            grid = {key: tuple(values) for key, values in saved["grid"].items()}
            return cls(saved["config"], tuple(saved["overrides"]), grid, saved["seeds"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{workdir} has no sweep: give a config and --grid KEY=VALUE,VALUE") from None


@dataclasses.dataclass(frozen=True)
class Point:
    """A training run of a sweep.

    Attributes:
      values: values of the swept keys after conversion to their types.
      seed: seed of the run.
      folder: workdir of the run.
      words: the arguments of `vidjax` that start or resume it.
      config: the resolved config.
    """

    values: Mapping[str, Any]
    seed: int
    folder: epath.Path
    words: tuple[str, ...]
    config: ConfigDict

    @property
    def name(self) -> str:
        return self.folder.name

    def result(self) -> Result | None:
        """Returns the result of the evaluation `checkpoint.best`, or None if training has not ended."""
        return read_result(self.folder) if self._has("result.npz", "result.json") else None

    def finished(self) -> bool:
        """Returns whether nothing is left to do: a run writes its results, and then the report."""
        return self._has("result.npz", "result.json") and (not self.config.report or self._has("report.html"))

    def _has(self, *names: str) -> bool:
        return any((self.folder / name).exists() for name in names)


def parse_grid(arguments: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parses ["optimizer.lr=1e-3,1e-4"] to {"optimizer.lr": ("1e-3", "1e-4")}.

    Commas inside of brackets or quotes do not separate values.

    Raises:
      UserError: no values, an empty one, or a key that occurs twice.
    """
    grid: dict[str, tuple[str, ...]] = {}
    for argument in arguments:
        key, _, text = argument.partition("=")
        values = tuple(v.strip() for v in _split(text))
        if not key or not all(values):
            raise UserError(f"--grid {argument}: write KEY=VALUE,VALUE")
        if key in grid:
            raise UserError(f"--grid {argument}: {key} was already given; write all its values in one --grid")
        grid[key] = values
    return grid


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for c in text:
        if quote or c in "'\"":
            quote = "" if c == quote else quote or c
        depth += not quote and (c in "([{") - (c in ")]}")
        if c == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def points(sweep: Sweep, workdir: epath.Path) -> list[Point]:
    """Returns all points of a sweep, after checking that each can start.

    Args:
      sweep: the sweep.
      workdir: folder of the runs.

    Raises:
      UserError: a key or a value is invalid, is given twice, or a folder holds a run of another config.
    """
    fixed = [override.partition("=")[0] for override in sweep.overrides]
    for key in (*sweep.grid, *(["seed"] if sweep.seeds > 1 else [])):
        if key in fixed:
            raise UserError(f"{key} is both swept and set by --config.{key}: remove one of them")
    if "seed" in sweep.grid and sweep.seeds > 1:
        raise UserError("--grid seed=... and --seeds exclude each other: use one of them")
    made: dict[epath.Path, Point] = {}
    runs = _runs(workdir)
    for values in itertools.product(*sweep.grid.values()):
        texts = [*sweep.overrides, *(f"{k}={v}" for k, v in zip(sweep.grid, values))]
        with contextlib.redirect_stderr(io.StringIO()):  # a smoke config prints a notice each time
            first = load(sweep.config, texts)
        _check(first)
        for number in range(sweep.seeds):
            config = first.copy_and_resolve_references()
            config.seed += number
            point = _point(sweep, texts, config, workdir, runs)
            if other := made.get(point.folder):
                shown = " and ".join(_shown(v) for v in (other.values, point.values))
                raise UserError(f"two points of the grid have the same config: {shown or config.seed}")
            made[point.folder] = point
    found = list(made.values())
    ranked = sorted({f"evaluation {p.config.checkpoint.best} of {p.config.task.name}" for p in found})
    if len(ranked) > 1:
        raise UserError(f"the points are ranked by {' and by '.join(ranked)}: sweep over one of them")
    return found


def _check(config: ConfigDict) -> None:
    """Raises `UserError` if an option of the model or of the dataset is invalid; no data are read."""
    model = config.model
    registry.create_model(model.name, tiny=model.tiny, dtype=model.dtype, **model.options.to_dict())
    known = option_names(config.data.name)
    for key in config.data.options:
        if key not in known:
            raise unknown(f"option of dataset {config.data.name}", key, known)


def _runs(workdir: epath.Path) -> list[tuple[epath.Path, ConfigDict]]:
    """Returns the runs in a folder with their configs."""
    found = []
    for folder in sorted(workdir.iterdir()) if workdir.exists() else ():
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, UserError):
            found.append((folder, restore(json.loads((folder / "config.json").read_text()))))
    return found


def _point(
    sweep: Sweep,
    texts: Sequence[str],
    config: ConfigDict,
    workdir: epath.Path,
    runs: Sequence[tuple[epath.Path, ConfigDict]],
) -> Point:
    flat = flatten(config)
    values = {key: flat.get(key, text) for key, text in zip(sweep.grid, texts[len(sweep.overrides) :])}
    named = values if "seed" in values else {**values, "seed": config.seed}
    folder = workdir / folder_name(named)
    for where, old in sorted(runs, key=lambda run: run[0] != folder):  # its own folder first
        before = flatten(old)
        changed = differences(old, config)  # ignores keys that may change when a run is resumed
        same = where == folder or all(before.get(key) == flat.get(key) for key in sweep.grid)
        if same and not changed:
            folder = where
            break
        if where == folder:
            raise UserError(
                f"{folder} has a run of another config ({'; '.join(changed)}): use another --workdir, or "
                "remove it"
            )
    seed = [] if "seed" in values else [f"seed={config.seed}"]
    words = ["train", f"--config={sweep.config}", f"--workdir={folder}"]
    words += [f"--config.{text}" for text in (*texts, *seed)]
    return Point(values, config.seed, folder, tuple(words), config)


def _shown(values: Mapping[str, Any]) -> str:
    return ",".join(f"{k}={v}" for k, v in values.items())


def folder_name(values: Mapping[str, Any]) -> str:
    """Returns a name such as "optimizer.lr=0.001,seed=0"; with a hash if it is long or not a file name."""
    text = _shown(values)
    name = re.sub(r"[^\w.,=+-]+", "-", text)
    if name == text and len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def commands(found: Sequence[Point], template: str | None = None) -> list[list[str]]:
    """Returns the command of each point.

    Args:
      found: the points.
      template: a command line with {command}, and optionally {name} and {workdir} of the run. As a word of
        its own, {command} becomes the words of the command, and within a word the command as one text.

    Raises:
      UserError: the template has no {command}, or another placeholder.
    """
    if template is None:
        return [["vidjax", *point.words] for point in found]
    try:
        words = shlex.split(template)
        names = {
            name for word in words for _, name, _, _ in string.Formatter().parse(word) if name is not None
        }
    except ValueError as e:
        raise UserError(f"--submit {template}: {e}") from None
    if odd := sorted(names - {"command", "name", "workdir"}):
        raise unknown("placeholder of --submit", odd[0], ["command", "name", "workdir"])
    if "command" not in names:
        raise UserError(f"--submit {template}: put {{command}} where the command of a run belongs")
    lines = []
    for point in found:
        command = ["vidjax", *point.words]
        texts = {"command": shlex.join(command), "name": point.name, "workdir": str(point.folder)}
        parts = [command if word == "{command}" else [word.format(**texts)] for word in words]
        lines.append([word for part in parts for word in part])
    return lines


def submit(found: Sequence[Point], template: str) -> list[str]:
    """Runs the command of a template for each point that is not finished. Returns the names that failed."""
    waiting, failed = [p for p in found if not p.finished()], []
    for point, words in zip(waiting, commands(waiting, template), strict=True):
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except OSError as e:
            raise UserError(f"--submit: cannot run {words[0]}: {e.strerror}") from None
        lines = (done.stdout + done.stderr).strip().splitlines()
        state = f"failed (exit code {done.returncode})" if done.returncode else "submitted"
        print(f"{point.name}: {state}{': ' if lines else ''}{''.join(lines[-1:])}", flush=True)
        failed += [point.name] if done.returncode else []
    return failed


def summarize(sweep: Sweep, found: Sequence[Point]) -> dict[str, Any]:
    """Returns the results of a sweep, also of one that is not finished.

    Returns:
      A JSON-compatible dict for `vidjax.reports.sweep`: the evaluation and its headline metric, and the
      points, best first, each with its values, the mean and half the width of its 95 % t interval over the
      seeds, and its runs. Points without results are last; their mean is None.

    Raises:
      UserError: no run has ended.
    """
    results = {p.folder: p.result() for p in found}
    best = next((r.best for r in results.values() if r is not None), None)
    if best is None:
        raise UserError("no point of the sweep has ended: there is nothing to summarize yet")
    name = best.lstrip("-")
    rows: list[dict[str, Any]] = []
    for _, group in itertools.groupby(found, lambda p: p.values):
        mine = list(group)
        runs: list[dict[str, Any]] = []
        for point in mine:
            result = results[point.folder]
            metrics = None if result is None else {k: float(v) for k, v in result.metrics.items()}
            runs.append({"seed": point.seed, "folder": point.name, "metrics": metrics})
        scores = [row["metrics"][name] for row in runs if row["metrics"]]
        mean, half = (float(np.mean(scores)), half_width(scores)) if scores else (None, None)
        rows.append({"values": dict(mine[0].values), "mean": mean, "half_width": half, "runs": runs})
    sign = 1 if best.startswith("-") else -1
    rows.sort(key=lambda r: (r["mean"] is None, sign * (r["mean"] or 0.0)))
    return {
        "config": sweep.config,
        "overrides": list(sweep.overrides),
        "keys": list(sweep.grid),
        "evaluation": found[0].config.checkpoint.best,
        "metric": name,
        "lower_is_better": best.startswith("-"),
        "points": rows,
    }
