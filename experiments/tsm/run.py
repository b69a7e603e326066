"""The temporal shift: none, from both directions, and from the past only, whole and frame by frame.

  VIDJAX_DATA=/data python experiments/tsm/run.py --scale cpu

Lin et al., arXiv:1811.08383, Tables 1 and 2 and section 4.2.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from experiments.cells import Train
from experiments.small import MOTION, WEIZMANN, motion, options, weizmann
from experiments.streamed import Streamed
from experiments.table import Column, Row, Table, main, top1

TRUNK = options(trunk_options={"tiny": True, "width": 8})
ONLINE = TRUNK | options(online=True)
KINETICS = "configs/kinetics400/{}.py"


def cells(model: str, overrides: dict) -> dict[str, Train]:
    return {"motion": motion(model, overrides), "weizmann": weizmann(model, overrides)}


online = cells("tsm_resnet50_8f", ONLINE)
full = {"kinetics400": Train(KINETICS.format("tsm_resnet50_8f"), options(online=True), tuned=False)}
TABLE = Table(
    pathlib.Path(__file__).parent,
    (
        Row(
            "no shift (TSN)",
            cells("tsn_resnet50", TRUNK),
            {"kinetics400": Train(KINETICS.format("tsn_resnet50"), tuned=False)},
        ),
        Row(
            "shift from both directions",
            cells("tsm_resnet50_8f", TRUNK),
            {"kinetics400": Train(KINETICS.format("tsm_resnet50_8f"), tuned=False)},
        ),
        Row("online: shift from the past", online, full),
        Row("online, frame by frame", {name: Streamed(cell) for name, cell in online.items()}),
    ),
    columns=MOTION + WEIZMANN,
    full=(Column("Kinetics-400 top-1", "kinetics400", top1),),
    smoke=("online, frame by frame",),
    quoted=("no shift (TSN)", "shift from both directions", "online: shift from the past"),
)

if __name__ == "__main__":
    main(TABLE)
