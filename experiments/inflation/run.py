"""Inflation against scratch: what a 3D network gains from a 2D one trained on single frames.

  VIDJAX_DATA=/data python experiments/inflation/run.py --scale cpu

Carreira & Zisserman, arXiv:1705.07750, section 2.4 ("average"), and ViViT, arXiv:2103.15691, section 3.4
("central frame"). At scale cpu, the 2D network is trained on frames of the same videos; at full scale, the
recipes start from ImageNet.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from experiments.cells import Converted, Train
from experiments.i3d_table.run import I3D, TRUNK
from experiments.small import WEIZMANN, options, weizmann
from experiments.table import Column, Row, Table, main, top1

IMAGE = weizmann("single_frame_resnet18", TRUNK)


def i3d(label: str, mode: str | None) -> Row:
    """Returns the row of a way of inflation; None trains from scratch."""
    init = {"init.inflation": mode} if mode else {}
    cell = weizmann("i3d_inception_rgb", I3D | init, start=IMAGE if mode else None)
    paper = options(norm_scale=True, padding="ceil") | init  # as in torchvision's GoogLeNet
    start = Converted("inception_v1_bn.torchvision") if mode else None
    full = Train("configs/kinetics400/i3d_inception_rgb.py", paper, start=start, tuned=False)
    return Row(label, {"weizmann": cell}, {"kinetics400": full})


TABLE = Table(
    pathlib.Path(__file__).parent,
    (
        Row("2D network, single frame", {"weizmann": IMAGE}),
        i3d("3D network, from scratch", None),
        i3d("3D network, inflated: average", "average"),
        i3d("3D network, inflated: central frame", "centre"),
    ),
    columns=WEIZMANN,
    full=(Column("Kinetics-400 top-1", "kinetics400", top1),),
    smoke=("2D network, single frame",),
    quoted=("2D network, single frame", "3D network, from scratch", "3D network, inflated: average"),
)

if __name__ == "__main__":
    main(TABLE)
