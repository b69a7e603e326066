"""The HTML report of finished runs."""

import collections
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from vidjax.config import ConfigDict, restore
from vidjax.data.clips import ClipReader
from vidjax.data.datasets import Source
from vidjax.data.decode import DecodeError
from vidjax.environment import environment
from vidjax.errors import UserError
from vidjax.reports.page import Example, Reconstruction, write_report
from vidjax.reports.pictures import watchable
from vidjax.tasks import Task
from vidjax.tasks.base import Result
from vidjax.train.metrics import read_metrics


def report_runs(
    path: epath.PathLike,
    title: str,
    workdirs: Mapping[str, epath.PathLike],
    task: Task,
    source: Source,
    table: Sequence[Mapping[str, Any]] | None = None,
    note: str = "",
) -> None:
    """Writes a report on the finished runs in `workdirs`, with example clips of the last run.

    Runs of masked autoencoders show reconstructions, and so do runs initialized from one by `init.path`.

    Args:
      path: path of the HTML file.
      title: title of the report.
      workdirs: maps the name of a run to its folder with metrics.jsonl, config.json and results. All runs
        must have the same test split.
      task: the task of the last run, which makes the sections on the results of the runs of this task.
      source: the evaluated videos.
      table: rows of the first table; None uses the last metrics of the runs of other tasks.
      note: a paragraph below the title.
    """
    workdirs = {n: epath.Path(w) for n, w in workdirs.items()}
    configs = {n: read_config(w) for n, w in workdirs.items()}
    results = {n: task.load(w) for n, w in workdirs.items() if configs[n].task.name == task.name}
    metrics = {name: read_metrics(w) for name, w in workdirs.items()}
    sections = task.report(results)
    if table is None:
        unlisted = set(workdirs) - (set(results) if any(s.first for s in sections) else set())
        table = [{"run": n} | _last_metrics(metrics[n]) for n in workdirs if n in unlisted]
    last = list(workdirs)[-1]
    shown = [(n, w / key) for n, w in workdirs.items() for key in _reconstructions(configs[n])]
    if start := configs[last].init.path:
        shown.append((f"the start, {start}", epath.Path(start) / "reconstructions"))
    write_report(
        path,
        title=title,
        config=configs[last].to_dict(),
        metrics=metrics,
        sections=sections,
        examples=pick_examples(source, configs[last].data, task, results[last]) if last in results else [],
        reconstructions=[r for name, folder in shown for r in _newest(name, folder)],
        environment=environment(),
        table=table,
        note=note,
    )


def read_config(workdir: epath.Path) -> ConfigDict:
    """Reads the config of a run. Raises `UserError` if the folder has none."""
    path = workdir / "config.json"
    try:
        return restore(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise UserError(f"cannot read the config of the run {workdir} ({reason}): use a workdir") from None


def _last_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the last metrics of each evaluation of a run."""
    last = {r["split"]: r for r in rows if r["split"] != "train"}
    found = [(n, k, v) for n, r in last.items() for k, v in r.items() if k not in ("split", "step", "epoch")]
    count = collections.Counter(k for _, k, _ in found)
    return {(k if count[k] == 1 else f"{n} {k}").replace("_", " "): v for n, k, v in found}


def _reconstructions(config: ConfigDict) -> list[str]:
    """Returns the names of the evaluations that write reconstructions."""
    return [name for name, section in config.evals.items() if section.type == "reconstructions"]


def _newest(name: str, folder: epath.Path) -> list[Reconstruction]:
    """Returns the latest reconstructions of a run, if any."""
    files = {int(p.stem.removeprefix("step_")): p for p in folder.glob("step_*.png")}
    if not files:
        return []
    sheet = files[max(files)]
    return [Reconstruction(name, max(files), sheet.read_bytes(), sheet.with_suffix(".gif").read_bytes())]


def pick_examples(source: Source, data: Any, task: Task, result: Result, n: int = 12) -> list[Example]:
    """Returns up to `n` test clips with their predictions, or none for cached features.

    Videos that can no longer be read are left out.
    """
    if "features" in task.inputs.streams:
        return []
    index = {source[i].id: i for i in range(len(source))}
    reader = ClipReader(data, task.inputs.streams)

    examples = []
    for id, true, probs in task.examples(result, n):
        with contextlib.suppress(KeyError, DecodeError):
            clip = reader.views(source[index[id]], 1, 1)[0]
            examples.append(Example(id, true, watchable(clip.inputs), probs))
    return examples
