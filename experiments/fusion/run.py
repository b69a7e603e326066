"""Where to fuse time: the networks of Karpathy et al., small, beside the single-frame baseline.

  VIDJAX_DATA=/data python experiments/fusion/run.py --scale cpu

"Large-scale Video Classification with Convolutional Neural Networks", CVPR 2014, Table 1. Scale full trains
the paper's networks on Sports-1M.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import vidjax
from experiments.cells import Fuse, Train
from experiments.small import MOTION, WEIZMANN, counted, motion, options, weizmann
from experiments.table import Column, Row, Table, main, top1

FIELDS = {"widths": (32, 64, 96, 96, 64), "hidden": 256}  # the tiny presets are too narrow to learn
KINDS = ("single_frame", "late_fusion", "early_fusion", "slow_fusion")
PUBLISHED = "published, Sports-1M hit@1"


def row(kind: str) -> Row:
    model = f"karpathy_{kind}"
    return Row(
        kind.replace("_", " "),
        cpu={"motion": motion(model, options(**FIELDS)), "weizmann": weizmann(model, options(**FIELDS))},
        full={"sports1m": Train(f"configs/sports1m/karpathy.py:{kind}", tuned=False)},
        facts=lambda: {PUBLISHED: vidjax.spec(model).results[0].top1} | counted(model, **FIELDS),
    )


def rows() -> list[Row]:
    single = [row(kind) for kind in KINDS]
    average = Row(
        "average of the four",
        cpu={name: Fuse(tuple(r.cpu[name] for r in single)) for name in ("motion", "weizmann")},
        full={"sports1m": Fuse(tuple(r.full["sports1m"] for r in single))},
        facts={PUBLISHED: 63.9},
    )
    return [*single, average]


TABLE = Table(
    pathlib.Path(__file__).parent,
    rows(),
    columns=MOTION + WEIZMANN,
    full=(Column("Sports-1M hit@1", "sports1m", top1),),
    smoke=("slow fusion",),
    quoted=("single frame", "slow fusion"),
)

if __name__ == "__main__":
    main(TABLE)
