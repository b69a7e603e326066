"""Accuracy and cost of the 3D CNN era: published figures beside costs counted here.

  python experiments/efficient_table/run.py --scale cpu

Nothing is trained: accuracies are published, parameters and costs are counted here.
"""

import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import vidjax
from experiments.table import Extra, Table, main, markdown
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.params import count_params

FAMILIES = {
    "C3D": ["c3d"],
    "I3D": ["i3d_inception_rgb", "i3d_r50_8x8", "i3d_nln_r50_8x8"],
    "R3D": ["r3d_18", "mc3_18"],
    "R(2+1)D": ["r2plus1d_18", "r2plus1d_34", "r2plus1d_r50_16x4"],
    "S3D": ["s3d"],
    "TSM": ["tsm_resnet50_8f", "tsm_resnet50_16f"],
    "Slow": ["slow_r50_8x8"],
    "SlowFast": ["slowfast_r50_4x16", "slowfast_r50_8x8", "slowfast_r101_8x8", "slowfast_r101_16x8"],
    "CSN": ["csn_ir_50", "csn_ir_101", "csn_ir_152", "csn_ip_152"],
    "X3D": ["x3d_xs", "x3d_s", "x3d_m", "x3d_l"],
    "MoViNet": [f"movinet_a{i}_base" for i in range(6)],
}


def measure() -> list[dict]:
    """Returns a row for each model."""
    rows = []
    for family, names in FAMILIES.items():
        for name in names:
            s = vidjax.spec(name)
            g = graph.trace(vidjax.create_model(name), s.input_shape)
            gmacs = jaxpr_cost(g.jaxpr).macs / 1e9
            best = s.results[0] if s.results else None
            views = math.prod(map(int, best.views.split("x"))) if best and best.views[0].isdigit() else None
            rows.append(
                {
                    "family": family,
                    "model": name,
                    "input": "×".join(map(str, s.input_shape)),
                    "parameters": count_params(g.variables["params"]),
                    "GMACs a view": round(gmacs, 2),
                    "views": best.views if best else None,
                    "GMACs in all": round(gmacs * views, 1) if views else None,
                    "published top-1": best.top1 if best else None,
                    "on": best.dataset if best else None,
                    "source": best.source if best else None,
                }
            )
    return rows


def text(rows: list[dict]) -> str:
    return f"{markdown(rows)}\n\n![published accuracy over counted cost](published.png)"


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Draws published top-1 over the counted cost of one view; a line joins models of one recipe."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    for i, family in enumerate(FAMILIES):
        points = [r for r in rows if r["family"] == family and r["published top-1"]]
        points.sort(key=lambda r: r["GMACs a view"])
        on = {r["on"] for r in points}
        alike = len({(r["source"].split(",")[0], r["views"]) for r in points}) == 1
        axes.plot(
            [r["GMACs a view"] for r in points],
            [r["published top-1"] for r in points],
            ("o" if on == {"Kinetics-400"} else "s") + ("-" if alike else ""),
            color=f"C{i % 10}" if i < 10 else "black",
            label=family + ("" if on == {"Kinetics-400"} else f" ({', '.join(on)})"),
            markersize=5,
        )
    axes.set(
        xscale="log",
        xlabel="GMACs of one view, counted here",
        ylabel="published top-1, %, Kinetics-400 unless noted",
    )
    axes.legend(fontsize=8, ncols=2, loc="lower left")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


TABLE = Table(pathlib.Path(__file__).parent, extras=(Extra("published", measure, text, draw),))

if __name__ == "__main__":
    main(TABLE)
