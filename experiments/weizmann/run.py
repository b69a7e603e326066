"""Weizmann from scratch: a small 3D CNN and the single-frame baseline.

VIDJAX_DATA=/data python experiments/weizmann/run.py --scale cpu      # three performers held out
VIDJAX_DATA=/data python experiments/weizmann/run.py --scale full     # leave-one-performer-out, nine folds
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import dataclasses

import numpy as np

from experiments.cells import Cell, Lab, Outcome, Train
from experiments.table import Column, Row, Table, main, top1
from vidjax.tasks.results import ClassificationResult

PERFORMERS = ("daria", "denis", "eli", "ido", "ira", "lena", "lyova", "moshe", "shahar")


@dataclasses.dataclass(frozen=True)
class Folds(Cell):
    """Cross validation: the accuracy over the test videos of all folds."""

    of: tuple[Train, ...]

    def key(self, lab: Lab) -> str:
        return "\n".join(fold.key(lab) for fold in self.of)

    def commands(self, lab: Lab) -> list[str]:
        return [line for fold in self.of for line in fold.commands(lab)]

    def run(self, lab: Lab) -> list[Outcome]:
        solved = [lab.solve(fold) for fold in self.of]
        return [self.join(lab, *outcomes) for outcomes in zip(*(f.result() for f in solved), strict=True)]

    def join(self, lab: Lab, *outcomes: Outcome) -> Outcome:
        results = [o.result for o in outcomes]
        joined = ClassificationResult(
            [name for r in results for name in r.ids],
            np.concatenate([r.labels for r in results]),
            np.concatenate([r.logits for r in results]),
            results[0].class_names,
        )
        folder = lab.folder("folds", [o.folder.name for o in outcomes])
        folder.mkdir(parents=True, exist_ok=True)
        joined.save(folder / "result.npz")
        about = outcomes[0].about
        test = {"videos": len(joined.ids), "fingerprint": "of every fold"}
        data = {**about["data"], "test": test}
        return Outcome(folder, outcomes[0].seed, {**about, "data": data, "of": [o.about for o in outcomes]})


def row(label: str, config: str) -> Row:
    path = f"configs/weizmann/{config}.py"
    folds = tuple(Train(f"{path}:test={performer}", tuned=False) for performer in PERFORMERS)
    return Row(label, {"weizmann": Train(path, tuned=False)}, {"folds": Folds(folds)})


TABLE = Table(
    pathlib.Path(__file__).parent,
    (row("3D CNN", "slow_fusion_conv4"), row("one frame", "single_frame_resnet18")),
    columns=(Column("Weizmann top-1", "weizmann", top1, 0.1),),
    full=(Column("Weizmann top-1, leave one out", "folds", top1, 0.1),),
    smoke=("3D CNN",),
    quoted=("3D CNN", "one frame"),
)

if __name__ == "__main__":
    main(TABLE)
