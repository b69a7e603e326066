"""Which frames to look at: a dense window, strided windows, uniform frames and random frames of segments.

  VIDJAX_DATA=/data python experiments/sampling/run.py --scale cpu

TSN, arXiv:1608.00859, section 3.1 (segments); SlowFast, arXiv:1812.03982, section 3.2 (windows). At full
scale: TSM on Kinetics-400, 8 frames.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from typing import Any

from experiments.cells import Converted, Train
from experiments.small import MOTION, WEIZMANN, motion, weizmann
from experiments.table import Column, Row, Table, main, top1

IMAGENET = Converted("resnet50.torchvision")
MODEL = "slow_fusion_conv4"
SMALL = {"model.tiny": False}
ONE_VIEW = {"evals.val.clips": 1}  # covers the video


def row(label: str, sampling: str, strides: tuple[float, float, float] | None = None) -> Row:
    """Returns a row; `strides` are those of the windows for motion, Weizmann and Kinetics."""
    each: list[dict[str, Any]] = [{"data.sampling": sampling} for _ in range(3)]
    for overrides, stride in zip(each, strides or ()):
        overrides["data.stride"] = stride
    if not strides:
        each[1] |= ONE_VIEW
        each[2] |= ONE_VIEW
    return Row(
        label,
        {"motion": motion(MODEL, SMALL | each[0]), "weizmann": weizmann(MODEL, SMALL | each[1])},
        {
            "kinetics400": Train(
                "configs/kinetics400/tsm_resnet50_8f.py", each[2], start=IMAGENET, tuned=False
            )
        },
    )


TABLE = Table(
    pathlib.Path(__file__).parent,
    (
        row("dense: consecutive frames", "window", (1.0, 1.0, 2.0)),
        row("window, medium stride", "window", (1.5, 3.0, 8.0)),
        row("window, large stride", "window", (2.0, 6.0, 16.0)),
        row("uniform over the video", "uniform"),
        row("segments: a random frame of each", "segments"),
    ),
    columns=MOTION + WEIZMANN,
    full=(Column("Kinetics-400 top-1", "kinetics400", top1),),
    first="frames",
    quoted=("dense: consecutive frames", "window, large stride", "segments: a random frame of each"),
)

if __name__ == "__main__":
    main(TABLE)
