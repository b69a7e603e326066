"""The demo: masked pretraining without labels, then classifiers trained on few labels."""

import time

import rich.console
import rich.table
from etils import epath
from ml_collections import ConfigDict

from vidjax.config import load, shipped
from vidjax.errors import UserError
from vidjax.tasks.base import Metrics
from vidjax.tasks.results import ClassificationResult
from vidjax.train.experiment import create_parts, load_sources
from vidjax.train.loop import train
from vidjax.train.report import report_runs

LABELS = 240
PRETRAINING = "pretraining"
# name: config and overrides; each trains for 600 updates
RUNS = {
    "one frame": (
        "any_model.py:model=single_frame_resnet18",
        (f"data.options.train={LABELS}", "epochs=40.0", "schedule.warmup_epochs=2.0"),
    ),
    "ViT from scratch": (f"videomae_finetune.py:labels={LABELS}", ()),
    "ViT, pretrained": (f"videomae_finetune.py:labels={LABELS}", ("init.path={pretrained}",)),
}
NOTE = (
    "The dataset has twelve classes of motion. A single frame has the same distribution in every class, so a "
    "model of one frame is at chance. A small ViT was first pretrained on 4,800 clips without labels: it saw "
    "one pair of frames in four and predicted the others. All models were then trained on the same "
    f"{LABELS} labeled clips. The pretraining task suits these classes, which differ only in motion."
)


def run_demo(workdir: epath.Path) -> list[dict[str, object]]:
    """Pretrains a masked autoencoder, trains three classifiers, and prints their accuracies and chance.

    Args:
      workdir: receives a folder per run and report.html. Runs that have finished are not trained again.

    Returns:
      The rows of the printed table.

    Raises:
      UserError: the demo was interrupted.
    """
    folder = shipped() / "synthetic_motion"

    def run(name: str, config: str, *overrides: str) -> tuple[ConfigDict, epath.Path, int]:
        loaded, start = load(str(folder / config), ["report=False", *overrides]), time.perf_counter()
        where = workdir / name.replace(",", "").replace(" ", "_")
        if train(loaded, where) is None:
            raise UserError(f"interrupted; run the same command again to resume from {where}")
        return loaded, where, round(time.perf_counter() - start)

    _, pretrained, seconds = run(PRETRAINING, "videomae_pretrain.py")
    loss = Metrics.load(pretrained / "val").metrics["loss"]
    print(f"pretrained without labels in {seconds} s: loss {loss:.4f}")
    rows: list[dict[str, object]] = []
    workdirs: dict[str, epath.Path] = {}
    for name, (file, changes) in RUNS.items():
        overrides = [c.format(pretrained=pretrained) for c in changes]
        config, workdirs[name], seconds = run(name, file, *overrides)
        result = ClassificationResult.load(workdirs[name] / "result.npz")
        rows.append(
            {
                "model": name,
                "labels": LABELS,
                "video top-1": f"{result.metrics['video_top1']:.1%}",
                "chance": f"{1 / len(result.class_names):.1%}",
                "videos": len(result.ids),
                "seconds": seconds,
            }
        )
    train_source, source = load_sources(config)
    _, task = create_parts(config, train_source.class_names)
    report = workdir / "report.html"
    report_runs(report, "vidjax demo: learning motion", workdirs, task, source, rows, NOTE)

    table = rich.table.Table(title=f"Twelve motions, {LABELS} labeled training clips")
    for key in rows[0]:
        table.add_column(key, justify="left" if key == "model" else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    rich.console.Console().print(table)
    print(f"report: {report}")
    return rows
