"""How many frames: where accuracy saturates as clips get longer.

  VIDJAX_DATA=/data python experiments/frames/run.py --scale cpu

At scale cpu the stride is fixed, so a longer clip covers more time. At full scale, TimeSformer
(arXiv:2102.05095) takes more frames of the same 8.5 seconds, since at stride 32 only 10 fit into a video.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from experiments.cells import Converted, Train
from experiments.small import WEIZMANN, options, weizmann
from experiments.table import Column, Row, Table, main, top1

MODEL = "slow_fusion_conv4"
STRIDE = 2.0
SPAN = 256.0  # frames at 30 fps that a clip covers at full scale
FRAMES = (1, 4, 8, 16, 32, 64)


def row(frames: int) -> Row:
    cpu = weizmann(MODEL, {"model.tiny": False, "data.frames": frames, "data.stride": STRIDE})
    config = "configs/kinetics400/timesformer.py"
    sampled = {"data.frames": frames, "data.stride": SPAN / frames}
    full = Train(config, sampled | options(frames=frames), start=Converted("vit_b_16.timm"), tuned=False)
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
