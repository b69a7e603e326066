"""Table 2 of the I3D paper: CNN+LSTM, 3D networks and two streams on one backbone.

  VIDJAX_DATA=/data python experiments/i3d_table/run.py --scale cpu

Carreira & Zisserman, arXiv:1705.07750. At scale cpu the backbone is a narrow Inception-v1 everywhere, where
the paper compares different ones, and nothing starts from ImageNet.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from typing import Any

from experiments.cells import Fuse, Train
from experiments.small import MOTION, WEIZMANN, motion, options, weizmann
from experiments.table import Column, Row, Table, main, top1

INCEPTION = {  # a quarter of the width, a block in each stage
    "stem_width": 16,
    "stages": (
        ((0, 16, 24, 0, 0, 0),),
        ((16, 12, 16, 8, 12, 12),),
        ((16, 12, 24, 8, 12, 12),),
        ((32, 16, 32, 16, 32, 32),),
    ),
}
TRUNK = options(trunk="inception_v1_same", trunk_options={"tiny": True, **INCEPTION})
I3D = options(**INCEPTION)
C3D = options(widths=(12, 24, 32), hidden=128)  # the tiny preset is too narrow to learn
FLOW = {"data.grey": True}
STACK = {"data.flow.frames": 8} | options(flow_frames=8)
PUBLISHED = "published, Kinetics-400 test"


def row(label: str, model: str, overrides: dict[str, Any], published: float | None, full: str = "") -> Row:
    cpu = {"motion": motion(model, overrides), "weizmann": weizmann(model, overrides)}
    at_full = {"kinetics400": Train(f"configs/kinetics400/{full}.py", tuned=False)} if full else {}
    return Row(label, cpu, at_full, {PUBLISHED: published})


def both(label: str, first: Row, second: Row, published: float) -> Row:
    """Returns the row of two streams, trained apart, whose scores are averaged."""
    cpu = {name: Fuse((first.cpu[name], second.cpu[name])) for name in first.cpu}
    full = {name: Fuse((first.full[name], second.full[name])) for name in first.full}
    return Row(label, cpu, full, {PUBLISHED: published})


def rows() -> list[Row]:
    spatial = row("two-stream, RGB", "two_stream_resnet18_spatial", TRUNK, 62.2)
    temporal = row("two-stream, flow", "two_stream_resnet18_temporal", TRUNK | FLOW | STACK, 52.4)
    rgb = row("I3D, RGB", "i3d_inception_rgb", I3D, 71.1, "i3d_inception_rgb")
    flow = row("I3D, flow", "i3d_inception_flow", I3D | FLOW, 63.4, "i3d_inception_flow")
    return [
        row("frames averaged", "late_fusion_resnet18", TRUNK, None),
        row("CNN + LSTM", "cnn_lstm_resnet18", TRUNK, 63.3),
        row("3D CNN (C3D)", "c3d", C3D, 56.1),
        spatial,
        temporal,
        both("two-stream, both", spatial, temporal, 65.6),
        rgb,
        flow,
        both("I3D, both", rgb, flow, 74.2),
    ]


TABLE = Table(
    pathlib.Path(__file__).parent,
    rows(),
    columns=MOTION + WEIZMANN,
    full=(Column("Kinetics-400 top-1", "kinetics400", top1),),
    smoke=("3D CNN (C3D)",),
    quoted=("frames averaged", "CNN + LSTM", "3D CNN (C3D)", "two-stream, both", "I3D, both"),
)

if __name__ == "__main__":
    main(TABLE)
