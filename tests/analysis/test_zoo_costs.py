"""Parameters and multiply-adds of every registered model at full size, by tracing alone.

costs/FAMILY.csv has a row per model. kind "published": figures of the reference implementation, parameters
exact and GMACs of one view within 0.5 % (empty where none is known). "pinned": nothing is published, the
figures are as first counted, and `note` reasons them where something published stands behind them.
"""

import csv
import pathlib

import pytest

import vidjax
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.params import count_params

FILES = sorted((pathlib.Path(__file__).parent / "costs").glob("*.csv"))
ROWS = {row["model"]: {**row, "file": f.stem} for f in FILES for row in csv.DictReader(f.open())}


@pytest.mark.parametrize("name", vidjax.list_models())
def test_parameters_and_macs_of_every_model(name):
    row = ROWS[name]
    s = vidjax.spec(name)
    g = graph.trace(vidjax.create_model(name), s.input_shape)
    cost = jaxpr_cost(g.jaxpr)
    published = row["kind"] == "published"
    gmacs = float(row["gmacs"]) if row["gmacs"] else None
    assert count_params(g.variables["params"]) == int(row["params"])
    if gmacs is not None:
        assert cost.macs / 1e9 == pytest.approx(gmacs, rel=0.005 if published else 1e-4)
    assert not cost.uncounted and not cost.loops
    assert sum(cost.by_module().values()) == cost.macs
    assert cost.by_module().get("(model)", 0) == 0
    if published:
        assert (s.params, s.gmacs) == (int(row["params"]), gmacs)


def test_every_row_names_a_registered_model():
    assert {*ROWS} == {*vidjax.list_models()}
    assert all(
        row["kind"] == "published" or (row["kind"] == "pinned" and row["gmacs"]) for row in ROWS.values()
    )
    assert all(row["file"] == vidjax.spec(name).family for name, row in ROWS.items())
