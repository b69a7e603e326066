"""Clip accuracy against video accuracy, and the number of test views.

  VIDJAX_DATA=/data python experiments/views/run.py --scale cpu

Each model is evaluated once, on ten clips and three crops; the rows use a part of these views.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import dataclasses

from experiments.cells import Cell, Evaluate, Lab, Outcome, Train
from experiments.small import weizmann
from experiments.table import Column, Row, Table, main, top1
from vidjax.metrics.views import protocol_views
from vidjax.tasks.results import ClassificationResult

CLIPS, CROPS = 10, 3


@dataclasses.dataclass(frozen=True)
class Part(Cell):
    """Some of the views of an evaluation on CLIPS x CROPS views.

    Attributes:
      of: the evaluation.
      clips, crops: evenly spaced ones are kept, or the middle one.
    """

    of: Cell
    clips: int
    crops: int

    def key(self, lab: Lab) -> str:
        return f"{self.of.key(lab)} {self.clips}x{self.crops}"

    def commands(self, lab: Lab) -> list[str]:
        return self.of.commands(lab)

    def run(self, lab: Lab) -> list[Outcome]:
        return [self.part(lab, outcome) for outcome in lab.solve(self.of).result()]

    def part(self, lab: Lab, whole: Outcome) -> Outcome:
        result = whole.result
        kept = protocol_views(self.clips, self.crops, CLIPS, CROPS)
        folder = lab.folder("views", [whole.folder.name, self.clips, self.crops])
        folder.mkdir(parents=True, exist_ok=True)
        part = ClassificationResult(result.ids, result.labels, result.logits[:, kept], result.class_names)
        part.save(folder / "result.npz")
        return Outcome(folder, whole.seed, {**whole.about, "views": f"{self.clips}x{self.crops}"})


def clip_top1(outcome: Outcome) -> float:
    """Returns the accuracy over single views."""
    return outcome.result.metrics["clip_top1"]


VIEWS = {"evals.val.clips": CLIPS, "evals.val.crops": CROPS}
SMALL = Evaluate(weizmann("slow_fusion_conv4", {"model.tiny": False}), VIEWS)
FULL = Evaluate(Train("configs/kinetics400/slow_r50.py", tuned=False), VIEWS)
TABLE = Table(
    pathlib.Path(__file__).parent,
    [
        Row(
            f"{clips}x{crops}",
            {"weizmann": Part(SMALL, clips, crops)},
            {"kinetics400": Part(FULL, clips, crops)},
        )
        for clips, crops in ((1, 1), (2, 1), (3, 1), (5, 1), (10, 1), (1, 3), (3, 3), (5, 3), (10, 3))
    ],
    columns=(
        Column("Weizmann, mean of views", "weizmann", top1, 0.1),
        Column("Weizmann, single views", "weizmann", clip_top1, 0.1),
    ),
    full=(
        Column("Kinetics-400, mean of views", "kinetics400", top1),
        Column("Kinetics-400, single views", "kinetics400", clip_top1),
    ),
    smoke=("10x3",),
    first="clips x crops",
    quoted=("1x1", "3x1", "10x1", "10x3"),
)

if __name__ == "__main__":
    main(TABLE)
