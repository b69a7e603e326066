"""Reports of pretraining runs, and of runs initialized from them."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from vidjax.config import resolve
from vidjax.data.datasets import ListSource
from vidjax.tasks.results import ClassificationResult
from vidjax.train.report import report_runs

CONFIG = dict(steps=10, data=dict(name="features", modality="features", feature_width=4))


def image(kind, value):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file, kind)
    return file.getvalue()


def workdir(folder, name, **init):
    folder.mkdir()
    config = resolve({**CONFIG, "model": dict(name=name), "init": init})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    rows = [
        {"step": s, "split": "train", "loss": 1 - s / 100, "feature_std": 0.3, "lr": 0.1} for s in (5, 10)
    ]
    rows.append({"step": 10, "split": "val", "loss": 0.9, "knn_top1": 0.4, "effective_rank": 7.0})
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder, config.data


@pytest.fixture
def pretrained(tmp_path):
    folder, _ = workdir(tmp_path / "mae", "videomae_s_pretrain")
    (folder / "pretraining.json").write_text(json.dumps({"loss": 0.9, "knn_top1": 0.4321}))
    (folder / "reconstructions").mkdir()
    for step in (9, 10):  # sorted by number, not by name
        for kind in ("png", "gif"):
            (folder / "reconstructions" / f"step_{step}.{kind}").write_bytes(image(kind, 20 * step))
    return folder


def images(html):

    found = re.findall(r"data:image/(png|gif);base64,([\w+/=]+)", html)
    return [(kind, base64.b64decode(data)) for kind, data in found]


def test_pretraining_report_has_curves_and_latest_reconstructions(pretrained, tmp_path):
    source, out = ListSource((), ("a", "b")), tmp_path / "report.html"
    report_runs(out, "MAE", {"mae": pretrained}, source, resolve({**CONFIG, "model": dict(name="x")}).data)
    html = out.read_text()
    for text in (
        "knn top1",
        "0.4321",
        "kNN probe (top-1)",
        "Effective rank of features",
        "mae, step 10",
    ):
        assert text in html
    assert images(html) == [("gif", image("gif", 200)), ("png", image("png", 200))]
    assert html.index("<b>leak-free</b>") < html.index("<b>true statistics</b>")
    assert "Accuracy" not in html and "Confusion matrix" not in html


def test_fine_tuning_report_shows_the_pretraining_run(pretrained, tmp_path):
    tuned, data = workdir(tmp_path / "tuned", "videomae_s", path=str(pretrained))
    result = ClassificationResult(["v0", "v1"], np.array([0, 1]), np.zeros((2, 1, 2), np.float32), ("a", "b"))
    result.save(tuned / "result.npz")
    out = tmp_path / "report.html"
    report_runs(out, "tuned", {"tuned": tuned}, ListSource((), ("a", "b")), data)
    html = out.read_text()
    assert f"the start, {pretrained}, step 10" in html and "Accuracy" in html
    assert ("png", image("png", 200)) in images(html)
    both = tmp_path / "both.html"
    report_runs(both, "both", {"mae": pretrained, "tuned": tuned}, ListSource((), ("a", "b")), data)
    assert "mae, step 10" in both.read_text() and "kNN probe" in both.read_text()
