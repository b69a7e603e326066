"""Writes the table of preprocessing in docs/preprocessing.md: `python -m vidjax.convert.table`."""

import pathlib
from collections.abc import Mapping
from typing import Any

import vidjax.convert  # noqa: F401  registers the declarations
from vidjax.convert.preprocessing import DECLARED, SSV2_CLASSES, Preprocessing
from vidjax.registry import ModelSpec, spec

START, END = "<!-- made by `python -m vidjax.convert.table` -->", "<!-- end of the table -->"


def table() -> str:
    """Returns a markdown table of all declared preprocessing."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for (origin, name), p in DECLARED.items():
        keys = [(origin, p)]
        if p.ssv2:
            keys.append((f"{origin}, {SSV2_CLASSES} classes", p.of_classes(SSV2_CLASSES)))
        for place, each in keys:
            s = spec(name)
            rows.setdefault((place, *_cells(each, s)), []).append(name)
    lines = [
        "| origin | models | clip | views | resize → crop | mean; deviation | source | not verified |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (origin, *cells), names in sorted(rows.items()):
        lines.append(" | ".join([f"| {origin}", ", ".join(f"`{n}`" for n in sorted(names)), *cells]) + " |")
    return "\n".join(lines)


def _cells(p: Preprocessing, s: ModelSpec) -> tuple[str, ...]:
    sections = p.sections(s)
    data, evals = sections["data"], sections["evals"]["val"]
    if len(s.input_shape) == 3 and not isinstance(s.input_shape, Mapping):
        clip, views = "an image", "1"
    else:
        clip = f"{data['frames']} frames"
        if p.sampling == "window":
            rate = f"{p.target_fps:g} fps" if p.target_fps else "the video's frames"
            clip += f", stride {data['stride']:.4g} of {rate}"
        else:
            clip += " over the whole video"
        clip += f"; {p.short}" + "".join(f"; {k}={v}" for k, v in p.options.items())
        views = f"{evals['clips']}x{evals['crops']}" + (f", {p.starts}" if p.sampling == "window" else "")
    resize = "×".join(map(str, p.resize_to)) if p.resize_to else str(data["short_side"])
    mean, std = (getattr(s if getattr(p, k) is None else p, k) for k in ("mean", "std"))
    return (
        clip,
        views,
        f"{resize} ({p.resize}) → {evals.get('size', data['size'])}",
        f"{_values(mean)}; {_values(std)}",
        p.source,
        p.unverified or "–",
    )


def _values(x: Any) -> str:
    if isinstance(x, Mapping):
        return ", ".join(f"{k} {_values(v)}" for k, v in x.items())
    return f"{x[0]:.4g}" if len(set(x)) == 1 else " ".join(f"{v:.4g}" for v in x)


def main() -> None:
    """Updates the table in docs/preprocessing.md."""
    path = pathlib.Path(__file__).parents[2] / "docs/preprocessing.md"
    before, _, rest = path.read_text().partition(START)
    path.write_text(f"{before}{START}\n{table()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
