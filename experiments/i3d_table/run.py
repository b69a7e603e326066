"""Repeats table 2 of the I3D paper at CPU scale, with inflated and random initialization.

  VIDJAX_DATA=/data python experiments/i3d_table/run.py

After table 2 of arXiv:1705.07750: frames averaged, CNN+LSTM, 3D from scratch, two streams, and I3D with its
streams, on one narrow Inception-v1. The inflated row starts from that network trained on Weizmann's single
frames, where the paper's starts from ImageNet. Writes results.csv and results.png beside this file, and the
table into README.md. Finished runs under --workdir are not repeated.
"""

import argparse
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from experiments.common import direction_accuracy, publish, slug, train

HERE = pathlib.Path(__file__).parent
INCEPTION = {  # a quarter of the width, a block in each stage
    "stem_width": 16,
    "stages": (
        ((0, 16, 24, 0, 0, 0),),
        ((16, 12, 16, 8, 12, 12),),
        ((16, 12, 24, 8, 12, 12),),
        ((32, 16, 32, 16, 32, 32),),
    ),
}
TRUNK = {
    "model.options.trunk": "inception_v1_same",
    "model.options.trunk_options": {"tiny": True, **INCEPTION},
}
I3D = {f"model.options.{k}": v for k, v in INCEPTION.items()}
C3D = {  # its tiny preset, without normalization, is too narrow to learn
    "optimizer.lr": 1e-3,
    "model.options.widths": (12, 24, 32),
    "model.options.hidden": 128,
}
FLOW = {"data.grey": True}
BOTH = {"data.flow.frames": 8}
STACK = {"model.options.flow_frames": 8}
# label: model, what it needs besides the common budget
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "single frame": ("single_frame_resnet18", TRUNK),
    "frames averaged": ("late_fusion_resnet18", TRUNK),
    "CNN + LSTM": ("cnn_lstm_resnet18", TRUNK),
    "3D from scratch (C3D)": ("c3d", C3D),
    "two-stream, flow": ("two_stream_resnet18_temporal", TRUNK | FLOW | STACK),
    "two-stream, both": ("two_stream_resnet18", TRUNK | BOTH | STACK | {"data.frames": 1}),
    "I3D, RGB, scratch": ("i3d_inception_rgb", I3D),
    "I3D, RGB, inflated": ("i3d_inception_rgb", I3D),
    "I3D, flow, scratch": ("i3d_inception_flow", I3D | FLOW),
    "I3D, both, scratch": ("i3d_inception_two_stream", I3D | BOTH),
}
COLUMNS = ("motion top-1", "motion direction", "Weizmann top-1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/i3d_table"))
    args = parser.parse_args()
    image = args.workdir.resolve() / f"weizmann_{slug('single frame')}"  # the first row: it trains before
    rows = []
    for label, (model, needs) in ROWS.items():
        row: dict[str, Any] = {"model": label}
        for data in ("weizmann", "motion"):
            folder = "weizmann" if data == "weizmann" else "synthetic_motion"
            start = {"init.path": str(image)} if "inflated" in label else {}
            config = f"configs/{folder}/any_model.py:model={model}"
            run = train(args.workdir / f"{data}_{slug(label)}", config, needs | start)
            if data == "motion":
                row |= {"motion top-1": run.top1, "motion direction": direction_accuracy(run.result)}
            else:
                row |= {"Weizmann top-1": run.top1}
        rows.append({"model": label} | {c: row[c] for c in COLUMNS})
    publish(HERE, rows, dict(zip(COLUMNS, (1 / 12, 0.5, 0.1))))


if __name__ == "__main__":
    main()
