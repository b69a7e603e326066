"""The HTML report of finished runs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from vidjax.data.datasets import ListSource, Source
from vidjax.data.pipeline import eval_batches
from vidjax.environment import environment
from vidjax.reports.page import Example, Reconstruction, write_report
from vidjax.reports.pictures import watchable
from vidjax.tasks.results import ClassificationResult
from vidjax.train.metrics import read_metrics


def report_runs(
    path: epath.PathLike,
    title: str,
    workdirs: Mapping[str, epath.PathLike],
    source: Source,
    data: Any,
    table: Sequence[Mapping[str, Any]] | None = None,
    note: str = "",
) -> None:
    """Writes a report on the finished runs in `workdirs`, with example clips of the last run.

    Pretraining runs show curves and reconstructions, and so do runs initialized from one by `init.path`.

    Args:
      path: path of the HTML file.
      title: title of the report.
      workdirs: maps the name of a run to its folder with metrics.jsonl, config.json, and result.npz or
        pretraining.json. All runs must have the same test split.
      source: the evaluated videos.
      data: the data section of the config, for the examples.
      table: rows of the first table; None uses the metrics of the pretraining runs.
      note: a paragraph below the title.
    """
    workdirs = {n: epath.Path(w) for n, w in workdirs.items()}
    pretraining = {
        n: w / "pretraining.json" for n, w in workdirs.items() if (w / "pretraining.json").is_file()
    }
    results = {
        n: ClassificationResult.load(w / "result.npz") for n, w in workdirs.items() if n not in pretraining
    }
    if table is None:
        rows = {n: json.loads(file.read_text()) for n, file in pretraining.items()}
        table = [{"run": n} | {k.replace("_", " "): v for k, v in row.items()} for n, row in rows.items()]
    last = list(workdirs)[-1]
    config = json.loads((workdirs[last] / "config.json").read_text())
    shown = {name: w / "reconstructions" for name, w in workdirs.items()}
    if start := config["init"]["path"]:
        shown[f"the start, {start}"] = epath.Path(start) / "reconstructions"
    write_report(
        path,
        title=title,
        config=config,
        metrics={name: read_metrics(w) for name, w in workdirs.items()},
        results=results,
        class_names=source.class_names,
        examples=pick_examples(source, data, results[last]) if last in results else [],
        reconstructions=[r for name, folder in shown.items() for r in _newest(name, folder)],
        environment=environment(),
        table=table,
        note=note,
    )


def _newest(name: str, folder: epath.Path) -> list[Reconstruction]:
    """Returns the latest reconstructions of a run, if any."""
    files = {int(p.stem.removeprefix("step_")): p for p in folder.glob("step_*.png")}
    if not files:
        return []
    sheet = files[max(files)]
    return [Reconstruction(name, max(files), sheet.read_bytes(), sheet.with_suffix(".gif").read_bytes())]


def pick_examples(source: Source, data: Any, result: ClassificationResult, n: int = 12) -> list[Example]:
    """Returns up to `n` test clips with their top-5 classes, or none for cached features.

    Half of them are the most confident mistakes, the rest are correct predictions of various classes.
    """
    if data.modality == "features":
        return []
    wrong = result.predictions != result.labels
    confidence = result.log_probs.max(-1)
    mistakes = [int(i) for i in np.argsort(-confidence) if wrong[i]][: n // 2]
    right = [int(i) for i in np.argsort(result.labels, kind="stable") if not wrong[i]]
    spread = np.linspace(0, len(right) - 1, min(len(right), n - len(mistakes))).astype(int)
    chosen = mistakes + [right[i] for i in spread]
    index = {source[i].id: i for i in range(len(source))}
    records = tuple(source[index[result.ids[i]]] for i in chosen)
    clips = eval_batches(ListSource(records, source.class_names), data, 1, 1, 1)
    shown = (watchable(clip["video"])[0, 0] for clip in clips)
    return [
        Example(result.ids[i], source.class_names[result.labels[i]], frames, result.top(i))
        for i, frames in zip(chosen, shown, strict=True)
    ]
