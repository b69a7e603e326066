"""What the README says of the models is what the registry says."""

import csv
import pathlib

import jax
import pytest

import vidjax
from vidjax.analysis.zoo import END, START, row

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"


def test_the_table_of_models_is_current():
    """Its counts are held against the rows that tests/analysis counts anew."""
    files = (ROOT / "tests/analysis/costs").glob("*.csv")
    costs = {r["model"]: r for f in files for r in csv.DictReader(f.open())}
    table = README.read_text().split(START)[1].split(END)[0].strip().splitlines()[2:]
    named = {line.split("`")[1]: line for line in table}
    assert list(named) == vidjax.list_models(), "run `python -m vidjax.analysis.zoo`"
    for name, line in named.items():
        params, gmacs = (cell.strip() for cell in line.split("|")[5:7])
        assert row(name, int(params.replace(",", "")), float(gmacs)) == line
        assert int(params.replace(",", "")) == int(costs[name]["params"]), name
        if costs[name]["gmacs"]:
            assert float(gmacs) == pytest.approx(float(costs[name]["gmacs"]), rel=0.005, abs=0.006), name


def test_every_file_it_names_is_there():
    for word in README.read_text().split():
        word = word.strip("`(),")
        if word.startswith(("configs/", "docs/", "benchmarks/", "experiments/", "vidjax/")):
            assert (README.parent / word.split(":")[0]).exists(), word


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
