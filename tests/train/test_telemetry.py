"""Utilization, traces, slow hosts, and what the time of a run is spent on."""

import json
import time
import types

import jax
import pytest
from ml_collections import ConfigDict

import vidjax
from vidjax.analysis.chips import CHIPS, Chip, chip_of
from vidjax.analysis.macs import model_cost
from vidjax.config import resolve
from vidjax.errors import UserError
from vidjax.train import loop, telemetry
from vidjax.train.experiment import build
from vidjax.train.metrics import read_metrics


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    data = dict(name="synthetic_motion", options=dict(size=32, frames=8, train=24, val=12, test=12))
    data |= dict(frames=4, stride=1.0, size=16, short_side=16, crop="center", flip=False)
    model = dict(name="slow_fusion_conv4", tiny=True)
    return resolve(dict(batch=8, steps=4, log_every=2, report=False, data=data, model=model))


def test_chips_are_found_by_the_kind_that_jax_reports():
    kinds = {"TPU v5 lite": "v5e", "TPU v5p": "v5p", "TPU v5": "v5p", "TPU v6 lite": "v6e", "TPU v4": "v4"}
    kinds |= {"NVIDIA H100 80GB HBM3": "H100", "NVIDIA A100-SXM4-40GB": "A100-40GB"}
    found = {k: chip_of(types.SimpleNamespace(device_kind=k)) for k in kinds}
    assert {k: chip.name for k, chip in found.items()} == kinds
    assert chip_of(jax.devices()[0]) is None
    assert len({c.name for c in CHIPS}) == len(CHIPS)


def test_utilization_is_counted_operations_over_the_peak(config, monkeypatch):
    """A step of 8 clips has 6 operations per multiply-add of the forward pass."""
    exp = build(config)
    batches = exp.batches(0, 8)
    batch = {k: v for k, v in next(batches).items() if k in ("inputs", "targets")}
    batches.close()
    clip = vidjax.create_model("slow_fusion_conv4", 12, tiny=True)
    flops = 6 * 8 * model_cost(clip, (4, 16, 16, 3)).macs
    assert telemetry.step_flops(exp, batch) == flops
    chip = Chip("test", ("cpu",), 1e12, 1, 1.0, 1.0)
    monkeypatch.setattr(telemetry, "chip_of", lambda device: chip)
    use = telemetry.Utilization(exp)
    assert use.read(0.5) == {}  # before the first step
    use.see(batch)
    assert use.read(0.5)["mfu"] == pytest.approx(flops / (0.5 * 1e12 * jax.device_count()))


def test_run_writes_a_trace_and_what_its_time_was_spent_on(config, tmp_path, capsys):
    loop.train(config, tmp_path / "run", profile=(2, 3))
    err = capsys.readouterr().err
    (trace,) = (tmp_path / "run" / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000
    assert f"trace of steps 2 to 3: xprof --logdir {tmp_path / 'run' / 'profile'}" in err
    spent = json.loads((tmp_path / "run" / "timing.json").read_text())
    assert set(spent) == {"steps", "waiting for data", "compilation", "evaluation", "saving"}
    assert all(v >= 0 for v in spent.values()) and spent["compilation"] > 0 < spent["evaluation"]
    assert " s: steps " in err
    assert not {"mfu", "hbm"} & set(read_metrics(tmp_path / "run")[0])  # unknown for a CPU


def test_checkpoint_is_due_by_the_clock_and_a_signal_is_more_urgent(monkeypatch):
    config = ConfigDict(dict(checkpoint=dict(every_minutes=0.5)))
    run = types.SimpleNamespace(exp=types.SimpleNamespace(config=config), saved=time.monotonic())
    assert loop._Run.wish(run) == 0
    run.saved -= 31
    assert loop._Run.wish(run) == loop._SAVE
    config.checkpoint = dict(every_minutes=None)
    assert loop._Run.wish(run) == 0
    monkeypatch.setattr(loop.interrupts, "requested", lambda: True)
    assert loop._Run.wish(run) == loop._STOP > loop._SAVE


@pytest.mark.parametrize("text", ["10", "0:3", "5:4", "a:b", "1:2:3"])
def test_malformed_steps_are_reported(text):
    with pytest.raises(UserError, match="--profile must be FIRST:LAST"):
        telemetry.parse_steps(text)
    assert telemetry.parse_steps("10:20") == (10, 20) and telemetry.parse_steps(None) is None


def test_straggler_is_named():
    waits = {"process 0 on a": 0.02, "process 1 on b": 0.5, "process 2 on c": 0.04}
    assert telemetry.straggler(waits) == "process 1 on b"
    assert telemetry.straggler({"a": 0.5, "b": 0.45}) is None  # all wait for data
    assert telemetry.straggler({"a": 0.05, "b": 0.0}) is None
    assert telemetry.straggler({"a": 0.9}) is None
