"""Metrics of features: nearest-neighbor classification, and measures of collapse."""

import numpy as np


def knn_predict(
    bank: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> np.ndarray:
    """Weighted k-nearest-neighbor scores (Wu et al., arXiv:1805.01978, section 3.4).

    Args:
      bank: features [M, D] of labeled clips.
      labels: int [M], classes of the labeled clips.
      queries: features [N, D] to classify.
      classes: K, the number of classes.
      k: number of neighbors by cosine similarity, at most M.
      temperature: a neighbor of similarity s votes with weight exp(s / temperature).

    Returns:
      Scores float64 [N, K].
    """
    bank, queries = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (bank, queries))
    similarity = queries @ bank.T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : min(k, len(bank))]
    votes = np.exp((np.take_along_axis(similarity, nearest, 1) - 1) / temperature).astype(np.float64)
    scores = np.zeros((len(queries), classes))
    np.add.at(scores, (np.arange(len(queries))[:, None], labels[nearest]), votes)
    return scores


def effective_rank(features: np.ndarray) -> float:
    """Returns the effective rank of features [N, D] (Roy & Vetterli, EUSIPCO 2007).

    This is the exponential of the entropy of the normalized singular values of the centered features: 1 if
    they lie on a line, D if they spread evenly.
    """
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    if values.sum() == 0:
        return 1.0
    p = values / values.sum()
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def feature_std(features: np.ndarray) -> float:
    """Returns the mean standard deviation of the L2-normalized features [N, D], times sqrt(D).

    It is near 0 if the features have collapsed to one direction, and near 1 if they point in all directions.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return float(unit.std(0).mean() * features.shape[1] ** 0.5)
