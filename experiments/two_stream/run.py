"""Two streams: what was seen and how it moved, apart and together.

  VIDJAX_DATA=/data python experiments/two_stream/run.py --scale cpu

Simonyan & Zisserman, arXiv:1406.2199, Tables 1 and 4.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from experiments.cells import Cell, Evaluate, Fuse, Train
from experiments.small import MOTION, WEIZMANN, motion, options, weizmann
from experiments.table import Column, Row, Table, main, top1

FLOW = {"data.flow.frames": 8, "data.grey": True} | options(flow_frames=8)
UCF101 = "configs/ucf101/two_stream_"
PUBLISHED = "published, UCF101"


def streams(name: str) -> tuple[Train, Train]:
    """Returns the cells of the spatial and the temporal stream on a dataset."""
    if name == "ucf101":
        spatial, temporal = (Train(f"{UCF101}{kind}.py", tuned=False) for kind in ("spatial", "temporal"))
        return spatial, temporal
    cell = motion if name == "motion" else weizmann
    return cell("two_stream_resnet18_spatial"), cell("two_stream_resnet18_temporal", FLOW)


def average(name: str) -> Cell:
    return Fuse(streams(name))


def svm(name: str) -> Cell:
    on_train = {"data.eval_split": "train"}
    return Fuse(streams(name), tuple(Evaluate(stream, on_train) for stream in streams(name)))


def row(label: str, cell, published: float) -> Row:
    cpu = {name: cell(name) for name in ("motion", "weizmann")}
    return Row(label, cpu, {"ucf101": cell("ucf101")}, {PUBLISHED: published})


TABLE = Table(
    pathlib.Path(__file__).parent,
    (
        row("spatial stream: one frame", lambda name: streams(name)[0], 73.0),
        row("temporal stream: optical flow", lambda name: streams(name)[1], 83.7),
        row("both, average", average, 86.9),
        row("both, linear SVM", svm, 88.0),
    ),
    columns=MOTION + WEIZMANN,
    full=(Column("UCF101 top-1", "ucf101", top1),),
    smoke=("both, linear SVM",),
    quoted=("spatial stream: one frame", "temporal stream: optical flow", "both, average"),
)

if __name__ == "__main__":
    main(TABLE)
