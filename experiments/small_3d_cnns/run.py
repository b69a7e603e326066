"""A small network of every family of 3D CNNs.

  python experiments/small_3d_cnns/run.py --scale cpu

Tiny presets, wider where those are too narrow to learn. Scale full trains the papers' networks.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from typing import Any

import vidjax
from experiments.cells import Train
from experiments.i3d_table.run import INCEPTION
from experiments.small import MOTION, counted, motion, options
from experiments.table import Column, Row, Table, main, top1

# model: fields of the small network, config of the paper's
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "c3d": (dict(widths=(12, 24, 32), hidden=128), "sports1m/c3d_scratch.py"),
    "i3d_inception_rgb": (INCEPTION, "kinetics400/i3d_inception_rgb.py"),
    "s3d": (INCEPTION, "kinetics400/s3d.py"),
    "r3d_18": ({}, "kinetics400/r2plus1d_18.py:model=r3d_18"),
    "r2plus1d_18": ({}, "kinetics400/r2plus1d_18.py"),
    "c2d_r50_8x8": ({}, "kinetics400/c2d_r50.py"),
    "i3d_r50_8x8": ({}, "kinetics400/i3d_r50.py"),
    "i3d_nln_r50_8x8": ({}, "kinetics400/i3d_nln_r50.py"),
    "slow_r50_8x8": ({}, "kinetics400/slow_r50.py"),
    "slowfast_r50_4x16": ({}, "kinetics400/slowfast.py"),
    "csn_ir_50": (dict(width=16), "kinetics400/csn.py:model=ir_50"),
    "x3d_s": (dict(widths=(16, 32), bottleneck=2.25), "kinetics400/x3d.py:model=s"),
}


def row(model: str, fields: dict[str, Any], config: str) -> Row:
    def facts() -> dict[str, Any]:
        best = next((r for r in vidjax.spec(model).results if r.dataset == "Kinetics-400"), None)
        return {"published, Kinetics-400": best and best.top1} | counted(model, **fields)

    full = {"full": Train(f"configs/{config}", tuned=False)}
    return Row(model, {"motion": motion(model, options(**fields))}, full, facts)


TABLE = Table(
    pathlib.Path(__file__).parent,
    [row(model, *each) for model, each in MODELS.items()],
    columns=MOTION,
    full=(Column("top-1 on the config's dataset", "full", top1),),
    smoke=("csn_ir_50",),
    quoted=("c2d_r50_8x8", "r3d_18", "csn_ir_50", "slowfast_r50_4x16", "x3d_s"),
)

if __name__ == "__main__":
    main(TABLE)
