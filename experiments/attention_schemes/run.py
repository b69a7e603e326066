"""Space-time attention schemes: accuracy, cost, and growth with the length of the clip.

  python experiments/attention_schemes/run.py --scale cpu
  python experiments/attention_schemes/run.py --scale cpu --extras     # counts and growth, without training

Small transformers of one width and depth on the embedded motions. Costs and their growth from 8 to 96 frames
are counted at the papers' size (Base, 224x224) and timed on small models.
"""

import functools
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import jax

import vidjax
from experiments.cells import Converted, Train
from experiments.small import MOTION, motion, options
from experiments.table import Column, Extra, Row, Table, main, markdown, top1
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.memory import activation_bytes
from vidjax.analysis.params import count_params

FRAMES = (8, 16, 32, 64, 96)
VIT = dict(width=48, depth=3, heads=4, mlp_width=192)
# label: model
SCHEMES = {
    "space only (TimeSformer)": "timesformer_b_8x32_space",
    "joint (TimeSformer)": "timesformer_b_8x32_joint",
    "divided (TimeSformer)": "timesformer_b_8x32",
    "local-global (TimeSformer)": "timesformer_b_8x32_local_global",
    "axial (TimeSformer)": "timesformer_b_8x32_axial",
    "1: joint (ViViT)": "vivit_b_16x2",
    "2: factorized encoder (ViViT)": "vivit_b_16x2_fe",
    "3: factorized attention (ViViT)": "vivit_b_16x2_fsa",
    "4: factorized heads (ViViT)": "vivit_b_16x2_fdp",
    "joint, mean of tokens (VideoMAE's)": "videomae_b",
    "sliding window in time (VTN)": "vtn_vit_b_16",
    "pooled (MViT)": "mvit_v1_b_16x4",
    "pooled, relative (MViTv2)": "mvit_v2_s_16x4",
    "shifted windows (Video Swin)": "swin3d_t",
}

FULL = {  # model: its config
    **{f"vivit_b_16x2{k}": f"vivit.py:model=vivit_b_16x2{k}" for k in ("", "_fe", "_fsa", "_fdp")},
    "timesformer_b_8x32": "timesformer.py",
    **{
        f"timesformer_b_8x32_{k}": f"timesformer.py:variant={k}"
        for k in ("space", "joint", "local_global", "axial")
    },
    "videomae_b": "videomae_b_finetune.py",
    "vtn_vit_b_16": "vtn.py",
    "mvit_v1_b_16x4": "mvit_v1.py",
    "mvit_v2_s_16x4": "mvit_v2.py",
    "swin3d_t": "swin3d.py",
}


def small(name: str, frames: int, size: int) -> dict[str, Any]:
    """Returns the small preset's fields for clips of `frames` x `size` x `size`; patches are about 8x8."""
    family = vidjax.spec(name).family
    if family == "timesformer":
        return VIT | dict(frames=frames, size=size, patch=8)
    if family == "vivit":
        time_depth = dict(time_depth=1) if name.endswith("_fe") else {}
        return VIT | dict(frames=frames, size=size, patch=8) | time_depth
    if family == "videomae":
        return VIT | dict(patch=(2, 8, 8))
    if family == "vtn":  # the last of the three layers is over time
        trunk = VIT | dict(depth=2, patch=8, position_grid=(size // 8,) * 2)
        layers = dict(depth=1, heads=4, mlp_width=192, window=8, positions=frames + 2, initializer_range=0.08)
        return layers | dict(trunk_options=trunk)
    if family == "mvit":
        return dict(clip=(frames, size, size), width=32, depth=3, stages=(1,), stride_kv=(1, 2, 2))
    return dict(width=32, depths=(2, 2), heads=(2, 4), window=(4, 4, 4))


def base(name: str, frames: int) -> dict[str, Any]:
    """Returns the fields of the paper's model for clips of `frames` x 224 x 224."""
    family = vidjax.spec(name).family
    if family in ("timesformer", "vivit"):
        return dict(frames=frames)
    return dict(clip=(frames, 224, 224)) if family == "mvit" else {}


@functools.cache
def cost(name: str, frames: int, size: int, paper: bool) -> dict[str, float]:
    """Counts parameters, MACs and saved activations in bytes of a clip, without computing anything."""
    model = create(name, frames, size, paper)
    traced = graph.trace(model, (frames, size, size, 3))
    return {
        "parameters": count_params(traced.variables["params"]),
        "macs": jaxpr_cost(traced.jaxpr).macs,
        "kept": activation_bytes(model, (frames, size, size, 3), variables=traced.variables),
    }


def create(name: str, frames: int, size: int, paper: bool) -> Any:
    if paper:
        return vidjax.create_model(name, 400, **base(name, frames))
    return vidjax.create_model(name, 12, tiny=True, **small(name, frames, size))


def step_ms(name: str, frames: int, size: int, batch: int, rounds: int = 5) -> float:
    """Measures the median time of loss and gradient of a small model, in milliseconds."""
    model = create(name, frames, size, False)
    video = jax.random.normal(jax.random.key(0), (batch, frames, size, size, 3))
    variables = jax.jit(model.init)(jax.random.key(1), video)

    @jax.jit
    def step(variables: Any, video: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            rngs = {"dropout": jax.random.key(2)}
            logits, _ = model.apply({**variables, "params": params}, video, train=True, rngs=rngs)
            return -jax.nn.log_softmax(logits)[:, 0].mean()

        return jax.value_and_grad(loss)(variables["params"])

    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        jax.block_until_ready(step(variables, video))
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[1:])


def pairs(frames: int = 8, side: int = 14, window: int = 32) -> list[dict[str, Any]]:
    """Counts tokens and comparisons of one attention layer for a clip of frames x side x side tokens.

    A comparison is one query with one key. Class tokens are left out.
    """
    n, s = frames * side * side, side * side
    half = (side // 2) ** 2
    count = {
        "joint": n * n,
        "space only, and factorized heads' half in space": n * s,
        "divided: time, then space": n * (frames + s),
        "local-global: a quarter of each frame, then every second token along each axis": n
        * (frames * half + frames // 2 * half),
        "axial: time, width, height": n * (frames + 2 * side),
        "factorized encoder: each slice by itself": n * s,
        "windows of 8x7x7 (Video Swin)": n * min(8, frames) * 49,
        f"sliding window of {window} over frames (VTN), besides space only": n * s + frames * (window + 1),
    }
    return [
        {"attention": k, "tokens": n, "comparisons": v, "joint has so many times more": round(n * n / v, 2)}
        for k, v in count.items()
    ]


def share_of_attention(frames: int = 16) -> float:
    """Returns the share of comparisons (scores and sums of values) in the MACs of the joint model."""
    n, width, depth = frames // 2 * 196, 768, 12
    return 2 * n * n * width * depth / cost("videomae_b", frames, 224, True)["macs"]


def grow() -> list[dict[str, Any]]:
    rows = []
    for label, name in SCHEMES.items():
        for frames in FRAMES:
            at = cost(name, frames, 224, True)
            row = {
                "scheme": label,
                "frames": frames,
                "GMACs": at["macs"] / 1e9,
                "kept MiB": at["kept"] / 2**20,
                "small step, ms": step_ms(name, frames, 64, 1, 3),
            }
            rows.append(row)
            print(row, flush=True)
    return rows


def plot_growth(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """Plots each quantity over frames on log-log axes, one line per scheme."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = [c for c in rows[0] if c not in ("scheme", "frames")]
    figure, panels = plt.subplots(1, len(columns), figsize=(4.6 * len(columns), 4.6), layout="constrained")
    for panel, column in zip(panels, columns):
        for i, label in enumerate(SCHEMES):
            mine = [r for r in rows if r["scheme"] == label]
            style = ("-", "--", ":")[i // 5]
            panel.plot([r["frames"] for r in mine], [r[column] for r in mine], style, marker=".", label=label)
        panel.set(xscale="log", yscale="log", xlabel="frames", title=column)
        panel.set_xticks(FRAMES, [str(f) for f in FRAMES])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"written: {path}")


def cell(name: str) -> Train:
    """Returns the cell of a scheme's small model on the embedded motions, with twice the usual updates."""
    return motion(name, {"epochs": 5.0} | options(**small(name, 8, 32)))


def full(name: str) -> Train:
    """Returns the cell of the paper's recipe, which starts from an image ViT or Swin where it does there."""
    family = vidjax.spec(name).family
    weights = {
        **dict.fromkeys(("timesformer", "vivit", "vtn"), "vit_b_16.timm"),
        "video_swin": "swin3d_t.swin",
    }
    start = Converted(weights[family]) if family in weights else None
    if name == "videomae_b":
        start = Train("configs/kinetics400/videomae_b_pretrain.py", tuned=False)
    return Train(f"configs/kinetics400/{FULL[name]}", start=start, tuned=False)


def facts(name: str) -> dict[str, Any]:
    """Returns the counted costs of the small model and of the paper's."""
    here, paper = cost(name, 8, 32, False), cost(name, 8, 224, True)
    return {
        "small: parameters": here["parameters"],
        "MMACs": round(here["macs"] / 1e6, 1),
        "paper's, 8 frames: GMACs": round(paper["macs"] / 1e9, 1),
        "saved for the backward pass, MiB": round(paper["kept"] / 2**20),
    }


def count() -> dict[str, Any]:
    return {"rows": pairs(), "share": share_of_attention()}


def counts_text(counts: dict[str, Any]) -> str:
    share = counts["share"]
    gain = 1 / (1 - share + share / 8)
    return (
        f"{markdown(counts['rows'])}\n\nIn the Base model at 16x224x224 the comparisons are {share:.0%} of "
        "all MACs; the rest are projections and MLPs, whose cost per token is the same in every scheme. So 8 "
        f"times fewer comparisons make the model {gain:.2f} times cheaper, not 8 times."
    )


def growth_text(rows: Sequence[dict[str, Any]]) -> str:
    ends = [
        {"scheme": label} | {f"{c}, 96 over 8": round(last[c] / first[c], 1) for c in list(first)[2:]}
        for label in SCHEMES
        for first, *_, last in [[r for r in rows if r["scheme"] == label]]
    ]
    return f"{markdown(ends)}\n\n*Measured here* (time) and counted.\n\n![growth with frames](growth.png)"


TABLE = Table(
    pathlib.Path(__file__).parent,
    [
        Row(
            label,
            {"motion": cell(name)},
            {"kinetics400": full(name)},
            functools.partial(facts, name),
        )
        for label, name in SCHEMES.items()
    ],
    columns=MOTION,
    full=(Column("Kinetics-400 top-1", "kinetics400", top1),),
    smoke=("1: joint (ViViT)",),
    first="scheme",
    quoted=("joint (TimeSformer)", "divided (TimeSformer)", "1: joint (ViViT)", "pooled (MViT)"),
    extras=(Extra("counts", count, counts_text), Extra("growth", grow, growth_text, plot_growth)),
)

if __name__ == "__main__":
    main(TABLE)
