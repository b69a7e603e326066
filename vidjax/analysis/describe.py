"""Description of a registered model and its computational cost, as data and as formatted text."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vidjax.analysis import graph
from vidjax.analysis.clips import check_endpoints, check_patches, refusing
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.memory import activation_bytes, compiled_bytes
from vidjax.analysis.params import count_params, params_by_module
from vidjax.analysis.receptive_field import receptive_fields
from vidjax.errors import UserError
from vidjax.registry import InputShape, ModelSpec, create_model, shape_text, spec

LARGEST = 2**13  # frames, size and depth
CONVENTION = "1 MAC = 1 multiply-add of a convolution, matrix product or attention; FLOPs = 2 x MACs"
NOT_COMPILED = "not measured: --memory compiles a training step (seconds to minutes)"


def spec_row(s: ModelSpec) -> dict[str, Any]:
    """Returns the published facts about a model, ready for JSON."""
    return {
        "name": s.name,
        "family": s.family,
        "paper": s.paper,
        "year": s.year,
        "arxiv": s.arxiv,
        "temporal": s.temporal,
        "order_aware": s.order_aware,
        "input_shape": _listed(s.input_shape),
        "num_classes": s.num_classes,
        "published_params": s.params,
        "published_gmacs": s.gmacs,
        "published_results": [vars(r) for r in s.results],
        "weights": s.weights,
        "licence": s.licence,
    }


def clip_seconds(frames: int, stride: float, fps: float) -> float:
    """Returns the duration of a clip in seconds: `frames` frames, `stride` apart, at `fps` frames/s."""
    return frames * stride / fps


def describe(
    name: str,
    *,
    frames: int | None = None,
    size: int | None = None,
    num_classes: int | None = None,
    depth: int = 1,
    memory: bool = False,
) -> dict[str, Any]:
    """Describes a model and its cost for one input, ready for JSON; `page` formats it as text.

    Args:
      name: a registered name.
      frames, size: number of frames, and height and width; default to those of the published input.
      num_classes: number of classes; defaults to the published number.
      depth: depth of the module names to list.
      memory: whether to include the memory with rematerialization, and that of a compiled training step.

    Raises:
      UserError: the name is unknown, or the model does not accept the input.
    """
    s = spec(name)
    for what, n in (("frames", frames), ("size", size), ("depth", depth)):
        if n is not None and not 1 <= n <= LARGEST:
            raise UserError(f"{what} must be at least 1 and at most {LARGEST:,}, got {n}")
    shape = _input_shape(s, frames, size)
    model = create_model(name, num_classes)
    check_patches(name, model, shape)
    refusal = f"{name} does not take an input of {shape_text(shape)}"
    with refusing(refusal):
        g = graph.trace(model, shape)
    check_endpoints(refusal, {k: g.shape(k) for k in g.endpoints})
    cost, params = jaxpr_cost(g.jaxpr), g.variables["params"]
    modules, by_module = cost.by_module(depth), params_by_module(params, depth)
    # Token-based models have an endpoint "tokens", [B, N, D]; earlier stages may have more tokens.
    tokens = None
    if "tokens" in g.endpoints:
        sequences = [g.shape(k) for k in g.endpoints if k.startswith("stage") or k == "tokens"]
        tokens = sorted({shape[1] for shape in sequences if len(shape) == 3}, reverse=True)
    row = spec_row(s) | {
        "input_shape": _listed(shape),
        "published_input_shape": _listed(s.input_shape),
        "num_classes": model.num_classes,
        "published_num_classes": s.num_classes,
        "convention": CONVENTION,
        "params": count_params(params),
        "params_by_module": by_module,
        "gmacs": cost.macs / 1e9,
        "gmacs_by_module": {k: n / 1e9 for k, n in modules.items() if n or k in by_module},
        "elementwise": dict(cost.elementwise),
        "uncounted": dict(cost.uncounted) | ({"loops of unknown length": cost.loops} if cost.loops else {}),
        "tokens": tokens,
        "stride": s.stride,
        "fps": s.fps,
        "clip_seconds": clip_seconds(shape[0], s.stride, s.fps) if s.fps and len(shape) == 4 else None,
        "receptive_field": {}
        if isinstance(shape, Mapping) or s.streams == ("features",)
        else {
            k: {"shape": list(g.shape(k)[1:]), "clipped": list(f.clipped), "unclipped": f.unclipped}
            for k, f in receptive_fields(model, shape, g, unclipped=tokens is None).items()
        },
        "activation_bytes": activation_bytes(model, shape, variables=g.variables),
        "activation_bytes_remat": None,
        "compiled_bytes": None,
        "compiled_bytes_remat": None,
        "compiled_for": NOT_COMPILED,
    }
    if memory:
        row["activation_bytes_remat"] = activation_bytes(model, shape, remat=True, variables=g.variables)
        row["compiled_bytes"] = compiled_bytes(model, shape)
        row["compiled_bytes_remat"] = compiled_bytes(model, shape, remat=True)
        row["compiled_for"] = jax.default_backend()
    return row


def _listed(shape: InputShape) -> Any:
    return {k: list(v) for k, v in shape.items()} if isinstance(shape, Mapping) else list(shape)


def _input_shape(s: ModelSpec, frames: int | None, size: int | None) -> InputShape:
    if isinstance(s.input_shape, Mapping):
        if frames is not None:
            raise UserError(f"{s.name} has several streams, whose numbers of frames cannot be set by frames")
        return {k: (t, size or h, size or w, c) for k, (t, h, w, c) in s.input_shape.items()}
    if s.streams == ("features",) and (frames or size):
        raise UserError(f"{s.name} takes cached features: it has neither frames nor a size")
    *axes, channels = s.input_shape
    if frames is not None:
        if len(axes) == 2:
            raise UserError(f"{s.name} is an image model: it has no number of frames")
        axes[0] = frames
    if size is not None:
        axes[-2:] = size, size
    return (*axes, channels)


def page(row: dict[str, Any]) -> Group:
    """Formats the result of `describe` as text and tables for a `rich` console."""
    fields = (Text(), _fields(row)) if row["receptive_field"] else ()
    return Group(*_lines(row), Text(), _modules(row), *fields)


def _lines(row: dict[str, Any]) -> Iterator[Text]:
    yield Text(
        f"{row['name']}: {row['paper']} ({row['year']}{', arXiv:' * bool(row['arxiv'])}{row['arxiv']})"
    )
    as_published = row["num_classes"] == row["published_num_classes"]
    same_input = as_published and row["input_shape"] == row["published_input_shape"]
    size = lambda key: f"{row[key] / 1e6:,.1f} MB"  # noqa: E731
    saved, compiled = (
        f"{size('activation_bytes')} saved for the backward pass of one input",
        row["compiled_for"],
    )
    if row["compiled_bytes"]:
        saved += f"; {size('activation_bytes_remat')} with remat of each block"
        compiled = f"{size('compiled_bytes')}, with remat {size('compiled_bytes_remat')}, for {compiled}"
    facts = {
        "temporal": row["temporal"],
        "input": shape_text(row["input_shape"]),
        "clip": _clip(row) if row["clip_seconds"] else "",
        "classes": row["num_classes"],
        "parameters": f"{row['params']:,}" + _published(row["published_params"], as_published, ",d"),
        "GMACs": f"{row['gmacs']:.5g}" + _published(row["published_gmacs"], same_input, "g"),
        "convention": row["convention"],
        "other work": ", ".join(f"{k} {n / 1e6:.1f} M" for k, n in row["elementwise"].items()),
        "not counted": ", ".join(f"{k} ({n})" for k, n in row["uncounted"].items()),
        "tokens": ", then ".join(map(str, row["tokens"] or ["none: not a token-based model"])),
        "field": _field_note(row),
        "activations": saved,
        "compiled": compiled,
        "weights": row["weights"],
        "licence": row["licence"],
    }
    for key, value in facts.items():
        if value:
            yield Text(f"{key:13}{value}")
    for r in row["published_results"]:
        scores = f"{r['dataset']} top-1 {r['top1']}, top-5 {r['top5']}, views {r['views']}"
        yield Text(f"{'published':13}{scores} ({r['source']})")


def _field_note(row: dict[str, Any]) -> str:
    """Returns the remarks below the table of receptive fields."""
    if isinstance(row["input_shape"], Mapping):
        return "differs by stream: describe the model of a single stream"
    if row["tokens"]:
        return "not computed for an unbounded input: the cost of attention is quadratic"
    if any("past" in (f["unclipped"] or ()) for f in row["receptive_field"].values()):
        return "past: this frame and all earlier frames"
    return ""


def _clip(row: dict[str, Any]) -> str:
    frames = row["input_shape"][0]
    return f"{row['clip_seconds']:.2f} s: {frames} frames, stride {row['stride']:g}, {row['fps']:g} fps"


def _published(value: float | None, comparable: bool, kind: str) -> str:
    return f"  (published: {value:{kind}})" if value and comparable else ""


def _modules(row: dict[str, Any]) -> Table:
    table = Table("module", box=None, pad_edge=False, title_justify="left", header_style="bold")
    for heading in ("parameters", "GMACs", "share"):
        table.add_column(heading, justify="right")
    params, gmacs = row["params_by_module"], row["gmacs_by_module"]
    for name in [*gmacs, *(k for k in params if k not in gmacs)]:
        g = gmacs.get(name, 0.0)
        table.add_row(name, f"{params.get(name, 0):,}", f"{g:.4f}", f"{g / max(row['gmacs'], 1e-12):.1%}")
    return table


def _fields(row: dict[str, Any]) -> Table:
    axes = "TxHxW" if len(row["input_shape"]) == 4 else "HxW"
    headings = ("stage", "output", f"receptive field {axes}", "in an unbounded input")
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for name, f in row["receptive_field"].items():
        free = _times(f["unclipped"]) if f["unclipped"] else "not computed"
        table.add_row(name, _times(f["shape"]), _times(f["clipped"]), free)
    return table


def _times(shape: list[int | None]) -> str:
    if all(n is None for n in shape):
        return "all"
    return "x".join("all" if n is None else str(n) for n in shape)
