"""Late fusion: combines the predictions of several models, each evaluated separately.

Simonyan & Zisserman, arXiv:1406.2199, section 2: the streams' softmax scores are averaged, or a linear SVM is
put on them, L2-normalized and stacked.
"""

from collections.abc import Sequence

import numpy as np

from vidjax.errors import UserError
from vidjax.evals.classification import ClassificationResult


def average(
    results: Sequence[ClassificationResult], weights: Sequence[float] | None = None
) -> ClassificationResult:
    """Returns the weighted mean of the models' scores; a video's score is the mean softmax over its views.

    Args:
      results: two or more of the same videos and classes, in any order of the videos.
      weights: one per result, of any scale; equal where None.

    Returns:
      A result of one view per video, in the first one's order, whose logits are the logarithm of the mean.

    Raises:
      UserError: videos, labels or classes differ, or the weights are not positive numbers, one per result.
    """
    results = align(results)
    w = np.ones(len(results)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (len(results),) or not (w >= 0).all() or not 0 < w.sum() < np.inf:
        raise UserError(f"{len(results)} results want as many weights of 0 or more, not all 0: got {weights}")
    log_w = np.log(w[w > 0] / w.sum()).reshape(-1, 1, 1)
    scores = np.stack([r.log_probs for r, x in zip(results, w) if x > 0]) + log_w
    return _one_view(results[0], np.logaddexp.reduce(scores, 0))


def svm(
    train: Sequence[ClassificationResult], test: Sequence[ClassificationResult], c: float = 1.0
) -> ClassificationResult:
    """A linear SVM, one class against the rest, on the models' L2-normalized scores, stacked.

    Args:
      train: of the models on videos to fit the SVM to, one result per model.
      test: of the same models, in the same order, on the videos to decide on.
      c: the SVM's penalty for training errors.

    Returns:
      A result of one view per video, whose logits are the distances from the SVM's planes. They rank classes;
      as probabilities, in a loss, they mean little. A class that no training video has comes last.

    Raises:
      UserError: numbers of models, videos, labels or classes differ, or training videos of one class only.
    """
    if len(train) != len(test):
        raise UserError(
            f"{len(train)} results to fit the SVM to, and {len(test)} to test: one of each per model"
        )
    train, test = align(train), align(test)
    if train[0].class_names != test[0].class_names:
        raise _other_classes("the training results", train[0], test[0])
    if len(np.unique(train[0].labels)) < 2:
        raise UserError("the videos to fit the SVM to are all of one class")
    if not 0 < c < np.inf:
        raise UserError(f"the SVM's c must be positive and finite, got {c}")
    from sklearn.svm import LinearSVC  # here: it is slow to import

    machine = LinearSVC(C=c, random_state=0, max_iter=10_000).fit(_stacked(train), train[0].labels)
    margins = machine.decision_function(_stacked(test))
    if margins.ndim == 1:  # of two classes
        margins = np.stack([-margins, margins], -1)
    logits = np.full((len(margins), len(test[0].class_names)), margins.min() - 1)
    logits[:, machine.classes_] = margins
    return _one_view(test[0], logits)


def align(results: Sequence[ClassificationResult]) -> list[ClassificationResult]:
    """Returns the results with their videos in the order of the first one.

    Raises:
      UserError: fewer than two, or they are not of the same videos, labels and classes.
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
                f"{which} is of {len(r.ids)} videos and the first of {len(first.ids)}, {len(odd)} are in one "
                f"only, such as {', '.join(odd[:3])}: evaluate all models on the same split"
            )
        order = np.array([place[name] for name in first.ids])
        if (wrong := r.labels[order] != first.labels).any():
            raise UserError(f"{which} has another label than the first for {first.ids[int(wrong.argmax())]}")
        out.append(ClassificationResult(first.ids, first.labels, r.logits[order], r.class_names))
    return out


def _other_classes(which: str, a: ClassificationResult, b: ClassificationResult) -> UserError:
    odd = sorted({*a.class_names} ^ {*b.class_names})[:3]
    what = f"classes such as {', '.join(odd)} are in one only" if odd else "the order of the classes differs"
    return UserError(f"{which} cannot be fused with the others: {what}")


def _stacked(results: Sequence[ClassificationResult]) -> np.ndarray:
    """[N, models x K]: each model's scores of a video, of length 1."""
    scores = [np.exp(r.log_probs) for r in results]
    return np.concatenate([s / np.linalg.norm(s, axis=-1, keepdims=True) for s in scores], -1)


def _one_view(like: ClassificationResult, logits: np.ndarray) -> ClassificationResult:
    return ClassificationResult(like.ids, like.labels, logits[:, None].astype(np.float32), like.class_names)
