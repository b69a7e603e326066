"""docs/model_zoo.md matches the registry."""

import csv
import pathlib

import pytest

import vidjax
import vidjax.convert.load  # registers the published checkpoints
from vidjax.analysis.zoo import END, GROUPS, PAGE, START, group_models, row
from vidjax.convert.published import CHECKPOINTS
from vidjax.registry import DATASETS

ROOT = pathlib.Path(__file__).parents[1]


def test_every_family_is_in_one_section():
    families = [family for group in GROUPS.values() for family in group]
    assert len(families) == len(set(families))
    assert set(families) == {vidjax.spec(name).family for name in vidjax.list_models()}


def test_dataset_names_are_spelled_one_way():
    used = {r.dataset for name in vidjax.list_models() for r in vidjax.spec(name).results}
    used |= {c.dataset for c in CHECKPOINTS.values() if c.top1 is not None}
    assert used == set(DATASETS)


def test_the_zoo_is_current():
    """Compares its counts with the rows that tests/analysis counts again."""
    files = (ROOT / "tests/analysis/costs").glob("*.csv")
    costs = {r["model"]: r for f in files for r in csv.DictReader(f.open())}
    table = PAGE.read_text().split(START)[1].split(END)[0].splitlines()
    rows = {line.split("`")[1]: line for line in table if line.startswith("| `")}
    titles = [line[3:] for line in table if line.startswith("## ")]
    assert titles == list(GROUPS), "run `python -m vidjax.analysis.zoo`"
    expected = [name for names in group_models().values() for name in names]
    assert list(rows) == expected, "run `python -m vidjax.analysis.zoo`"
    for name, line in rows.items():
        params, gmacs = (cell.strip() for cell in line.split("|")[5:7])
        assert row(name, int(params.replace(",", "")), float(gmacs)) == line
        assert int(params.replace(",", "")) == int(costs[name]["params"]), name
        if costs[name]["gmacs"]:
            assert float(gmacs) == pytest.approx(float(costs[name]["gmacs"]), rel=0.005, abs=0.006), name
