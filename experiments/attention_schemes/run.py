"""Compares space-time attention schemes: accuracy, cost, and growth with the length of the clip.

  VIDJAX_DATA=/data python experiments/attention_schemes/run.py            # everything
  python experiments/attention_schemes/run.py --costs                     # no training: costs, growth, counts

Small transformers of one width and depth are trained under one budget on the embedded motions and on
Weizmann. Costs and their growth from 8 to 96 frames are counted at the papers' size (Base, 224x224) and timed
on small models. Writes results.csv, growth.csv, the plots beside this file, and the tables into README.md.
Finished runs under --workdir are not repeated.
"""

import argparse
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
from experiments.common import direction_accuracy, into_readme, machine, markdown, publish, save, train
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.memory import activation_bytes
from vidjax.analysis.params import count_params

HERE = pathlib.Path(__file__).parent
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/attention_schemes"))
    parser.add_argument("--costs", action="store_true", help="do not train")
    parser.add_argument("--data", nargs="+", choices=("motion", "weizmann"), help="only train on this")
    args = parser.parse_args()

    rows = []
    for label, name in SCHEMES.items():
        row: dict[str, Any] = {"scheme": label}
        for data, folder, size in (("motion", "synthetic_motion", 32), ("weizmann", "weizmann", 48)):
            if args.costs or (args.data and data not in args.data):
                continue
            config = f"configs/{folder}/any_model.py:model={name}"
            fields = {f"model.options.{k}": v for k, v in small(name, 8, size).items()}
            run = train(args.workdir / f"{data}_{name}", config, fields | {"optimizer.lr": 1e-3})
            row[f"{data.capitalize()} top-1"] = run.top1
            if data == "motion":
                row["Motion direction"] = direction_accuracy(run.result)
        if not args.data:
            here, paper = cost(name, 8, 32, False), cost(name, 8, 224, True)
            row |= {
                "small: parameters": here["parameters"],
                "MMACs": round(here["macs"] / 1e6, 1),
                "kept KiB": round(here["kept"] / 2**10),
                "step of 16, ms": round(step_ms(name, 8, 32, 16), 1),
                "paper's, 8 frames: GMACs": round(paper["macs"] / 1e9, 1),
                "kept MiB": round(paper["kept"] / 2**20),
            }
        rows.append(row)
    if args.data or args.costs:
        print(markdown(rows))
    if args.data:
        return
    grown = grow()
    save(grown, HERE / "growth.csv")
    plot_growth(grown, HERE / "growth.png")
    counts = pairs()
    share = share_of_attention()
    text = (
        f"{markdown(counts)}\n\nIn the Base model at 16x224x224 the comparisons are {share:.0%} of all MACs; "
        f"the rest are projections and MLPs, whose cost per token is the same in every scheme. So 8 times "
        f"fewer comparisons make the model {1 / (1 - share + share / 8):.2f} times cheaper, not 8 times."
    )
    into_readme(HERE / "README.md", "counts", text)
    ends = [
        {"scheme": label} | {f"{c}, 96 over 8": last[c] / first[c] for c in list(first)[2:]}
        for label in SCHEMES
        for first, *_, last in [[r for r in grown if r["scheme"] == label]]
    ]
    text = f"{markdown(ends)}\n\n*Measured here*, {machine()}.\n\n![growth with frames](growth.png)"
    into_readme(HERE / "README.md", "growth", text)
    if args.costs:
        return
    publish(HERE, rows, {"Motion top-1": 1 / 12, "Motion direction": 0.5, "Weizmann top-1": 0.1})


if __name__ == "__main__":
    main()
