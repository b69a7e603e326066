"""Rebuilds the tables of all experiments from their results, and one HTML page.

  python -m experiments.collect              # READMEs, plots, docs/results.md and runs/results.html

Nothing is trained: this reads results/*.json of each experiment, see `experiments.table`.
"""

import argparse
import base64
import importlib
import pathlib
import re

import jinja2
from markdown_it import MarkdownIt

from experiments.cells import ROOT
from experiments.table import Table, into_readme, render, saved, text_of, values_of

HERE = pathlib.Path(__file__).parent
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vidjax: results</title>
<style>
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 74rem; padding: 2rem 1.2rem; font: 15px/1.55 system-ui, sans-serif; }
p, pre, ul { max-width: 52rem; }
table { border-collapse: collapse; font-size: .87rem; display: block; overflow-x: auto; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8884; }
pre { overflow-x: auto; background: #8882; padding: .6rem; }
img { max-width: 100%; background: white; }
section { margin-top: 3rem; border-top: 1px solid #8886; }
nav a { display: block; }
</style>
<h1>vidjax: results</h1>
<nav>{% for name, title, _ in sections %}<a href="#{{ name }}">{{ title }}</a>{% endfor %}</nav>
{% for name, _, body in sections %}<section id="{{ name }}">{{ body | safe }}</section>
{% endfor %}"""


def tables() -> dict[str, Table]:
    """Returns the tables of all experiments by the name of their folder."""
    names = sorted(p.parent.name for p in HERE.glob("*/run.py"))
    modules = {name: importlib.import_module(f"experiments.{name}.run") for name in names}
    return {name: module.TABLE for name, module in modules.items() if hasattr(module, "TABLE")}


def title(readme: pathlib.Path) -> str:
    """Returns the heading of a README."""
    return readme.read_text().partition("\n")[0].removeprefix("# ")


def quote(table: Table) -> str:
    """Returns a row of docs/results.md: the experiment, its command, and what its first column measured."""
    results, found = (
        saved(table, "cpu"),
        "not measured yet" if table.rows else "published figures, counted costs",
    )
    if results:
        column, rows = results["columns"][0], {r["label"]: r for r in results["rows"]}
        parts = [f"{k} {text_of(values_of(rows[k], column), column['percent'])}" for k in table.quoted]
        chance = f"; chance {100 * column['chance']:.1f}" if column["chance"] else ""
        found = f"{column['name']}: {', '.join(parts)}{chance} ({results['date']})"
    link = f"[{title(table.folder / 'README.md')}](../experiments/{table.name})"
    return f"| {link} | `python experiments/{table.name}/run.py --scale cpu` | {found} |"


def page() -> str:
    """Returns the HTML page with the READMEs of all experiments and their plots."""
    sections = []
    for readme in sorted(HERE.glob("*/README.md")):

        def embed(image: re.Match[str], folder: pathlib.Path = readme.parent) -> str:
            return (
                f'src="data:image/png;base64,{base64.b64encode((folder / image[1]).read_bytes()).decode()}"'
            )

        body = MarkdownIt("commonmark").enable("table").render(readme.read_text())
        body = re.sub(r'src="([\w.]+\.png)"', embed, body)
        sections.append((readme.parent.name, title(readme), re.sub(r"<!--.*?-->\n?", "", body)))
    return jinja2.Environment(autoescape=True).from_string(PAGE).render(sections=sections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs" / "results.html", help="the page")
    args = parser.parse_args()
    found = tables()
    for table in found.values():
        render(table)
    lines = ["| experiment, and its plan at full scale | command | measured here, % |", "|---|---|---|"]
    into_readme(ROOT / "docs" / "results.md", "experiments", "\n".join([*lines, *map(quote, found.values())]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page())
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
