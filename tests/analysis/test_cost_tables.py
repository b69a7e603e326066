"""The committed tables of experiments/cost_tables match its script and the published figures."""

import csv
import importlib.util
import pathlib

import vidjax

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "cost_tables"


def test_committed_tables_match_the_script(monkeypatch):
    """Receptive fields are measured for one fusion; test_receptive_field.py covers the others."""
    spec = importlib.util.spec_from_file_location("cost_tables_run", FOLDER / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    early, measured = vidjax.create_model("lecture_early_fusion"), run.measured
    monkeypatch.setattr(
        run, "measured", lambda m, *shape: (measured if m == early else run.computed)(m, *shape)
    )
    committed = list(csv.DictReader((FOLDER / "results.csv").open()))
    quick = [vars(r) for part in (run.kernel_params, run.data_sizes, run.c3d_stages) for r in part()]
    quick += [vars(r) for r in run.fusion_fields()]
    for row in quick:
        assert row in committed
        assert row["ours"] == row["published"], row
    listed = {r["item"] for r in committed if r["table"].startswith("models")}
    specs = {n: vidjax.spec(n) for n in vidjax.list_models()}
    assert listed == {n for n, s in specs.items() if s.params or s.gmacs}
