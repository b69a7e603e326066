"""Reports of classifiers, of pretraining runs, and of runs initialized from them."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from vidjax.cli import main
from vidjax.config import pretraining_evals, resolve
from vidjax.data.datasets import ListSource, load_source
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError
from vidjax.layers.preprocess import Inputs
from vidjax.tasks import create_task
from vidjax.tasks.base import Metrics
from vidjax.tasks.results import ClassificationResult
from vidjax.train.loop import train
from vidjax.train.report import pick_examples, report_runs

CONFIG = dict(steps=10, data=dict(name="synthetic_motion"))


def image(kind, value):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file, kind)
    return file.getvalue()


def workdir(folder, name, **init):
    folder.mkdir()
    pretraining = name.endswith("_pretrain")
    task = dict(name="masked_autoencoding" if pretraining else "classification")
    evals = dict(evals=pretraining_evals(), checkpoint=dict(best="knn")) if pretraining else {}
    config = resolve({**CONFIG, "model": dict(name=name), "init": init, "task": task, **evals})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    rows = [
        {"step": s, "split": "train", "loss": 1 - s / 100, "feature_std": 0.3, "lr": 0.1} for s in (5, 10)
    ]
    rows.append({"step": 10, "split": "val", "loss": 0.9})
    rows.append({"step": 10, "split": "knn", "knn_top1": 0.4321, "effective_rank": 7.0})
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    inputs = Inputs(("rgb",), {"rgb": (0.5,) * 3}, {"rgb": (0.5,) * 3})
    return folder, create_task(**task, inputs=inputs, class_names="ab")


@pytest.fixture
def pretrained(tmp_path):
    folder, task = workdir(tmp_path / "mae", "videomae_s_pretrain")
    Metrics({"knn_top1": 0.4321}, "knn_top1").write(folder)
    (folder / "reconstructions").mkdir()
    for step in (9, 10):  # sorted by number, not by name
        for kind in ("png", "gif"):
            (folder / "reconstructions" / f"step_{step}.{kind}").write_bytes(image(kind, 20 * step))
    return folder, task


def images(html):
    found = re.findall(r"data:image/(png|gif);base64,([\w+/=]+)", html)
    return [(kind, base64.b64decode(data)) for kind, data in found]


def test_pretraining_report_has_curves_and_latest_reconstructions(pretrained, tmp_path):
    source, out = ListSource((), ("a", "b")), tmp_path / "report.html"
    folder, task = pretrained
    report_runs(out, "MAE", {"mae": folder}, task, source)
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
    pretrained, _ = pretrained
    tuned, task = workdir(tmp_path / "tuned", "videomae_s", path=str(pretrained))
    result = ClassificationResult(["v0", "v1"], np.array([0, 1]), np.zeros((2, 1, 2), np.float32), ("a", "b"))
    result.save(tuned / "result.npz")
    out = tmp_path / "report.html"
    report_runs(out, "tuned", {"tuned": tuned}, task, ListSource((), ("a", "b")))
    html = out.read_text()
    assert f"the start, {pretrained}, step 10" in html and "Accuracy" in html
    assert ("png", image("png", 200)) in images(html)
    both = tmp_path / "both.html"
    report_runs(both, "both", {"mae": pretrained, "tuned": tuned}, task, ListSource((), ("a", "b")))
    assert "mae, step 10" in both.read_text() and "kNN probe" in both.read_text()


def test_reconstructions_are_found_by_the_type_of_their_evaluation(pretrained, tmp_path):
    folder, task = pretrained
    config = json.loads((folder / "config.json").read_text())
    config["evals"]["drawn"] = config["evals"].pop("reconstructions")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "reconstructions").rename(folder / "drawn")
    report_runs(tmp_path / "report.html", "MAE", {"mae": folder}, task, ListSource((), ("a", "b")))
    assert ("png", image("png", 200)) in images((tmp_path / "report.html").read_text())


def test_metrics_of_several_evaluations_are_told_apart(pretrained, tmp_path):
    folder, task = pretrained
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"step": 10, "split": "easy", "loss": 0.1234}) + "\n")
    report_runs(tmp_path / "report.html", "MAE", {"mae": folder}, task, ListSource((), ("a", "b")))
    html = (tmp_path / "report.html").read_text()
    columns = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', html)
    assert columns == ["run", "val loss", "knn top1", "effective rank", "easy loss"]
    assert re.findall("val|easy|knn", "".join(re.findall("<text.*</text>", html))) == ["val", "easy"]


def test_runs_with_other_classes_are_rejected(tmp_path):
    folder, task = workdir(tmp_path / "run", "videomae_s")
    ClassificationResult(["v"], np.array([0]), np.zeros((1, 1, 3), np.float32), tuple("abc")).write(folder)
    with pytest.raises(UserError, match="the classes of the result of run differ") as e:
        report_runs(tmp_path / "report.html", "run", {"run": folder}, task, ListSource((), ("a", "b")))
    assert "\n" not in str(e.value)


OPTIONS = dict(size=32, frames=8, train=12, val=12, test=13)
SMALL = dict(frames=4, stride=1.0, size=16, short_side=16, crop="center")


def test_examples_are_readable_videos_of_the_result():
    good = load_source("synthetic_motion", "test", **OPTIONS)[0]
    records = (good, Record(b"not a video", ClassTarget(1), "corrupt"))
    data = resolve({**CONFIG, "model": dict(name="slow_fusion_conv4")}).data
    logits = np.zeros((3, 1, 2), np.float32)
    result = ClassificationResult([good.id, "corrupt", "absent"], np.array([0, 0, 0]), logits, ("a", "b"))
    for streams, expected in ((("rgb",), [good.id]), (("features",), [])):
        task = create_task("classification", inputs=Inputs(streams, {}, {}), class_names="ab")
        examples = pick_examples(ListSource(records, ("a", "b")), data, task, result)
        assert [e.id for e in examples] == expected
        assert all(
            e.true == "a" and e.frames.shape == (data.frames, data.size, data.size, 3) for e in examples
        )


def test_report_is_on_the_split_of_the_best_evaluation(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    config = dict(
        batch=4,
        steps=1,
        data=dict(name="synthetic_motion", options=OPTIONS, **SMALL),
        model=dict(name="slow_fusion_conv4", tiny=True),
        evals=dict(val=dict(type="metrics", split="train"), other=dict(type="metrics")),
    )
    assert train(resolve(config), tmp_path / "run")["val"].ids[0].startswith("train")
    with pytest.raises(SystemExit) as e:
        main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "again.html")])
    assert e.value.code == 0, capsys.readouterr().err
    for page in (tmp_path / "run" / "report.html", tmp_path / "again.html"):
        html = page.read_text()
        titles = [
            "Accuracy",
            "Training",
            "Confusion matrix",
            "Per-class accuracy",
            "Examples",
            "Configuration",
        ]
        assert re.findall("<h2>(.*)</h2>", html) == [*titles, "Environment"]
        shown = re.findall("Clip of ([a-z]*)", html)
        assert len(shown) >= 6 and {*shown} == {"train"}
