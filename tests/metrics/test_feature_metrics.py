"""Tests of metrics of features."""

import numpy as np
import pytest

from vidjax.metrics.features import effective_rank, feature_std, knn_predict


def test_neighbors_vote_by_similarity():
    rng = np.random.default_rng(0)
    centers = np.eye(3, 8) * 5
    labels = np.repeat(np.arange(3), 20)
    bank = centers[labels] + rng.normal(size=(60, 8))
    scores = knn_predict(bank, labels, centers, 3, k=5)
    assert (scores.argmax(1) == [0, 1, 2]).all()
    one = knn_predict(np.eye(2), np.array([1, 0]), np.array([[1.0, 0.0]]), 2, k=2, temperature=0.5)
    np.testing.assert_allclose(one, [[np.exp(-2.0), 1.0]])


def test_rank_and_std_detect_collapse():
    rng = np.random.default_rng(0)
    wide, line = rng.normal(size=(500, 16)), np.outer(rng.normal(size=500), np.ones(16))
    assert effective_rank(wide) > 15 and effective_rank(line) == pytest.approx(1, abs=1e-6)
    assert effective_rank(np.ones((5, 3))) == 1
    assert feature_std(wide) == pytest.approx(1, abs=0.05) and feature_std(np.ones((9, 4)) * 3) < 1e-6
