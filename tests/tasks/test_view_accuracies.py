"""Tests of the accuracy over the number of views, and of `vidjax views`."""

import json

import numpy as np
import pytest

from vidjax.cli import main
from vidjax.config import load
from vidjax.data.clips import Views
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError
from vidjax.metrics.uncertainty import bootstrap_mean, mean_over_runs
from vidjax.tasks import create_task
from vidjax.tasks.results import ClassificationResult
from vidjax.tasks.views import difference, layout, view_accuracies
from vidjax.train.view_cost import config_of, view_gmacs

CONFIG = "synthetic_motion/slow_fusion_conv4:smoke"


def scored(n=60, clips=3, crops=3, k=7, seed=0, keep=True, skill=1.5):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    logits = rng.normal(size=(n, clips * crops, k)).astype(np.float32) * 2
    logits[np.arange(n), :, labels] += skill
    names = tuple(f"c{i}" for i in range(k))
    return ClassificationResult([f"v{i}" for i in range(n)], labels, logits, names, crops if keep else None)


def save_as_before(result, path):
    """Writes a file as versions did that stored no crops."""
    arrays = dict(ids=np.array(result.ids), labels=result.labels, logits=result.logits)
    np.savez_compressed(path, **arrays, class_names=np.array(result.class_names))


def by_name(rows):
    return {(r.name, r.views): r for r in rows}


def views(capsys, *args):
    with pytest.raises(SystemExit) as e:
        main(["views", *map(str, args)])
    return e.value.code, *capsys.readouterr()


def test_all_views_reproduce_the_metrics_of_the_result():
    result = scored()
    rows = by_name(view_accuracies([result]))
    assert list(rows) == [
        *((f"{t}x{s}", t * s) for s in (1, 3) for t in (1, 2, 3)),
        *(("random", n) for n in range(1, 10)),
    ]
    assert rows["3x3", 9].top1 == rows["random", 9].top1 == result.metrics["video_top1"]
    assert rows["random", 1].top1 == pytest.approx(result.metrics["clip_top1"])
    interval = bootstrap_mean(result.predictions == result.labels)
    assert (rows["3x3", 9].low, rows["3x3", 9].high) == pytest.approx(interval[1:])


def test_protocols_reproduce_a_result_of_these_views():
    result = scored()
    rows = by_name(view_accuracies([result]))
    for name, chosen in (("1x1", [4]), ("2x1", [1, 7]), ("3x1", [1, 4, 7]), ("2x3", [0, 1, 2, 6, 7, 8])):
        part = ClassificationResult(result.ids, result.labels, result.logits[:, chosen], result.class_names)
        assert rows[name, len(chosen)].top1 == part.metrics["video_top1"]


def test_several_runs_have_an_interval_over_the_runs():
    results = [scored(seed=s) for s in range(3)]
    found = by_name(view_accuracies(results))["3x3", 9]
    expected = mean_over_runs([r.metrics["video_top1"] for r in results])
    assert (found.top1, found.low, found.high) == pytest.approx(tuple(expected))
    with pytest.raises(UserError, match="differ in their views"):
        view_accuracies([results[0], scored(clips=2)])


def test_difference_pairs_videos_by_id():
    a, b = scored(skill=2.0), scored(seed=1)
    order = np.random.default_rng(0).permutation(60)
    ids = [b.ids[i] for i in order]
    mixed = ClassificationResult(ids, b.labels[order], b.logits[order], b.class_names, 3)
    assert difference(a, mixed) == difference(a, b) and difference(a, a) == (0, 0, 0)
    assert difference(a, b).mean == pytest.approx(a.metrics["video_top1"] - b.metrics["video_top1"])


def test_evaluation_stores_the_crops(tmp_path):
    task = create_task("classification", inputs=None, class_names=("a", "b"))
    record = Record(b"", ClassTarget(1), "v")
    prediction = task.decode(np.zeros((6, 2)), record, Views(np.zeros((2, 3, 4))))
    task.evaluate([prediction], [record]).save(tmp_path / "r.npz")
    assert layout(ClassificationResult.load(tmp_path / "r.npz")) == (2, 3)


def test_layout_of_old_files_is_unknown_without_crops(tmp_path):
    save_as_before(scored(), tmp_path / "r.npz")
    old = ClassificationResult.load(tmp_path / "r.npz")
    assert old.crops is None and layout(old) is None and layout(old, 3) == (3, 3)
    assert {r.name for r in view_accuracies([old])} == {"random"}
    assert view_accuracies([old], 3) == view_accuracies([scored()])
    assert layout(scored(clips=1, crops=1, keep=False)) == (1, 1)
    for result, crops in ((old, 2), (old, 0), (scored(), 1)):
        with pytest.raises(UserError, match=f"{crops} crops per clip do not fit a result with 9 views"):
            layout(result, crops)


def test_crops_that_do_not_divide_the_views_are_rejected(tmp_path):
    scored(crops=3).save(tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz") as file:
        np.savez(tmp_path / "bad.npz", **{**file, "crops": 2})
    with pytest.raises(UserError, match="9 views are not of 2 crops"):
        ClassificationResult.load(tmp_path / "bad.npz")


def test_cost_of_a_view_is_that_of_the_evaluated_size(tmp_path):
    small, large = load(CONFIG), load(CONFIG, ["evals.val.frames=16"])
    (tmp_path / "val").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(small.to_dict()))
    config, name = config_of(tmp_path / "result.npz")
    assert name == small.checkpoint.best and config.to_dict() == small.to_dict()
    cost = view_gmacs(config, ("a", "b"), name)
    assert small.data.frames == 8 and view_gmacs(large, ("a", "b"), "val") == pytest.approx(2 * cost, rel=0.1)
    (tmp_path / "evaluation.json").write_text(json.dumps({"config": large.to_dict()}))
    for result in (tmp_path / "result.npz", tmp_path / "val" / "result.npz"):
        config, name = config_of(result)
        assert name == "val" and config.evals.val.frames == 16
    assert config_of(tmp_path / "other" / "result.npz") is None


def test_command_prints_accuracy_interval_and_cost(tmp_path, capsys):
    result = scored()
    result.save(tmp_path / "result.npz")
    (tmp_path / "config.json").write_text(json.dumps(load(CONFIG).to_dict()))
    code, out, _ = views(capsys, tmp_path, "--png", tmp_path / "plot.png")
    assert code == 0 and (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    lines = {tuple(line.split()[:2]): line for line in out.splitlines()}
    assert f"{result.metrics['video_top1']:.3f}" in lines["3x3", "9"] and ("random", "1") in lines
    code, out, _ = views(capsys, tmp_path, "--json")
    ((name, found),) = json.loads(out)["results"].items()
    assert code == 0 and name == str(tmp_path) and found["videos"] == 60
    cost = view_gmacs(load(CONFIG), result.class_names)
    assert {a["protocol"]: a["gmacs"] for a in found["accuracies"]}["2x3"] == pytest.approx(6 * cost)


def test_command_compares_results(tmp_path, capsys):
    for name, result in (("a", scored(skill=2.0)), ("b", scored(seed=1)), ("c", scored(n=50))):
        result.save(tmp_path / name)
    a, b, c = (tmp_path / name for name in "abc")
    code, out, err = views(capsys, a, b, c, "--png", tmp_path / "plot.png")
    gap = scored(seed=1).metrics["video_top1"] - scored(skill=2.0).metrics["video_top1"]
    assert code == 0 and f"{b} minus {a}, all views: {gap:+.3f} [" in out and "–\n" in out
    assert f"{c} is not compared with {a}: " in err
    code, out, _ = views(capsys, a, b, "--seeds", "--json")
    (found,) = json.loads(out)["results"].values()
    assert code == 0 and found["gmacs_per_view"] is None
    assert found["accuracies"][5]["top1"] == pytest.approx(
        np.mean([scored(skill=2.0).metrics["video_top1"], scored(seed=1).metrics["video_top1"]])
    )


def test_command_reports_errors_in_one_line(tmp_path, capsys):
    save_as_before(scored(), tmp_path / "old.npz")
    code, out, _ = views(capsys, tmp_path / "old.npz")
    assert code == 0 and "use --crops N" in out and "3x1" not in out
    for args, message in (
        ((tmp_path / "none.npz",), "no saved result"),
        ((tmp_path / "old.npz", "--seeds"), "two runs or more"),
        ((tmp_path / "old.npz", tmp_path / "old.npz"), "given twice"),
        ((tmp_path / "old.npz", "--crops", 4), "do not fit"),
        ((tmp_path / "old.npz", "--config.batch=2"), "does not accept --config.KEY"),
        ((tmp_path / "old.npz", "--png", tmp_path / "no" / "x.png"), "cannot write"),
    ):
        code, _, err = views(capsys, *args)
        assert code == 2 and message in err and err.count("\n") == 1
