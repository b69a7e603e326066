"""MoViNet: base models on whole clips, stream models on whole clips and frame by frame.

  python experiments/movinet/run.py --scale cpu

Kondratyuk et al., arXiv:2103.11511, section 4 and Table 1 of the appendix.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import vidjax
from experiments.cells import Train
from experiments.small import MOTION, counted, motion, options
from experiments.streamed import Streamed
from experiments.table import Column, Row, Table, main, top1

WIDER = {  # twice the tiny preset
    "stages": ((16, (((1, 5), 16),)), (16, (((3, 3), 32), ((3, 3), 32)))),
    "stem_width": 16,
    "final_width": 32,
    "head_width": 32,
}


def published(model: str) -> float | None:
    return next((r.top1 for r in vidjax.spec(model).results if r.dataset == "Kinetics-600"), None)


def row(label: str, model: str, frame_by_frame: bool = False) -> Row:
    cell = motion(model, options(**WIDER))
    config = f"configs/kinetics600/movinet.py:model={model.removeprefix('movinet_')}"
    trained = Train(config, tuned=False)
    return Row(
        label,
        {"motion": Streamed(cell) if frame_by_frame else cell},
        {"kinetics600": Streamed(trained) if frame_by_frame else trained},
        lambda: {"published, Kinetics-600, A0": published(model)} | counted(model, **WIDER),
    )


TABLE = Table(
    pathlib.Path(__file__).parent,
    (
        row("base", "movinet_a0_base"),
        row("stream, whole clips", "movinet_a0_stream"),
        row("stream, frame by frame", "movinet_a0_stream", frame_by_frame=True),
    ),
    columns=MOTION,
    full=(Column("Kinetics-600 top-1", "kinetics600", top1),),
    smoke=("stream, frame by frame",),
    quoted=("base", "stream, whole clips"),
)

if __name__ == "__main__":
    main(TABLE)
