"""Average precision of multi-label classification and frame-level localization, as defined by Charades.

Sigurdsson et al., Hollywood in Homes, arXiv:1604.01753; the official scripts Charades_v1_classify.m and
Charades_v1_localize.m. They differ from these functions in two cases:

- Ties: the scripts rank tied samples in the order of the files.
- Classes without positives: they make the scripts' mAP NaN; the functions leave them out.

Charades_v1_classify.m also ranks videos without any action last, whatever their scores, which is the same as
leaving them out. To compare with its results, pass only the rows with `positives.any(1)`.
"""

from collections.abc import Iterable

import numpy as np


def average_precision(scores: np.ndarray, positives: np.ndarray) -> float:
    """Averages the precision at the rank of each positive, by descending score.

    Tied samples share the lowest rank of their group, so the result is independent of the order of the
    samples, and that of constant scores is the share of positives.

    Args:
      scores: finite, [N].
      positives: bool [N].

    Returns:
      The average precision in [0, 1]; NaN without positives.

    Raises:
      ValueError: the shapes differ, or scores are not finite.
    """
    from sklearn.metrics import average_precision_score  # not at the top, because it is slow to import

    scores, positives = np.asarray(scores), np.asarray(positives, bool)
    if scores.shape != positives.shape or scores.ndim != 1:
        raise ValueError(f"scores {scores.shape} and positives {positives.shape} must both have shape [N]")
    return float(average_precision_score(positives, scores)) if positives.any() else np.nan


def per_class_average_precision(scores: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Returns the average precision of each class, float64 [K], given scores and positives [N, K]."""
    scores, positives = np.asarray(scores), np.asarray(positives)
    if scores.shape != positives.shape or scores.ndim != 2:
        raise ValueError(f"scores {scores.shape} and positives {positives.shape} must both have shape [N, K]")
    return np.array([average_precision(s, p) for s, p in zip(scores.T, positives.T)])


def mean_average_precision(scores: np.ndarray, positives: np.ndarray, weighted: bool = False) -> float:
    """Averages the average precision over the classes with positives (mAP).

    Args:
      scores: finite, [N, K].
      positives: bool [N, K].
      weighted: whether to weight classes by their number of positives (the wAP of Charades).

    Returns:
      The mAP in [0, 1]; NaN without positives.
    """
    precisions = per_class_average_precision(scores, positives)
    counts = np.asarray(positives, bool).sum(0)
    present = counts > 0
    if not present.any():
        return np.nan
    return float(np.average(precisions[present], weights=counts[present] if weighted else None))


def points(duration: float, n: int = 25) -> np.ndarray:
    """Returns the n time points of Charades_v1_localize.m in seconds: 0, duration / n, 2 duration / n, ...

    The last one is (n - 1) / n of the duration, not the end of the video.
    """
    return np.arange(n) / n * duration


def labels_at(segments: Iterable[tuple[float, float, int]], times: np.ndarray, classes: int) -> np.ndarray:
    """Returns which classes are active at each time, bool [T, classes].

    Args:
      segments: (start, end, label) with times in seconds; start and end belong to the segment, as in
        Charades_v1_localize.m.
      times: [T], in seconds.
      classes: number of classes.
    """
    active = np.zeros((len(times), classes), bool)
    for start, end, label in segments:
        active[:, label] |= (start <= times) & (times <= end)
    return active


def chance_average_precision(positives: np.ndarray) -> np.ndarray:
    """Returns the expected average precision of random scores without ties.

    It approaches the share of positives p / n from above as n grows, but is far above it for few samples:
    (p - 1) / (n - 1) + (n - p) / (n - 1) H_n / n with the harmonic number H_n = 1 + 1/2 + ... + 1/n
    (Bestgen, Exact Expected Average Precision of the Random Baseline, PBML 103, 2015). Constant scores give
    exactly p / n.

    Args:
      positives: bool [N] or [N, K].

    Returns:
      float64, a scalar or [K]; NaN for classes without positives.
    """
    positives = np.asarray(positives, bool)
    n, p = len(positives), positives.sum(0)
    harmonic = (1 / np.arange(1, n + 1)).sum()
    expected = (p - 1 + (n - p) * harmonic / n) / (n - 1) if n > 1 else np.ones_like(p, float)
    return np.where(p > 0, expected, np.nan)
