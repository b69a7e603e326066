"""Timing of the training loop, and the logs of a run."""

import sys
import time
import types

import pytest

from vidjax.errors import UserError
from vidjax.train.metrics import MetricsWriter, Stopwatch, processors, read_metrics

WANDB = {"wandb": {"project": "motion", "mode": "offline"}, "batch": 8}


def test_decode_cpu_is_a_fraction_of_all_processors():
    spent = [5.0]
    watch = Stopwatch(lambda: spent[0])
    for seconds in (0.01, 0.004, 100.0):
        start = time.perf_counter()
        watch.wait(iter("x"))
        time.sleep(0.05)
        spent[0] += seconds
        values = watch.read(batch=4)
        elapsed = time.perf_counter() - start
        assert values["decode_cpu"] == pytest.approx(min(1.0, seconds / elapsed / processors()), rel=0.1)
        assert values["step_time"] == pytest.approx(elapsed, rel=0.1)


def test_rows_are_also_logged_to_wandb(tmp_path, monkeypatch):
    """A resumed run has the same id, so that it continues."""
    started, logged = [], []

    def init(**options):
        started.append(options)
        log = lambda values, step: logged.append((step, values))  # noqa: E731
        return types.SimpleNamespace(log=log, finish=lambda: logged.append("finished"))

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for step in (0, 1):
        writer = MetricsWriter(tmp_path, step, config=WANDB)
        writer.write(step + 1, "train", {"loss": 0.5}, 0.1)
        writer.close()
    assert logged == [(1, {"train/loss": 0.5}), "finished", (2, {"train/loss": 0.5}), "finished"]
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2]
    first, second = started
    assert first == second and first["project"] == "motion" and first["mode"] == "offline"
    assert first["resume"] == "allow" and first["config"]["batch"] == 8
    MetricsWriter(tmp_path, 0, active=False, config=WANDB).close()
    assert len(started) == 2  # only the first host logs


def test_missing_wandb_is_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        MetricsWriter(tmp_path, 0, config=WANDB)


def test_wandb_works_offline(tmp_path):
    pytest.importorskip("wandb", reason="needs wandb")
    writer = MetricsWriter(tmp_path, 0, config=WANDB)
    writer.write(1, "train", {"loss": 0.5}, 0.1)
    writer.close()
    assert list(tmp_path.rglob("*.wandb"))
