"""End-to-end test of a two-stream model: training, evaluation, prediction and fusion."""

import json

import numpy as np
import pytest

from vidjax.cli import main
from vidjax.data.datasets import load_source
from vidjax.tasks.results import ClassificationResult
from vidjax.train.metrics import read_metrics

OPTIONS = dict(size=32, frames=8, train=16, val=12, test=12)
CONFIG = f"""
from ml_collections import ConfigDict
def get_config(arg=""):
    return ConfigDict(dict(
        batch=8, steps=2,
        data=dict(name="synthetic_motion", options={OPTIONS}, frames=1, stride=1.0,
                  size=32, short_side=32, flow=dict(frames=4)),
        model=dict(name="two_stream_resnet18", tiny=True),
        task=dict(name="classification", mixup=0.2),
        optimizer=dict(lr=1e-3, ema=0.9),
        parallel=dict(accumulation=2),
        evals=dict(val=dict(type="metrics", clips=2, crops=1, batch=4)),
        log_every=1,
    ))
"""


def vidjax(capsys, *line):
    with pytest.raises(SystemExit) as e:
        main([str(x) for x in line])
    return e.value.code, *capsys.readouterr()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def at(cache, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(cache))


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    """Returns the workdir of a short training on four devices with gradient accumulation."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "config.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as e:
        patch.setenv("VIDJAX_CACHE", str(cache))
        main(["train", "--config", str(folder / "config.py"), "--workdir", str(folder / "run")])
    assert e.value.code == 0
    return folder / "run"


def test_training_writes_its_results(run):
    rows = read_metrics(run)
    assert [r["step"] for r in rows if r["split"] == "train"] == [1, 2]
    assert all(np.isfinite(r["loss"]) for r in rows)
    result = ClassificationResult.load(run / "result.npz")
    assert result.logits.shape == (12, 2, 12)
    html = (run / "report.html").read_text()
    assert "image/gif" in html and "two_stream_resnet18" in html


def test_evaluation_of_either_split_and_their_fusion(run, tmp_path, capsys):
    at = ["eval", "--checkpoint", run]
    assert vidjax(capsys, *at, "--out", tmp_path / "test")[0] == 0
    again = ClassificationResult.load(tmp_path / "test" / "result.npz")
    np.testing.assert_allclose(again.logits, ClassificationResult.load(run / "result.npz").logits, atol=1e-4)
    train = tmp_path / "train"
    assert vidjax(capsys, *at, "--out", train, "--config.data.eval_split=train")[0] == 0
    assert ClassificationResult.load(train / "result.npz").ids[0] == "train-000000"
    test = tmp_path / "test"
    code, out, err = vidjax(capsys, "fuse", test, test, "--svm", train, train, "--out", tmp_path / "svm")
    assert code == 0 and "of fused" in out, err
    code, _, err = vidjax(capsys, "fuse", test, train, "--out", tmp_path / "x")
    assert code == 2 and "evaluate all models on the same split" in err and err.count("\n") == 1


@pytest.mark.parametrize("change", ["data.flow.frames=6", "model.name=two_stream_resnet18_temporal"])
def test_evaluation_with_other_streams_is_rejected(run, tmp_path, capsys, change):
    code, _, err = vidjax(capsys, "eval", "--checkpoint", run, "--out", tmp_path, f"--config.{change}")
    assert (
        code == 2 and err.count("\n") == 1 and ("flow_frames is 4" in err or "does not fit the model" in err)
    )


def test_prediction_writes_strips(run, tmp_path, capsys):
    video = tmp_path / "a.mp4"
    video.write_bytes(load_source("synthetic_motion", "test", **OPTIONS)[3].encoded())
    line = ["predict", video, "--checkpoint", run, "--json", "--draw", tmp_path / "strip.png"]
    code, out, err = vidjax(capsys, *line)
    assert code == 0, err
    expected = ClassificationResult.load(run / "result.npz").top(3)
    top = json.loads(out)["top"]
    np.testing.assert_allclose([t["probability"] for t in top], [p for _, p in expected], atol=1e-4)
    assert (tmp_path / "strip.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow  # tests/train/test_diagnose.py has the parts
def test_nonfinite_loss_reports_its_stream(run, tmp_path, capsys):
    config = run.parent / "config.py"
    line = ["train", "--config", config, "--workdir", tmp_path, "--config.optimizer.lr=1e38"]
    code, _, err = vidjax(capsys, *line)
    last = err.splitlines()[-1]
    assert code == 2 and "not finite" in last and ("spatial/" in last or "temporal/" in last), err
