"""Trains a small network of every 3D CNN family on the embedded motions under one budget.

  python experiments/small_3d_cnns/run.py
  python experiments/small_3d_cnns/run.py --models 'csn_*'

Writes results.csv and results.png beside this file, and the table into README.md. Finished runs
under --workdir are not repeated.
"""

import argparse
import fnmatch
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import vidjax
from experiments.common import direction_accuracy, markdown, publish, train
from experiments.i3d_table.run import C3D, I3D
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.params import count_params

HERE = pathlib.Path(__file__).parent
CLIP = (8, 32, 32, 3)
# model: what it needs besides the common budget
MODELS: dict[str, dict[str, Any]] = {
    "c3d": C3D,
    "i3d_inception_rgb": I3D,
    "s3d": I3D,
    "r3d_18": {},
    "r2plus1d_18": {},
    "c2d_r50_8x8": {},
    "i3d_r50_8x8": {},
    "i3d_nln_r50_8x8": {},
    "slow_r50_8x8": {},
    "slowfast_r50_4x16": {},
    "csn_ir_50": {"model.options.width": 16},
    "x3d_s": {"model.options.widths": (16, 32), "model.options.bottleneck": 2.25},
    "movinet_a0_base": {},
    "movinet_a0_stream": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="*", help="a pattern")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/small_3d_cnns"))
    args = parser.parse_args()
    names = fnmatch.filter(MODELS, args.models)
    rows = []
    for name in names:
        run = train(args.workdir / name, f"configs/synthetic_motion/any_model.py:model={name}", MODELS[name])
        options = {k.removeprefix("model.options."): v for k, v in MODELS[name].items() if "options" in k}
        traced = graph.trace(vidjax.create_model(name, 12, tiny=True, **options), CLIP)
        rows.append(
            {
                "model": name,
                "motion top-1": run.top1,
                "motion direction": direction_accuracy(run.result),
                "parameters": count_params(traced.variables["params"]),
                "MMACs": round(jaxpr_cost(traced.jaxpr).macs / 1e6, 1),
            }
        )
    if len(names) < len(MODELS):
        print(markdown(rows))
        return
    publish(HERE, rows, {"motion top-1": 1 / 12, "motion direction": 0.5})


if __name__ == "__main__":
    main()
