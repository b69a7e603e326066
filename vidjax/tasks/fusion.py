"""Late fusion: combines the predictions of several models, each evaluated separately.

Simonyan & Zisserman, arXiv:1406.2199, section 2: the softmax scores of the streams are averaged, or a linear
SVM is trained on the stacked, L2-normalized scores.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vidjax.errors import UserError
from vidjax.tasks.results import ClassificationResult


def average(
    results: Sequence[ClassificationResult], weights: Sequence[float] | None = None
) -> ClassificationResult:
    """Averages the scores of several models; a video's score is the mean softmax over its views.

    Args:
      results: two or more results for the same videos, in any order, and the same classes.
      weights: one per result, of any scale; equal if None.

    Returns:
      A result with one view per video, in the order of the first result, whose logits are the logarithm of
      the weighted mean score.

    Raises:
      UserError: the videos, labels or classes differ, or the weights are negative, all 0, or not one per
        result.
    """
    results = align(results)
    w = np.ones(len(results)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (len(results),) or not (w >= 0).all() or not 0 < w.sum() < np.inf:
        raise UserError(
            f"{len(results)} results need as many weights, at least 0 and not all 0: got {weights}"
        )
    log_w = np.log(w[w > 0] / w.sum()).reshape(-1, 1, 1)
    scores = np.stack([r.log_probs for r, x in zip(results, w) if x > 0]) + log_w
    return _one_view(results[0], np.logaddexp.reduce(scores, 0))


def svm(
    train: Sequence[ClassificationResult], test: Sequence[ClassificationResult], c: float = 1.0
) -> ClassificationResult:
    """Fuses models by a linear one-vs-rest SVM on their stacked, L2-normalized scores.

    Args:
      train: results of the models on the videos that the SVM is fitted to, one per model.
      test: results of the same models, in the same order, on the test videos.
      c: the SVM's penalty for training errors.

    Returns:
      A result with one view per video, whose logits are the SVM's margins. They rank the classes, but are not
      calibrated as probabilities. Classes without training videos rank last.

    Raises:
      UserError: the numbers of models, the videos, labels or classes differ, all training videos have the
        same class, or `c` is not positive.
    """
    if len(train) != len(test):
        raise UserError(
            f"{len(train)} results to fit the SVM to, and {len(test)} to test: give one of each per model"
        )
    train, test = align(train), align(test)
    if train[0].class_names != test[0].class_names:
        raise _other_classes("the training results", train[0], test[0])
    if len(np.unique(train[0].labels)) < 2:
        raise UserError("the videos to fit the SVM to are all of one class")
    if not 0 < c < np.inf:
        raise UserError(f"the SVM's c must be positive and finite, got {c}")
    from sklearn.svm import LinearSVC  # not at the top, because it is slow to import

    machine = LinearSVC(C=c, random_state=0, max_iter=10_000).fit(_stacked(train), train[0].labels)
    margins = machine.decision_function(_stacked(test))
    if margins.ndim == 1:  # returned for two classes
        margins = np.stack([-margins, margins], -1)
    logits = np.full((len(margins), len(test[0].class_names)), margins.min() - 1)
    logits[:, machine.classes_] = margins
    return _one_view(test[0], logits)


def align(results: Sequence[ClassificationResult]) -> list[ClassificationResult]:
    """Reorders the videos of all results to the order of the first one.

    Raises:
      UserError: there are fewer than two results, or their videos, labels or classes differ.
    """
    if len(results) < 2:
        raise UserError("fusion needs the results of two models or more")
    first, out = results[0], []
    for number, r in enumerate(results, 1):
        which = f"result {number}"
        if r.class_names != first.class_names:
            raise _other_classes(which, r, first)
        place = {name: i for i, name in enumerate(r.ids)}
        if place.keys() != {*first.ids} or len(r.ids) != len(first.ids):
            odd = sorted(place.keys() ^ {*first.ids})
            raise UserError(
                f"{which} has {len(r.ids)} videos and the first {len(first.ids)}; {len(odd)} are in only one "
                f"of them, such as {', '.join(odd[:3])}: evaluate all models on the same split"
            )
        order = np.array([place[name] for name in first.ids])
        if (wrong := r.labels[order] != first.labels).any():
            raise UserError(f"{which} has another label than the first for {first.ids[int(wrong.argmax())]}")
        out.append(dataclasses.replace(r, ids=first.ids, labels=first.labels, logits=r.logits[order]))
    return out


def _other_classes(which: str, a: ClassificationResult, b: ClassificationResult) -> UserError:
    odd = sorted({*a.class_names} ^ {*b.class_names})[:3]
    what = (
        f"classes such as {', '.join(odd)} are in only one of them"
        if odd
        else "the order of the classes differs"
    )
    return UserError(f"{which} does not match the others: {what}")


def _stacked(results: Sequence[ClassificationResult]) -> np.ndarray:
    """Stacks the L2-normalized scores of each model, [N, models x K]."""
    scores = [np.exp(r.log_probs) for r in results]
    return np.concatenate([s / np.linalg.norm(s, axis=-1, keepdims=True) for s in scores], -1)


def _one_view(like: ClassificationResult, logits: np.ndarray) -> ClassificationResult:
    return ClassificationResult(like.ids, like.labels, logits[:, None].astype(np.float32), like.class_names)
