"""Evaluations of long videos with `cover`: no frame is left out, and batches do not matter."""

import dataclasses
import json

import numpy as np
import pytest
from etils import epath

from vidjax.config import resolve
from vidjax.data.datasets import ListSource
from vidjax.errors import UserError
from vidjax.tasks.frame_classification import FrameClassification
from vidjax.train.experiment import build, initial_state

OPTIONS = dict(size=32, seconds=3.0, longest=6.0, fps=8, train=4, val=2, test=7)
CONFIG = dict(
    batch=4,
    steps=1,
    data=dict(name="synthetic_scenes", options=OPTIONS, frames=4, stride=1.0, size=32, short_side=32),
    model=dict(name="cnn_gru_resnet18", tiny=True, options=dict(readout="every")),
    task=dict(name="frame_classification"),
    evals=dict(val=dict(type="metrics", clips=3, cover=0.375)),
    report=False,
)


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        exp = build(resolve(CONFIG))
        yield exp, initial_state(exp).eval_variables


def evaluate(exp, folder, monkeypatch, source=None, **options):
    exp, variables = exp
    if source is not None:
        exp = dataclasses.replace(exp, sources={exp.config.data.eval_split: source})
    seen, scored = [], FrameClassification.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(FrameClassification, "evaluate", lambda self, *x: seen.append(x) or scored(self, *x))
        result = dataclasses.replace(exp.evals["val"], **options).run(exp, variables, epath.Path(folder), 0)
    return result, *seen[0]


def test_every_frame_is_scored_whatever_the_batch(exp, tmp_path, monkeypatch):
    result, predictions, records = evaluate(exp, tmp_path, monkeypatch)
    assert [r.id for r in records] == [r.id for r in exp[0].source(None)]
    counts = [len(p.times) for p in predictions]
    assert len({*counts}) > 1  # longer videos have more frames
    for p, r in zip(predictions, records, strict=True):
        np.testing.assert_allclose(p.times, np.arange(round(r.target.duration * 8)) / 8, atol=1e-6)
    other, others, _ = evaluate(exp, tmp_path, monkeypatch, batch=12)
    assert other.metrics["map"] == pytest.approx(result.metrics["map"], abs=1e-5)
    for a, b in zip(predictions, others, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_a_video_with_an_unreadable_part_is_left_out_once(exp, tmp_path, monkeypatch):
    videos = list(exp[0].source(None))
    longer = dataclasses.replace(videos[2].target, duration=50.0)  # annotated beyond the end of the file
    videos[2] = dataclasses.replace(videos[2], target=longer)
    broken = ListSource(tuple(videos), exp[0].source(None).class_names)
    exp[0].config.data.bad_limit = 0.2
    _, _, records = evaluate(exp, tmp_path, monkeypatch, broken)
    assert [r.id for r in records] == [r.id for i, r in enumerate(videos) if i != 2]
    rows = [json.loads(line) for line in (tmp_path / "bad_videos.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [videos[2].id]
    exp[0].config.data.bad_limit = 0.1
    with pytest.raises(UserError, match=r"^1 of 7 videos cannot be read"):
        evaluate(exp, tmp_path, monkeypatch, broken)


def test_tasks_of_whole_videos_are_rejected(exp):
    other = build(resolve(CONFIG | dict(task=dict(name="multi_label"))))
    exp[0].evals["val"].prepare(exp[0])
    with pytest.raises(UserError, match=r"evals\.val\.cover=0\.375 .* task\.name=multi_label"):
        other.evals["val"].prepare(other)
