"""Tests of late fusion by averaging and by an SVM."""

import numpy as np
import pytest

from vidjax.cli import main
from vidjax.errors import UserError
from vidjax.tasks.fusion import average, svm
from vidjax.tasks.results import ClassificationResult

NAMES = ("run", "walk", "jump", "wave")


def result(logits, labels, ids=None, names=NAMES):
    logits = np.asarray(logits, np.float32)
    ids = ids or [f"v{i}" for i in range(len(logits))]
    return ClassificationResult(
        ids, np.asarray(labels), logits if logits.ndim == 3 else logits[:, None], names
    )


def scored(n, knows, seed, noise=1.0):
    """Returns two-view results of a model that recognizes only the classes in `knows`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    logits = noise * rng.normal(size=(n, 2, 4))
    known = np.isin(labels, knows)
    logits[known, :, labels[known]] += 6
    return result(logits, labels)


def test_average_is_the_mean_of_softmax_scores():
    a, b = scored(6, (0, 1), 0), scored(6, (2, 3), 1)
    softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)  # noqa: E731
    fused = average([a, b], [1, 2])
    expected = (softmax(a.logits).mean(1) + 2 * softmax(b.logits).mean(1)) / 3
    assert fused.logits.shape == (6, 1, 4)
    np.testing.assert_allclose(np.exp(fused.logits[:, 0]), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(fused.log_probs), expected, rtol=1e-5)
    np.testing.assert_allclose(average([a, b], [0, 3]).log_probs, b.log_probs, rtol=1e-5)


def test_fusing_complementary_models_improves_accuracy():
    a, b = scored(200, (0, 1), 0, noise=0.5), scored(200, (2, 3), 1, noise=0.5)
    alone = max(r.metrics["video_top1"] for r in (a, b))
    assert alone < 0.75 and average([a, b]).metrics["video_top1"] > 0.95


def test_videos_are_matched_by_id():
    a = scored(8, (0, 1), 0)
    b = scored(8, (2, 3), 1)
    order = np.random.default_rng(0).permutation(8)
    mixed = ClassificationResult([b.ids[i] for i in order], b.labels[order], b.logits[order], NAMES)
    fused, same = average([a, b]), average([a, mixed])
    assert same.ids == fused.ids
    np.testing.assert_array_equal(same.logits, fused.logits)


def test_svm_learns_which_model_is_reliable():
    """One model is right for two classes and confidently wrong for the others, which misleads the average."""

    def misleading(n, seed):
        r = scored(n, (0, 1), seed)
        wrong = r.labels >= 2
        r.logits[wrong, :, 0] += 9
        return r

    train = [misleading(200, 0), scored(200, (1, 2, 3), 1)]
    test = [misleading(100, 2), scored(100, (1, 2, 3), 3)]
    assert average(test).metrics["video_top1"] < 0.8
    fused = svm(train, test)
    assert fused.metrics["video_top1"] > 0.9 and fused.logits.shape == (100, 1, 4)


def test_svm_handles_two_classes_and_an_unseen_class():
    two = [result([[3, 0], [0, 3], [2, 0], [0, 2]], [0, 1, 0, 1], names=("a", "b"))] * 2
    assert svm(two, two).metrics["video_top1"] == 1
    some = [result(r.logits[:, :, :4], np.minimum(r.labels, 2)) for r in (scored(40, (0, 1, 2), 0),) * 2]
    fused = svm(some, some)
    assert np.isfinite(fused.logits).all() and (fused.logits.argmin(-1) == 3).all()


def test_incompatible_results_are_rejected():
    a = scored(4, (0,), 0)
    for other, message in (
        (result(a.logits, a.labels, ["v0", "v1", "v2", "w"]), "2 are in only one of them, such as v3, w"),
        (result(a.logits[:3], a.labels[:3]), "result 2 has 3 videos and the first 4; 1 are in only one"),
        (result(a.logits, (a.labels + 1) % 4), "result 2 has another label than the first for v0"),
        (result(a.logits, a.labels, names=("run", "walk", "jump", "hop")), "classes such as hop, wave are"),
        (result(a.logits, a.labels, names=NAMES[::-1]), "the order of the classes differs"),
    ):
        with pytest.raises(UserError, match=message):
            average([a, other])
        with pytest.raises(UserError, match=message):
            svm([a, a], [a, other])
    for call, message in (
        (lambda: average([a]), "two models or more"),
        (lambda: average([a, a], [1.0]), "2 results need as many weights"),
        (lambda: average([a, a], [0.0, 0.0]), "not all 0"),
        (lambda: svm([a, a, a], [a, a]), "3 results to fit the SVM to, and 2 to test"),
        (lambda: svm([a, a], [a, a], c=0.0), "c must be positive"),
        (lambda: svm([result(a.logits, 0 * a.labels)] * 2, [a, a]), "all of one class"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def run(*args):
    with pytest.raises(SystemExit) as e:
        main([*map(str, args)])
    return e.value.code


def test_cli_fuses_results(tmp_path, capsys):
    folders = []
    for i, knows in enumerate(((0, 1), (2, 3))):
        folders.append(tmp_path / f"run{i}")
        folders[-1].mkdir()
        scored(40, knows, i, noise=0.3).save(folders[-1] / "result.npz")
    assert run("fuse", *folders, "--out", tmp_path / "average", "--weights", 1, 1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert str(folders[0]) in lines[0] and "of fused" in lines[2]
    saved = ClassificationResult.load(tmp_path / "average" / "result.npz")
    assert lines[2].startswith(f"{saved.metrics['video_top1']:.4f}") and saved.metrics["video_top1"] > 0.9
    assert len((tmp_path / "average" / "predictions.jsonl").read_text().splitlines()) == 40
    files = [f / "result.npz" for f in folders]
    assert run("fuse", *files, "--svm", *folders, "--out", tmp_path / "svm") == 0
    assert ClassificationResult.load(tmp_path / "svm" / "result.npz").metrics["video_top1"] > 0.9
    capsys.readouterr()
    assert run("fuse", *folders, "--svm", *folders, "--weights", 1, 2, "--out", tmp_path / "x") == 2
    assert run("fuse", folders[0], tmp_path / "none", "--out", tmp_path / "x") == 2
    assert "no saved result" in capsys.readouterr().err
