"""Ablates alpha, beta and the lateral connections of SlowFast at CPU scale.

  python experiments/slowfast_ablation/run.py

After tables 5(a) and 5(b) of arXiv:1812.03982, on the twelve embedded motions. Writes results.csv and
results.png beside this file, and the table into README.md. Finished runs under --workdir are not repeated.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import vidjax
from experiments.common import direction_accuracy, publish, slug, train
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.params import count_params

HERE = pathlib.Path(__file__).parent
FRAMES, SIZE = 16, 32
EPOCHS = 2.5  # 750 updates, half of those of the other experiments: a row takes minutes of a core
BASE = dict(width=32, alpha=4, beta=1 / 8, lateral="conv")
ROWS = {
    "slow alone": None,
    "alpha 4, beta 1/8, conv": {},
    "alpha 8": dict(alpha=8),
    "beta 1/4": dict(beta=1 / 4),
    "beta 1/16": dict(beta=1 / 16),
    "no lateral": dict(lateral="none"),
    "time-strided sampling": dict(lateral="sample"),
    "time to channel": dict(lateral="channels"),
    "time to channel, sum (beta 1/4)": dict(lateral="sum", beta=1 / 4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/slowfast_ablation"))
    args = parser.parse_args()
    rows = []
    for label, change in ROWS.items():
        if change is None:  # the frames that the slow pathway of the base sees
            name, options, data = "slow_r50_8x8", dict(width=BASE["width"]), dict(frames=4, stride=4.0)
        else:
            name, options, data = "slowfast_r50_4x16", BASE | change, dict(frames=FRAMES, stride=1.0)
        overrides = {"epochs": EPOCHS} | {f"model.options.{k}": v for k, v in options.items()}
        overrides |= {f"data.{k}": v for k, v in data.items()}
        config = f"configs/synthetic_motion/any_model.py:model={name}"
        run = train(args.workdir / slug(label), config, overrides)
        traced = graph.trace(
            vidjax.create_model(name, 12, tiny=True, **options), (data["frames"], SIZE, SIZE, 3)
        )
        rows.append(
            {
                "model": label,
                "motion top-1": run.top1,
                "motion direction": direction_accuracy(run.result),
                "parameters": count_params(traced.variables["params"]),
                "MMACs": round(jaxpr_cost(traced.jaxpr).macs / 1e6, 1),
            }
        )
    publish(HERE, rows, {"motion top-1": 1 / 12, "motion direction": 0.5})


if __name__ == "__main__":
    main()
