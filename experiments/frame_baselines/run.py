"""Which models see motion? Frame models that ignore the order of frames beside models that do not.

  VIDJAX_DATA=/data python experiments/frame_baselines/run.py --scale cpu

A single frame of the embedded motions carries no information, and a model that ignores order can at best
distinguish the pairs of motions and the two speeds, seven of twelve.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from typing import Any

import vidjax
from experiments.cells import Converted, Train
from experiments.small import MOTION, counted, motion, options
from experiments.table import Column, Row, Table, main, top1

SMALL = {"trunk_options": {"tiny": True, "width": 8}}
MAPS = {  # the tiny trunk has no BatchNorm and is too narrow to learn
    "trunk": "vgg16_bn",
    "trunk_options": {"tiny": True, "widths": (8, 8, 16, 24, 24), "hidden": 32},
    "levels": (("pool3", 24), ("pool4", 24)),
}
# model: fields of the small network, config of a published one
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "single_frame_resnet18": (SMALL, ""),
    "late_fusion_resnet18": (SMALL, ""),
    "late_fusion_resnet18_max": (SMALL, ""),
    "late_fusion_resnet18_attention": (SMALL, ""),
    "late_fusion_resnet18_mlp": (SMALL, ""),
    "early_fusion_resnet18": (SMALL, ""),
    "tsn_resnet50": (SMALL, "kinetics400/tsn_resnet50.py"),
    "cnn_lstm_resnet18": (SMALL, ""),
    "cnn_gru_resnet18": (SMALL, ""),
    "cnn_bilstm_resnet18": (SMALL, ""),
    "lrcn_resnet50": (SMALL, "ucf101/lrcn_resnet50.py"),
    "gru_rcn_vgg16": (MAPS, "ucf101/gru_rcn_vgg16.py"),
    "tsm_resnet50_8f": (SMALL, "kinetics400/tsm_resnet50_8f.py"),
    "r2plus1d_18": ({}, "kinetics400/r2plus1d_18.py"),
}


IMAGENET = {
    **dict.fromkeys(("tsn_resnet50", "tsm_resnet50_8f", "lrcn_resnet50"), Converted("resnet50.torchvision")),
    "gru_rcn_vgg16": Converted("vgg16.torchvision"),
}


def row(model: str, fields: dict[str, Any], config: str) -> Row:
    return Row(
        model,
        {"motion": motion(model, options(**fields))},
        {"full": Train(f"configs/{config}", start=IMAGENET.get(model), tuned=False)} if config else {},
        lambda: {"order-aware": "yes" if vidjax.spec(model).order_aware else "no"} | counted(model, **fields),
    )


TABLE = Table(
    pathlib.Path(__file__).parent,
    [row(model, *each) for model, each in MODELS.items()],
    columns=MOTION,
    full=(Column("top-1 on the config's dataset", "full", top1),),
    smoke=("single_frame_resnet18",),
    quoted=(
        "single_frame_resnet18",
        "late_fusion_resnet18",
        "cnn_gru_resnet18",
        "tsm_resnet50_8f",
        "r2plus1d_18",
    ),
)

if __name__ == "__main__":
    main(TABLE)
