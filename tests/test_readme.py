"""The README and docs are honest: commands parse, links resolve, and figures are those recorded."""

import csv
import itertools
import pathlib
import re
import shlex

import jax
import pytest

import vidjax
from vidjax import cli
from vidjax.cli.common import parse_overrides
from vidjax.config import load

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "experiments").glob("*/README.md")),
    ROOT / "notebooks/README.md",
    ROOT / "launch/README.md",
]


def blocks(page: pathlib.Path) -> list[str]:
    """Returns the fenced and indented code blocks of a page, with continued lines joined."""
    text = page.read_text()
    fenced = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
    indented = re.findall(r"(?:^ {4,}.*\n?)+", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return [block.replace("\\\n", " ") for block in (*fenced, *indented)]


def commands(page: pathlib.Path) -> list[list[str]]:
    """Returns the `vidjax` commands of a page, without what the shell would expand."""
    lines = itertools.chain.from_iterable(block.splitlines() for block in blocks(page))
    found = (re.sub(r"^\s*(VIDJAX_DATA=\S+ )?", "", line) for line in lines)
    return [shlex.split(line, comments=True)[1:] for line in found if line.startswith("vidjax ")]


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_linked_and_named_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    if page.name == "preprocessing.md":  # names files of other projects
        return
    prose = re.sub(r"\S*(NAME|FAMILY)\S*", "", text)
    named = r"(?<![\w./-])(?:configs|docs|benchmarks|experiments|vidjax|tests)/[\w./-]*[\w/]"
    for path in re.findall(named, prose):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_parse(page):
    """Flags exist, and config keys and values pass the checks that `train` makes."""
    for words in commands(page):
        args, rest = cli._parser().parse_known_args(words)
        overrides = parse_overrides(rest)
        if getattr(args, "config", None):
            load(str(ROOT / args.config), overrides)
        elif words[0] == "eval":
            load(str(ROOT / "configs/synthetic_motion/slow_fusion_conv4.py"), overrides)


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        assert set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.M)) <= targets, page


def test_accuracies_are_those_recorded():
    """The README's figures are those of the experiments' result files."""
    rows = {
        line.split("](")[1].split(")")[0]: line for line in README.read_text().splitlines() if "](exp" in line
    }

    def figures(path: str) -> set[str]:
        return set(re.findall(r"\b0\.\d{3}\b", rows[f"experiments/{path}"]))

    for path in ("frame_baselines", "small_3d_cnns", "attention_schemes"):
        with (ROOT / "experiments" / path / "results.csv").open() as file:
            recorded = {f"{float(v):.3f}" for r in csv.DictReader(file) for v in r.values() if _number(v)}
        assert figures(path) <= recorded, path
    weizmann = (ROOT / "experiments/weizmann/README.md").read_text()
    assert all(figure in weizmann for figure in figures("weizmann"))
    with (ROOT / "experiments/mae/results.csv").open() as file:
        mae = " ".join(v for r in csv.DictReader(file) for v in r.values())
    assert all(figure in mae or f"{100 * float(figure):.1f}" in mae for figure in figures("mae"))


def _number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text or "") is not None


def test_the_python_snippet_runs(monkeypatch):
    """Runs the snippet abstractly at full size; only the checkpoint file, which is not there, is left out."""
    snippet = README.read_text().split("```python\n")[1].split("```")[0]
    names = {}

    def load_pretrained(name, path, num_classes):
        return names["model"], names["variables"]

    monkeypatch.setattr(vidjax, "load_pretrained", load_pretrained)

    def run():
        exec(snippet, names)
        return names["logits"]

    assert jax.eval_shape(run).shape == (1, 10)
