"""Trains tiny presets of every frame-level model under one budget, on embedded motions and Weizmann.

  VIDJAX_DATA=/data python experiments/frame_baselines/run.py              # both datasets, table and plot
  python experiments/frame_baselines/run.py --exercise                    # three models, motion only
  python experiments/frame_baselines/run.py --models 'tsm_*' --data motion

Writes results.csv and results.png beside this file, and the table into README.md. Finished runs
under --workdir are not repeated.
"""

import argparse
import fnmatch
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import vidjax
from experiments.common import direction_accuracy, markdown, publish, train

HERE = pathlib.Path(__file__).parent
SMALL = {"model.options.trunk_options": "{'tiny':True,'width':8}"}
STACK = {"data.flow.frames": 8, "model.options.flow_frames": 8}
FLOW = STACK | {"data.grey": True}
BOTH = STACK | {"data.frames": 1}
# The tiny presets of the networks of 2014, without normalization, are too narrow to learn.
WIDER = {"optimizer.lr": 1e-3, "model.options.widths": "(32,64,96,96,64)", "model.options.hidden": 256}
# So are recurrent conv nets, whose tiny trunk has no BatchNorm either.
MAPS = {
    "model.options.trunk": "vgg16_bn",
    "model.options.trunk_options": {"tiny": True, "widths": (8, 8, 16, 24, 24), "hidden": 32},
    "model.options.levels": (("pool3", 24), ("pool4", 24)),
}
# model: what it needs besides the common budget
MODELS = {
    "single_frame_resnet18": SMALL,
    "karpathy_single_frame": WIDER,
    "karpathy_late_fusion": WIDER,
    "karpathy_early_fusion": WIDER,
    "karpathy_slow_fusion": WIDER,
    "late_fusion_resnet18": SMALL,
    "late_fusion_resnet18_max": SMALL,
    "late_fusion_resnet18_attention": SMALL,
    "late_fusion_resnet18_vlad": SMALL,
    "late_fusion_resnet18_mlp": SMALL,
    "early_fusion_resnet18": SMALL,
    "tsn_resnet50": SMALL,
    "two_stream_resnet18_spatial": {},
    "two_stream_resnet18_temporal": FLOW,
    "two_stream_resnet18": BOTH,
    "cnn_lstm_resnet18": SMALL,
    "cnn_gru_resnet18": SMALL,
    "cnn_bilstm_resnet18": SMALL,
    "lrcn_resnet50": SMALL,
    "rcn_vgg16": MAPS,
    "gru_rcn_vgg16": MAPS,
    "stacked_gru_rcn_vgg16": MAPS,
    "bi_gru_rcn_vgg16": MAPS,
    "tsm_resnet50_8f": SMALL,
    "tsm_mobilenet_v2_8f": {},
    "r2plus1d_18": {},
    "slow_fusion_conv4": {"model.tiny": False},
}
EXERCISE = ("late_fusion_resnet18", "tsm_resnet50_8f", "r2plus1d_18")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exercise", action="store_true", help="frame pooling, TSM and R(2+1)D on motion")
    parser.add_argument("--models", default="*", help="a pattern")
    parser.add_argument("--data", nargs="+", default=("motion", "weizmann"), choices=("motion", "weizmann"))
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/frame_baselines"))
    args = parser.parse_args()
    names = EXERCISE if args.exercise else fnmatch.filter(MODELS, args.models)
    data = ("motion",) if args.exercise else args.data

    rows = []
    for name in names:
        row = {"model": name, "order-aware": "yes" if vidjax.spec(name).order_aware else "no"}
        if "motion" in data:
            config = f"configs/synthetic_motion/any_model.py:model={name}"
            run = train(args.workdir / f"motion_{name}", config, MODELS[name])
            row |= {"motion top-1": run.top1, "motion direction": direction_accuracy(run.result)}
        if "weizmann" in data:
            config = f"configs/weizmann/any_model.py:model={name}"
            run = train(args.workdir / f"weizmann_{name}", config, MODELS[name])
            row |= {"Weizmann top-1": run.top1}
        rows.append(row)
    if args.exercise or len(names) < len(MODELS) or len(data) < 2:
        print(markdown(rows))
        return
    chance = {"motion top-1": 1 / 12, "motion direction": 0.5, "Weizmann top-1": 0.1}
    labels = [r["model"] + ("" if r["order-aware"] == "yes" else " *") for r in rows]
    publish(HERE, rows, chance, labels, "* cannot see the order of frames")


if __name__ == "__main__":
    main()
