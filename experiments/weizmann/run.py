"""Trains a 3D CNN and the single-frame baseline on Weizmann, over several seeds or all nine folds.

  VIDJAX_DATA=/data python experiments/weizmann/run.py --protocol short --seeds 3
  VIDJAX_DATA=/data python experiments/weizmann/run.py --protocol leave-one-out

Prints a table and writes it to results_<protocol>.json beside this file. Finished runs under
--workdir are not repeated.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import numpy as np

HERE = pathlib.Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs" / "weizmann"
MODELS = ("slow_fusion_conv4", "single_frame_resnet18")
PERFORMERS = ("daria", "denis", "eli", "ido", "ira", "lena", "lyova", "moshe", "shahar")
SHORT = "lyova+moshe+shahar"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", choices=("short", "leave-one-out"), default="short")
    parser.add_argument("--seeds", type=int, default=None, help="default: 3 for short, 1 for leave-one-out")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/weizmann"))
    args = parser.parse_args()
    short = args.protocol == "short"
    seeds = args.seeds or (3 if short else 1)
    folds = (SHORT,) if short else PERFORMERS

    rows = []
    for model in args.models:
        runs = [run(model, fold, seed, args.workdir) for seed in range(seeds) for fold in folds]
        # A fold's videos are tested once per seed: the accuracy of a seed is over all of them.
        per_seed = [
            float(np.concatenate([r["right"] for r in runs[s * len(folds) : (s + 1) * len(folds)]]).mean())
            for s in range(seeds)
        ]
        rows.append(
            {
                "model": model,
                "video_top1_mean": round(float(np.mean(per_seed)), 4),
                "video_top1_per_seed": [round(x, 4) for x in per_seed],
                "videos": sum(len(r["right"]) for r in runs[: len(folds)]),
                "minutes_per_run": round(float(np.mean([r["seconds"] for r in runs])) / 60, 1),
            }
        )
    for row in rows:
        print(json.dumps(row))
    out = HERE / f"results_{args.protocol.replace('-', '_')}.json"
    out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"written: {out}")


def run(model: str, fold: str, seed: int, root: pathlib.Path) -> dict:
    """Trains one model in a separate process. Returns the correct test videos and the time."""
    workdir = root / f"{model}_{fold}_{seed}"
    summary = workdir / "summary.json"
    if not summary.is_file():
        start = time.perf_counter()
        command = [sys.executable, "-m", "vidjax", "train", "--workdir", str(workdir)]
        command += ["--config", f"{CONFIGS / model}.py:test={fold}", f"--config.seed={seed}"]
        if subprocess.run(command).returncode:
            sys.exit(f"{' '.join(command)} failed")
        seconds = time.perf_counter() - start
        lines = (workdir / "predictions.jsonl").read_text().splitlines()
        right = [row["true"] == row["predicted"] for row in map(json.loads, lines)]
        summary.write_text(json.dumps({"right": right, "seconds": seconds}))
    return json.loads(summary.read_text())


if __name__ == "__main__":
    main()
