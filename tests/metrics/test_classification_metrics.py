"""Tests of the metrics of single-label classification against hand-computed values."""

import numpy as np

from vidjax.metrics.classification import confusion_matrix, log_mean_softmax, per_class_accuracy, rank


def test_views_are_averaged_after_the_softmax():
    p = np.array([[[0.98, 0.02], [0.2, 0.8]]])
    np.testing.assert_allclose(np.exp(log_mean_softmax(np.add(np.log(p), [[[3], [-7]]]))), [[0.59, 0.41]])
    large = log_mean_softmax(np.array([[[2000, 0, 10]]], np.float32))
    np.testing.assert_array_equal(large, [[0, -2000, -1990]])  # finite and without ties


def test_rank_counts_higher_scores_and_earlier_ties():
    scores = np.array([[3, 1, 2], [1, 1, 1], [1, 1, 1], [0, 5, 5]])
    assert rank(scores, np.array([1, 0, 2, 2])).tolist() == [2, 0, 2, 1]


def test_confusion_matrix_has_true_classes_as_rows():
    counts = confusion_matrix(np.array([0, 0, 0, 2]), np.array([0, 1, 1, 2]), 4)
    assert counts.tolist() == [[1, 2, 0, 0], [0] * 4, [0, 0, 1, 0], [0] * 4]
    np.testing.assert_array_equal(per_class_accuracy(counts), [1 / 3, np.nan, 1, np.nan])
