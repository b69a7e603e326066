"""Tests of results: metrics against hand-computed values and numpy, invariances, and files."""

import json

import numpy as np
import pytest

from vidjax.data.datasets import ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError
from vidjax.evaluation.metrics import collect
from vidjax.tasks import create_task
from vidjax.tasks.base import Metrics
from vidjax.tasks.results import ClassificationResult


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def result(logits, labels):
    logits = np.asarray(logits, np.float32)
    names = tuple(f"c{i}" for i in range(logits.shape[-1]))
    return ClassificationResult([f"v{i}" for i in range(len(labels))], np.asarray(labels), logits, names)


def data(n=23, views=3, k=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, views, k)).astype(np.float32) * 2, rng.integers(0, k, n)


def batches(logits, labels, size, order=None, junk=np.nan):
    """Yields batches like those of an evaluation, with padding filled with `junk`."""
    order = np.arange(len(labels)) if order is None else order
    for start in range(0, len(order), size):
        index = order[start : start + size]
        pad = size - len(index)
        yield {
            "outputs": np.concatenate([logits[index], np.full((pad, *logits.shape[1:]), junk, np.float32)]),
            "index": np.concatenate([index, np.zeros(pad, np.int64)]),
            "mask": np.arange(size) < len(index),
            "times": np.zeros((size, logits.shape[1], 4)),
            "geometry": np.zeros((size, logits.shape[1], 0)),
        }


def run(logits, labels, size, names=None, **kw):
    """Evaluates the batches of an evaluation."""
    names = names or [f"c{i}" for i in range(logits.shape[-1])]
    records = [Record(b"", ClassTarget(int(y)), f"v{i}") for i, y in enumerate(labels)]
    task = create_task("classification", inputs=None, class_names=names)
    views = logits.shape[1] if logits.ndim == 3 else 1
    found = collect(
        batches(logits, labels, size, **kw), task, ListSource(tuple(records), tuple(names)), views
    )
    return task.evaluate(*found)


def test_metrics_match_hand_computed_values():
    # The views disagree: the more confident one decides the mean softmax, but not the mean of the logits.
    p = [[0.98, 0.01, 0.01], [0.2, 0.5, 0.3]], [[0.1, 0.6, 0.3], [0.1, 0.2, 0.7]]
    r = result(np.log(p), [0, 1])
    np.testing.assert_allclose(np.exp(r.log_probs), [[0.59, 0.255, 0.155], [0.1, 0.4, 0.5]], rtol=1e-6)
    assert r.predictions.tolist() == [0, 2]
    want = {
        "loss": -(np.log(0.59) + np.log(0.4)) / 2,
        "clip_top1": 2 / 4,
        "clip_top5": 1.0,
        "video_top1": 1 / 2,
        "video_top5": 1.0,
        "mean_class_accuracy": 1 / 2,
    }
    assert r.metrics == pytest.approx(want, rel=1e-6)
    np.testing.assert_array_equal(r.confusion, [[1, 0, 0], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(r.per_class, [1, 0, np.nan])


def test_metrics_match_numpy():
    logits, labels = data()
    r = run(logits, labels, 4)
    p = softmax(logits.astype(np.float64))
    mean = p.mean(1)
    order = np.argsort(-mean, -1)
    clip_order = np.argsort(-p, -1).reshape(-1, 7)
    clip_labels = np.repeat(labels, 3)[:, None]
    m = r.metrics
    assert m["video_top1"] == pytest.approx((order[:, 0] == labels).mean())
    assert m["video_top5"] == pytest.approx((order[:, :5] == labels[:, None]).any(1).mean())
    assert m["clip_top1"] == pytest.approx((clip_order[:, :1] == clip_labels).any(1).mean())
    assert m["clip_top5"] == pytest.approx((clip_order[:, :5] == clip_labels).any(1).mean())
    assert m["loss"] == pytest.approx(-np.log(mean[np.arange(23), labels]).mean())
    assert r.confusion.sum() == 23
    np.testing.assert_array_equal(r.confusion.sum(1), np.bincount(labels, minlength=7))
    np.testing.assert_array_equal(r.confusion.sum(0), np.bincount(order[:, 0], minlength=7))
    assert m["video_top1"] == pytest.approx(np.trace(r.confusion) / 23)


@pytest.mark.parametrize("size", [1, 5, 23, 40])
def test_metrics_are_independent_of_batching_and_padding(size):
    logits, labels = data()
    order = np.random.default_rng(1).permutation(23)
    r = run(logits, labels, size, order=order)
    assert r.ids == [f"v{i}" for i in range(23)]
    np.testing.assert_array_equal(r.logits, logits)
    np.testing.assert_array_equal(r.labels, labels)


def test_ties_rank_by_class_index():
    k = 8
    r = result(np.zeros((k, 2, k)), np.arange(k))
    assert r.metrics["video_top1"] == r.metrics["clip_top1"] == 1 / k
    assert r.metrics["video_top5"] == r.metrics["clip_top5"] == 5 / k
    assert r.metrics["loss"] == pytest.approx(np.log(k))
    assert [name for name, _ in r.top(3)] == ["c0", "c1", "c2", "c3", "c4"]


def test_top5_is_one_for_five_classes():
    logits, labels = data(k=5)
    assert result(logits, labels).metrics["video_top5"] == 1
    assert result(*data(k=6)).metrics["video_top5"] < 1


def test_loss_of_a_confident_error_is_finite():
    r = result([[[5000, 10, 0, -5000]] * 2], [3])
    assert r.metrics["loss"] == pytest.approx(10000)
    assert [c for c, _ in r.top(0)] == ["c0", "c1", "c2", "c3"]


def test_single_class_has_perfect_metrics():
    r = result(np.zeros((3, 2, 1)), [0, 0, 0])
    assert r.metrics["video_top1"] == 1 and r.metrics["loss"] == 0 and r.confusion.tolist() == [[3]]


def test_results_round_trip_through_a_file(tmp_path):
    logits, labels = data()
    r = run(logits, labels, 4)
    path = tmp_path / "run.v1"
    r.save(path)
    back = ClassificationResult.load(path)
    assert (back.ids, back.class_names, back.metrics) == (r.ids, r.class_names, r.metrics)
    np.testing.assert_array_equal(back.logits, r.logits)
    assert [p.name for p in tmp_path.iterdir()] == ["run.v1"]

    with pytest.raises(UserError, match="no saved result"):
        ClassificationResult.load(tmp_path / "absent.npz")
    for junk in (b"hello", b"", path.read_bytes()[:100]):
        path.write_bytes(junk)
        with pytest.raises(UserError, match="not a saved classification result"):
            ClassificationResult.load(path)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(UserError, match="not a saved classification result"):
        ClassificationResult.load(tmp_path / "other.npz")


def test_predictions_file_lists_the_top_classes(tmp_path):
    logits, labels = data()
    r = run(logits, labels, 4)
    r.write_predictions(tmp_path / "p.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == r.ids
    mean = softmax(logits.astype(np.float64)).mean(1)
    for row, y, p in zip(rows, labels, mean):
        best = np.argsort(-p)[:5]
        assert row["true"] == f"c{y}" and row["predicted"] == f"c{best[0]}"
        assert [c for c, _ in row["top5"]] == [f"c{i}" for i in best]
        assert [q for _, q in row["top5"]] == pytest.approx(p[best], abs=1e-6)


def test_ids_that_are_not_utf8_round_trip(tmp_path):
    r = ClassificationResult(["bad\udcff", "día"], np.zeros(2, int), np.zeros((2, 1, 1), np.float32), ("漢",))
    r.save(tmp_path / "r.npz")
    r.write_predictions(tmp_path / "p.jsonl")
    assert ClassificationResult.load(tmp_path / "r.npz").ids == r.ids
    text = (tmp_path / "p.jsonl").read_text("utf-8")
    assert [json.loads(line)["id"] for line in text.splitlines()] == r.ids and "漢" in text and "día" in text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_reported(value):
    logits, labels = data()
    logits[9, 1, 2] = value
    with pytest.raises(UserError, match=r"not finite for 'v9' \(1 of 23 videos"):
        run(logits, labels, 4)


def test_invalid_batches_are_rejected():
    logits, labels = data()
    with pytest.raises(UserError, match="no video to evaluate"):
        run(logits[:0], labels[:0], 4)
    with pytest.raises(UserError, match="7 classes and the data 3"):
        run(logits, labels % 3, 4, ["a", "b", "c"])
    with pytest.raises(UserError, match="'v5' has label 7, outside the 7 classes"):
        run(logits, np.where(np.arange(23) == 5, 7, labels), 4)
    with pytest.raises(ValueError, match="record 3 was evaluated twice"):
        run(logits, labels, 4, order=np.array([0, 3, 1, 2, 3]))


def test_metrics_are_ranked_by_the_headline_and_written(tmp_path):
    table = [{"class": "a", "average precision": 0.5}]
    r = Metrics({"loss": 0.5, "map": 0.25}, "map", [{"id": "v0"}], table)
    r.write(tmp_path)
    back = Metrics.load(tmp_path)
    assert r.headline == back.headline == 0.25 and back.metrics == r.metrics and back.table == table
    assert json.loads((tmp_path / "predictions.jsonl").read_text()) == {"id": "v0"}
    assert Metrics({"loss": 0.5}, "-loss").headline == -0.5
    with pytest.raises(UserError, match="run the evaluation first"):
        Metrics.load(tmp_path / "absent")
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(UserError, match="is not a saved result"):
        Metrics.load(tmp_path)
