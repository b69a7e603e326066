"""Compares masked pretraining with training from scratch on few labels, over several seeds.

  VIDJAX_DATA=/data python experiments/mae/run.py --scale cpu     # embedded motions, Weizmann
  python experiments/mae/run.py --scale smoke                     # checks that both stages run
  VIDJAX_DATA=/data python experiments/mae/run.py --scale full    # ViT-B, Kinetics-400: accelerators

Pretrains without labels, fine-tunes, and trains the same network from scratch, for each number of labels and
seed. Scale cpu writes results.csv and the plots beside this file, and the table into README.md.
Finished runs under --workdir are not repeated.
"""

import argparse
import pathlib
import statistics
import sys
from collections.abc import Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from experiments.common import Run, execute, into_readme, machine, markdown, save, train
from vidjax.train.metrics import read_metrics

HERE = pathlib.Path(__file__).parent
STARTS = ("scratch", "pretrained")
MOTION = ("configs/synthetic_motion/videomae_pretrain.py", "configs/synthetic_motion/videomae_finetune.py")
WEIZMANN = ("configs/weizmann/videomae_pretrain.py", "configs/weizmann/videomae_finetune.py")
KINETICS = ("configs/kinetics400/videomae_b_pretrain.py", "configs/kinetics400/videomae_b_finetune.py")
LABELS = (240, 480)
SEEDS = (0, 1, 2)


def compare(
    workdir: pathlib.Path, configs: tuple[str, str], args: Sequence[str], seeds: Sequence[int]
) -> dict[str, dict[str, list[Run]]]:
    """Returns the runs of each fine-tuning argument by initialization, one per seed."""
    first, second = configs
    execute(workdir / "pretrain", first)
    runs: dict[str, dict[str, list[Run]]] = {}
    for arg in args:
        runs[arg] = {start: [] for start in STARTS}
        for seed in seeds:
            for start in STARTS:
                what = {"seed": seed}
                if start == "pretrained":
                    what["init.path"] = str((workdir / "pretrain").resolve())
                folder = workdir / f"{arg or 'all'}_{start}_{seed}"
                runs[arg][start].append(train(folder, f"{second}:{arg}" if arg else second, what))
    return runs


def table(runs: dict[str, dict[str, list[Run]]]) -> list[dict[str, Any]]:
    """Returns mean and standard deviation over seeds in percent, and the gain of pretraining in points."""
    rows = []
    for arg, by_start in runs.items():
        top1 = {start: [100 * r.top1 for r in by_start[start]] for start in STARTS}
        row: dict[str, Any] = {"labels": arg.removeprefix("labels=") or "all"}
        for start in STARTS:
            spread = statistics.stdev(top1[start]) if len(top1[start]) > 1 else 0.0
            row[start] = f"{statistics.mean(top1[start]):.1f} ± {spread:.1f}"
        row["gain"] = f"{statistics.mean(top1['pretrained']) - statistics.mean(top1['scratch']):.1f}"
        row["seeds"] = len(top1["scratch"])
        rows.append(row)
    return rows


def plot(path: pathlib.Path, motion: dict[str, dict[str, list[Run]]], weizmann: dict[str, list[Run]]) -> None:
    """Plots accuracy over labels on the motions, and over training updates on Weizmann, for all seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True, layout="constrained")
    counts = [int(arg.removeprefix("labels=")) for arg in motion]
    for i, start in enumerate(STARTS):
        top1 = [[run.top1 for run in by_start[start]] for by_start in motion.values()]
        left.plot(counts, [statistics.mean(x) for x in top1], color=f"C{i}", label=start)
        for count, seeds in zip(counts, top1):
            left.plot([count] * len(seeds), seeds, ".", color=f"C{i}")
        for run in weizmann[start]:
            rows = [r for r in read_metrics(run.workdir) if "video_top1" in r]
            right.plot([r["step"] for r in rows], [r["video_top1"] for r in rows], ".-", color=f"C{i}")
    left.axhline(1 / 12, color="black", linestyle="--", linewidth=1, label="chance")
    right.axhline(1 / 10, color="black", linestyle="--", linewidth=1)
    left.set(title="twelve motions", xlabel="labeled clips", ylabel="test video top-1", ylim=(0, 1))
    left.set_xticks(counts)
    right.set(title="Weizmann, a line for each seed", xlabel="updates")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=("smoke", "cpu", "full"), required=True)
    parser.add_argument("--workdir", type=pathlib.Path, help="runs/mae_SCALE where not given")
    parser.add_argument("--data", nargs="+", choices=("motion", "weizmann"), help="cpu: only this, no files")
    args = parser.parse_args()
    workdir = args.workdir or pathlib.Path(f"runs/mae_{args.scale}")
    if args.scale != "cpu":
        configs = MOTION if args.scale == "smoke" else KINETICS
        smoke = ":smoke" if args.scale == "smoke" else ""
        execute(workdir / "pretrain", configs[0] + smoke)
        start = {"init.path": str((workdir / "pretrain").resolve())}
        run = train(workdir / "finetune", configs[1] + smoke, start)
        print(f"fine-tuned: video top-1 {run.top1:.3f}")
        return

    settings = {
        "motion": (MOTION, [f"labels={n}" for n in LABELS]),
        "weizmann": (WEIZMANN, [""]),
    }
    runs = {}
    for data in args.data or settings:
        configs, budgets = settings[data]
        runs[data] = compare(workdir / data, configs, budgets, SEEDS)
        print(markdown(table(runs[data])))
    if args.data:
        return
    rows = [{"data": data} | row for data, r in runs.items() for row in table(r)]
    save(rows, HERE / "results.csv")
    plot(HERE / "curves.png", runs["motion"], runs["weizmann"][""])
    text = f"{markdown(rows)}\n\n*Measured here*, {machine()}.\n\n![learning curves](curves.png)"
    into_readme(HERE / "README.md", "results", text)


if __name__ == "__main__":
    main()
