"""Metrics of single-label classification over one or several views of a video."""

import numpy as np


def log_mean_softmax(logits: np.ndarray) -> np.ndarray:
    """Averages the softmax of the views of each video.

    Args:
      logits: [N, V, K], one row per view.

    Returns:
      Log of the mean probabilities, float64 [N, K], which has no ties by underflow.
    """
    return np.stack([_logsumexp(_log_softmax(x), 0)[0] for x in logits]) - np.log(logits.shape[1])


def rank(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the rank of the label among the scores [N, K], int [N], starting at 0.

    Top-k accuracy is the share of ranks below k. Ties rank by class index, as in `argmax`, so that a constant
    prediction has chance accuracy.
    """
    true = np.take_along_axis(scores, labels[:, None], -1)
    earlier = np.arange(scores.shape[-1])[None] < labels[:, None]
    return ((scores > true) | ((scores == true) & earlier)).sum(-1)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts the videos of class i (row) predicted as class j (column), int [classes, classes]."""
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def per_class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Returns the accuracy of each class, float [K], given the confusion matrix; NaN for absent classes."""
    count = confusion.sum(1)
    return np.where(count > 0, np.diag(confusion) / np.maximum(count, 1), np.nan)


def _logsumexp(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis, keepdims=True)
    return top + np.log(np.exp(x - top).sum(axis, keepdims=True))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    x = logits.astype(np.float64)
    return x - _logsumexp(x, -1)
