"""Generates the table of models in the README from the registry."""

import pathlib

import vidjax.models  # noqa: F401  registers them
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.params import count_params
from vidjax.registry import ModelSpec, create_model, list_models, shape_text, spec

START = "<!-- zoo: made by `python -m vidjax.analysis.zoo` -->"
END = "<!-- end of zoo -->"


def zoo_table() -> str:
    """Returns a Markdown table of registered models, with counts of this code and published accuracies."""
    rows = [
        "| model | paper | input | time | parameters | GMACs | published top-1 | weights from |",
        "|---|---|---|---|--:|--:|---|---|",
    ]
    for name in list_models():
        g = graph.trace(create_model(name), spec(name).input_shape)
        rows.append(row(name, count_params(g.variables["params"]), jaxpr_cost(g.jaxpr).macs / 1e9))
    return "\n".join(rows)


def row(name: str, params: int, gmacs: float) -> str:
    """Returns one row of the table."""
    s = spec(name)
    cells = [
        f"`{name}`",
        _paper(s),
        shape_text(s.input_shape).replace("x", "×"),
        s.temporal,
        f"{params:,}",
        f"{gmacs:.2f}",
        "; ".join(f"{r.top1} ({r.dataset}, {r.views})" for r in s.results) or "–",
        s.weights or "–",
    ]
    return f"| {' | '.join(cells)} |"


def _paper(s: ModelSpec) -> str:
    return f"[{s.year}](https://arxiv.org/abs/{s.arxiv})" if s.arxiv else str(s.year)


def update(text: str) -> str:
    """Returns the text of the README with its table regenerated."""
    head, rest = text.split(START)
    _, tail = rest.split(END)
    return f"{head}{START}\n{zoo_table()}\n{END}{tail}"


if __name__ == "__main__":
    readme = pathlib.Path(__file__).parents[2] / "README.md"
    readme.write_text(update(readme.read_text()))
