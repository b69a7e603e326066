"""Kinetics-400 from the two-stream networks of 2014 to VideoMAE V2: published accuracies, and our configs.

  python experiments/kinetics_progress/run.py --scale cpu

Nothing is trained: accuracies are published, parameters and costs are counted here.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import math
from typing import Any

import vidjax
from experiments.cells import ROOT
from experiments.table import Extra, Table, main, markdown
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.params import count_params
from vidjax.config import load

I3D_TABLE = "arXiv:1705.07750, Table 2"
# Accuracies of networks that have no model here for Kinetics: year, top-1, views, source.
EARLIER = {
    "3D CNN (C3D)": (2014, 56.1, "whole video", I3D_TABLE),
    "CNN + LSTM": (2015, 63.3, "whole video", I3D_TABLE),
    "two-stream, RGB and flow": (2014, 65.6, "whole video", I3D_TABLE),
}
MODELS = {  # model: its config below configs/kinetics400
    "tsn_resnet50": "tsn_resnet50",
    "i3d_inception_rgb": "i3d_inception_rgb",
    "r2plus1d_34": "r2plus1d_34",
    "s3d": "s3d",
    "i3d_nln_r50_8x8": "i3d_nln_r50",
    "tsm_resnet50_8f": "tsm_resnet50_8f",
    "slowfast_r101_16x8": "slowfast:model=slowfast_r101_16x8",
    "csn_ip_152": "csn:model=ip_152",
    "x3d_l": "x3d:model=l",
    "timesformer_l_96x4": "timesformer:variant=l",
    "vivit_l_16x2": "vivit:model=vivit_l_16x2",
    "mvit_v1_b_32x3": "mvit_v1:model=mvit_v1_b_32x3",
    "mvit_v2_l_40x3": "mvit_v2:model=mvit_v2_l_40x3",
    "swin3d_l": "swin3d:model=swin3d_l",
    "mae_st_l": "mae_st_l_finetune",
    "videomae_h": "videomae_h_finetune",
    "videomae_v2_g": "videomae_v2_g_finetune",
}


def plan(name: str) -> str:
    """Returns the updates and the optimizer of a config in a few words."""
    path, _, arg = name.partition(":")
    config = load(str(ROOT / "configs/kinetics400" / f"{path}.py") + (f":{arg}" if arg else ""))
    length = f"{config.epochs:g} epochs" if config.epochs else f"{config.steps:,} updates"
    return f"{length} of {config.batch} clips, {config.optimizer.name}"


def measure() -> list[dict[str, Any]]:
    """Returns the rows in the order of years and accuracies."""
    rows = []
    for label, (year, top1, views, source) in EARLIER.items():
        rows.append({"year": year, "model": label, "published top-1": top1, "views": views, "source": source})
    for name, config in MODELS.items():
        s = vidjax.spec(name)
        best = next(r for r in s.results if r.dataset == "Kinetics-400")
        traced = graph.trace(vidjax.create_model(name), s.input_shape)
        gmacs = jaxpr_cost(traced.jaxpr).macs / 1e9
        views = math.prod(map(int, best.views.split("x"))) if best.views[0].isdigit() else None
        rows.append(
            {
                "year": s.year,
                "model": name,
                "published top-1": best.top1,
                "views": best.views,
                "source": best.source,
                "M parameters": round(count_params(traced.variables["params"]) / 1e6, 1),
                "GMACs per view": round(gmacs, 1),
                "TMACs in all": round(gmacs * views / 1e3, 2) if views else None,
                "config": config,
                "plan": plan(config),
            }
        )
    return sorted(rows, key=lambda r: (r["year"], r["published top-1"]))


def text(rows: list[dict[str, Any]]) -> str:
    columns = [c for c in max(rows, key=len) if c not in ("views", "source")]
    columns[3:3] = ["views"]
    shown = [{c: r.get(c) for c in (*columns, "source")} | {"year": str(r["year"])} for r in rows]
    return f"{markdown(shown)}\n\n![published accuracy over the years](published.png)"


def draw(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Draws accuracy over years, with the cost of all views as the size of a point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(11.5, 5.2), layout="constrained")
    lowest: dict[int, float] = {}  # free height for the next label of a year
    for row in rows:
        year, top1, cost = row["year"], row["published top-1"], row.get("TMACs in all")
        axes.scatter(year, top1, s=20 + 40 * (cost or 0) ** 0.5, alpha=0.6)
        height = max(top1, lowest.get(year, 0.0))
        lowest[year] = height + 0.9
        axes.text(year + 0.2, height, row["model"], fontsize=7, va="center")
    axes.set(ylabel="published Kinetics-400 top-1, %", xlim=(2013.5, 2024.6))
    axes.set_title("area of a point: multiply-adds of all test views (fixed where not counted)", fontsize=9)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


TABLE = Table(pathlib.Path(__file__).parent, extras=(Extra("published", measure, text, draw),))

if __name__ == "__main__":
    main(TABLE)
