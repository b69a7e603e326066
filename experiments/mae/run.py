"""Does masked pretraining help where labels are few? Both stages, several seeds, one table.

  VIDJAX_DATA=/data python experiments/mae/run.py --scale cpu     # embedded motions, Weizmann
  python experiments/mae/run.py --scale smoke                     # do both stages run?
  VIDJAX_DATA=/data python experiments/mae/run.py --scale full    # ViT-B, Kinetics-400: accelerators

Pretrains without labels, then fine-tunes from that and trains the same network from scratch, for each number
of labels and seed. Scale cpu writes results.csv and the plots beside this file, and the table into README.md.
Finished runs under --workdir are not run again.
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
    """Runs of each argument of the fine-tuning config, by start, a run for each seed."""
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
    """Mean and deviation over seeds in percent, and what pretraining adds, in points."""
    rows = []
    for arg, by_start in runs.items():
        top1 = {start: [100 * r.top1 for r in by_start[start]] for start in STARTS}
        row: dict[str, Any] = {"labels": arg.removeprefix("labels=") or "all"}
        for start in STARTS:
            spread = statistics.stdev(top1[start]) if len(top1[start]) > 1 else 0.0
            row[start] = f"{statistics.mean(top1[start]):.1f} ± {spread:.1f}"
        row["gain"] = round(statistics.mean(top1["pretrained"]) - statistics.mean(top1["scratch"]), 1)
        row["seeds"] = len(top1["scratch"])
        rows.append(row)
    return rows


def plot_curves(path: pathlib.Path, runs: dict[str, dict[str, dict[str, list[Run]]]]) -> None:
    """Training accuracy and test accuracy over updates, a panel for each setting."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(f"{data}, {arg or 'all labels'}", by) for data, r in runs.items() for arg, by in r.items()]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.6 * len(panels), 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (title, by_start) in zip(axes[0], panels):
        for i, start in enumerate(STARTS):
            for j, run in enumerate(by_start[start]):
                rows = read_metrics(run.workdir)
                tested = [r for r in rows if "video_top1" in r]
                axis.plot(
                    [r["step"] for r in tested],
                    [r["video_top1"] for r in tested],
                    color=f"C{i}",
                    marker=".",
                    alpha=0.8,
                    label=start if j == 0 else None,
                )
        axis.set(title=title, xlabel="updates", ylim=(0, 1))
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("test video top-1, a line for each seed")
    axes[0][0].legend(fontsize=8)
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
    plot_curves(HERE / "curves.png", runs)
    text = f"{markdown(rows)}\n\n*Measured here*, {machine()}.\n\n![learning curves](curves.png)"
    into_readme(HERE / "README.md", "results", text)


if __name__ == "__main__":
    main()
