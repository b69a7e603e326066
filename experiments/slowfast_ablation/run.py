"""SlowFast, one setting changed at a time.

  python experiments/slowfast_ablation/run.py --scale cpu

Feichtenhofer et al., arXiv:1812.03982, Table 5, with a tiny network of one block a stage.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from typing import Any

from experiments.cells import Train
from experiments.small import MOTION, counted, motion, options
from experiments.table import Column, Row, Table, main, top1

BASE = dict(width=32, alpha=4, beta=1 / 8, lateral="conv")
ROWS: dict[str, dict[str, Any]] = {  # label: change of the base
    "alpha 4, beta 1/8, conv": {},
    "alpha 8": dict(alpha=8),
    "beta 1/4": dict(beta=1 / 4),
    "beta 1/16": dict(beta=1 / 16),
    "no lateral": dict(lateral="none"),
    "time-strided sampling": dict(lateral="sample"),
    "time to channel": dict(lateral="channels"),
    "time to channel, sum (beta 1/4)": dict(lateral="sum", beta=1 / 4),
}


def row(label: str, change: dict[str, Any]) -> Row:
    fields = BASE | change
    cell = motion("slowfast_r50_4x16", {"data.frames": 16, "data.stride": 1.0} | options(**fields))
    # The paper's base has alpha 8, and lateral "sum" requires alpha * beta = 1.
    paper = change | (dict(beta=1 / 8) if fields["lateral"] == "sum" else {})
    full = Train("configs/kinetics400/slowfast.py:model=slowfast_r50_4x16", options(**paper), tuned=False)
    return Row(
        label,
        {"motion": cell},
        {} if paper == dict(alpha=8) else {"kinetics400": full},
        lambda: counted("slowfast_r50_4x16", (16, 32, 32, 3), **fields),
    )


def slow_alone() -> Row:
    """Returns the row of the frames that the slow pathway of the base sees, without a fast pathway."""
    fields = dict(width=BASE["width"])
    cell = motion("slow_r50_8x8", {"data.frames": 4, "data.stride": 4.0} | options(**fields))
    full = Train("configs/kinetics400/slow_r50.py", {"data.frames": 4, "data.stride": 16.0}, tuned=False)
    return Row(
        "slow alone",
        {"motion": cell},
        {"kinetics400": full},
        lambda: counted("slow_r50_8x8", (4, 32, 32, 3), **fields),
    )


TABLE = Table(
    pathlib.Path(__file__).parent,
    [slow_alone(), *(row(label, change) for label, change in ROWS.items())],
    columns=MOTION,
    full=(Column("Kinetics-400 top-1", "kinetics400", top1),),
    smoke=("slow alone",),
    quoted=("slow alone", "alpha 4, beta 1/8, conv", "no lateral"),
)

if __name__ == "__main__":
    main(TABLE)
