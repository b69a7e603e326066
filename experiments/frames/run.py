"""How many frames: where accuracy saturates as clips get longer.

  VIDJAX_DATA=/data python experiments/frames/run.py --scale cpu

At a fixed stride a longer clip covers more time. TimeSformer, arXiv:2102.05095, Figure 6, which is the full
scale, goes to 96 frames.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from experiments.cells import Train
from experiments.small import WEIZMANN, options, weizmann
from experiments.table import Column, Row, Table, main, top1

MODEL = "slow_fusion_conv4"
STRIDE = 2.0
FRAMES = (1, 4, 8, 16, 32, 64)


def row(frames: int) -> Row:
    cpu = weizmann(MODEL, {"model.tiny": False, "data.frames": frames, "data.stride": STRIDE})
    config = "configs/kinetics400/timesformer.py"
    full = Train(config, {"data.frames": frames} | options(frames=frames), tuned=False)
    return Row(
        f"{frames}",
        {"weizmann": cpu},
        {"kinetics400": full} if frames >= 8 else {},
        lambda: {"seconds": frames * STRIDE / 25},
    )


TABLE = Table(
    pathlib.Path(__file__).parent,
    [row(frames) for frames in FRAMES],
    columns=WEIZMANN,
    full=(Column("Kinetics-400 top-1", "kinetics400", top1),),
    first="frames",
    quoted=("1", "8", "16", "32", "64"),
)

if __name__ == "__main__":
    main(TABLE)
