"""The temporal shift: none, from both directions, and from the past only, whole and frame by frame.

  VIDJAX_DATA=/data python experiments/tsm/run.py --scale cpu

Lin et al., arXiv:1811.08383, Tables 1 and 2 and section 4.2.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from typing import Any

from experiments.cells import Converted, Train
from experiments.small import MOTION, WEIZMANN, motion, options, weizmann
from experiments.streamed import Streamed
from experiments.table import Column, Row, Table, main, top1

TRUNK = options(trunk_options={"tiny": True, "width": 8})
ONLINE = TRUNK | options(online=True)
IMAGENET = Converted("resnet50.torchvision")


def kinetics(config: str, **fields: Any) -> dict[str, Train]:
    path = f"configs/kinetics400/{config}.py"
    return {"kinetics400": Train(path, options(**fields), start=IMAGENET, tuned=False)}


def cells(model: str, overrides: dict) -> dict[str, Train]:
    return {"motion": motion(model, overrides), "weizmann": weizmann(model, overrides)}


online = cells("tsm_resnet50_8f", ONLINE)
TABLE = Table(
    pathlib.Path(__file__).parent,
    (
        Row(
            "no shift (TSN)",
            cells("tsn_resnet50", TRUNK),
            kinetics("tsn_resnet50"),
        ),
        Row(
            "shift from both directions",
            cells("tsm_resnet50_8f", TRUNK),
            kinetics("tsm_resnet50_8f"),
        ),
        Row("online: shift from the past", online, kinetics("tsm_resnet50_8f", online=True)),
        Row("online, frame by frame", {name: Streamed(cell) for name, cell in online.items()}),
    ),
    columns=MOTION + WEIZMANN,
    full=(Column("Kinetics-400 top-1", "kinetics400", top1),),
    smoke=("online, frame by frame",),
    quoted=("no shift (TSN)", "shift from both directions", "online: shift from the past"),
)

if __name__ == "__main__":
    main(TABLE)
