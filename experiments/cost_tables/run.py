"""Recomputes the cost tables of lectures and papers and compares them with the published figures.

  python experiments/cost_tables/run.py

Prints the tables and writes results.csv beside this file. Everything is traced on shapes, except the
measured receptive fields of a small model.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Iterator

import jax
from rich.console import Console
from rich.table import Table

from vidjax.analysis.graph import trace
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.params import abstract_variables, count_params
from vidjax.analysis.receptive_field import computed, measured
from vidjax.layers.conv import Conv
from vidjax.models import create_model, list_models, spec

RESULTS = pathlib.Path(__file__).with_name("results.csv")
LECTURE, REFERENCE = "lecture", "reference implementation"


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure, counted and published, compared within the rounding of the latter."""

    table: str
    item: str
    quantity: str
    ours: str
    published: str
    source: str
    note: str = ""


def fusion_fields() -> Iterator[Row]:
    """Receptive fields T x H x W of the three fusions for a clip of 20 frames at 64 x 64."""
    lecture = {
        "late_fusion": ("1x3x3", "1x6x6", "1x14x14", "20x64x64"),
        "early_fusion": ("20x3x3", "20x6x6", "20x14x14", "20x64x64"),
        "conv3d": ("3x3x3", "6x6x6", "14x14x14", "20x64x64"),
    }
    stages = {"stem": "conv1", "stage1": "pool1", "stage2": "conv2", "pre_logits": "global pool"}
    for kind, published in lecture.items():
        name = f"lecture_{kind}"
        model, shape = create_model(name), spec(name).input_shape
        graph, seen = computed(model, shape), measured(model, shape)
        for (stage, shown), expected in zip(stages.items(), published, strict=True):
            both = ["x".join(str(last - first + 1) for first, last in f[stage]) for f in (graph, seen)]
            note = "computed and measured" if both[0] == both[1] else f"measured {both[1]}"
            yield Row("fusion: receptive field", name, shown, both[0], expected, LECTURE, note)


def kernel_params() -> Iterator[Row]:
    """Parameters of single convolutions."""

    def params(window: tuple[int, ...], channels: int, features: int) -> int:
        layer = Conv(features, window)
        return count_params(abstract_variables(layer, (*(4,) * len(window), channels))["params"])

    def factorized(middle: int) -> int:
        return params((1, 3, 3), 64, middle) + params((3, 1, 1), middle, 64)

    for item, ours, published in (
        ("2D 3x3, 64 to 128", params((3, 3), 64, 128), 73_728),
        ("3D 3x3x3, 64 to 128", params((3, 3, 3), 64, 128), 221_184),
        ("3D 3x3x3, 64 to 64", params((3, 3, 3), 64, 64), 110_592),
        ("(2+1)D, 64 to 64, M = 64", factorized(64), 49_152),
        ("(2+1)D, 64 to 64, M = 144", factorized(144), 110_592),
    ):
        yield Row("kernels: parameters", item, "parameters", f"{ours:,}", f"{published:,}", LECTURE)


def data_sizes() -> Iterator[Row]:
    """Bytes of raw video."""
    minute, clip = 1920 * 1080 * 3 * 30 * 60, 16 * 3 * 112 * 112
    yield Row("data", "HD 1920x1080x3 at 30 fps", "a minute", f"{minute / 1e9:.1f} GB", "11.2 GB", LECTURE)
    yield Row(
        "data", "16x3x112x112 uint8", "a clip", f"{clip / 1024:.0f} KB", "588 KB", LECTURE, "KB = 1024 B"
    )


def c3d_stages() -> Iterator[Row]:
    """GMACs of each layer of C3D for 16 x 112 x 112."""
    published = {
        "stem_conv": "1.04",
        "stage2_conv0": "11.10",
        "stage3_conv0": "5.55",
        "stage3_conv1": "11.10",
        "stage4_conv0": "2.77",
        "stage4_conv1": "5.55",
        "stage5_conv0": "0.69",
        "stage5_conv1": "0.69",
    }
    shape = spec("c3d").input_shape
    graph = trace(create_model("c3d", 400), shape)
    gmacs = {k: n / 1e9 for k, n in jaxpr_cost(graph.jaxpr).by_module().items() if n}
    table = "C3D: GMACs"
    for name, figure in published.items():
        yield Row(table, name, "GMACs", f"{gmacs[name]:.2f}", figure, LECTURE)
    fc = sum(n for k, n in gmacs.items() if k.startswith(("fc", "head")))
    total = sum(gmacs.values())
    yield Row(table, "all convolutions", "GMACs", f"{total - fc:.3f}", "38.497", LECTURE)
    why = "the often quoted total takes them for 1.0"
    yield Row(table, "fc6 + fc7 + head", "GMACs", f"{fc:.3f}", "0.052", LECTURE, why)
    yield Row(table, "all", "GMACs", f"{total:.3f}", "38.549", LECTURE, "often quoted: 39.5 = 38.5 + 1.0")
    for classes, figure in ((400, 79_634_576), (487, 79_991_015), (101, 78_409_573)):
        ours = count_params(abstract_variables(create_model("c3d", classes), shape)["params"])
        yield Row(
            "C3D: parameters", f"{classes} classes", "parameters", f"{ours:,}", f"{figure:,}", REFERENCE
        )


def models() -> Iterator[Row]:
    """Registered models whose figures are published."""
    table = "models: published figures"
    for s in map(spec, list_models()):
        if not s.params and not s.gmacs:
            continue
        graph = trace(create_model(s.name), s.input_shape)
        if s.params:
            ours = f"{count_params(graph.variables['params']):,}"
            yield Row(table, s.name, "parameters", ours, f"{s.params:,}", s.weights)
        if s.gmacs:
            digits = len(str(s.gmacs).partition(".")[2])
            ours = f"{jaxpr_cost(graph.jaxpr).macs / 1e9:.{digits}f}"
            yield Row(table, s.name, "GMACs", ours, str(s.gmacs), s.weights)


def rows() -> list[Row]:
    """All tables."""
    return [r for part in (fusion_fields, kernel_params, data_sizes, c3d_stages, models) for r in part()]


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    found = rows()
    with RESULTS.open("w", newline="") as f:
        writer = csv.DictWriter(f, [x.name for x in dataclasses.fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(dataclasses.asdict, found))
    console = Console(soft_wrap=True, highlight=False)
    console.print("GMACs are 1e9 multiply-adds; FLOPs are twice as many.")
    for name in dict.fromkeys(r.table for r in found):
        table = Table("", "", "ours", "published", "", title=name, title_justify="left", box=None)
        for r in found:
            if r.table == name:
                same = r.note if r.ours == r.published else f"DIFFERS {r.note}"
                table.add_row(r.item, r.quantity, r.ours, r.published, same)
        console.print(table)
    differ = sum(r.ours != r.published for r in found)
    console.print(f"{len(found) - differ} of {len(found)} figures are as published; written to {RESULTS}")


if __name__ == "__main__":
    main()
