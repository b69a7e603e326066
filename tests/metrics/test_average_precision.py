"""Tests of average precision against hand-computed values, the definition, and exact expectations."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from vidjax.data.targets import Segment
from vidjax.metrics.average_precision import (
    average_precision,
    chance_average_precision,
    labels_at,
    mean_average_precision,
    per_class_average_precision,
    points,
)


def by_definition(scores, positives):
    """Averages the precision at the positives, given scores without ties."""
    hits = positives[np.argsort(-scores)]
    return np.mean([hits[: i + 1].mean() for i in np.flatnonzero(hits)])


def test_precision_is_averaged_over_positives():
    scores = np.array([0.1, 0.9, 0.4, 0.7, 0.2])
    assert average_precision(scores, [1, 1, 0, 0, 1]) == pytest.approx((1 / 1 + 2 / 4 + 3 / 5) / 3)
    assert average_precision(scores, [0, 1, 0, 1, 0]) == 1
    assert average_precision(scores, [1, 0, 0, 0, 0]) == pytest.approx(1 / 5)
    assert average_precision([0.3], [True]) == 1
    assert np.isnan(average_precision(scores, np.zeros(5, bool)))


def test_average_precision_matches_the_definition_and_scikit_learn():
    rng = np.random.default_rng(0)
    scores = rng.permutation(300).astype(np.float32)
    for share in (0.01, 0.3, 0.9):
        positives = rng.random(300) < share
        want = by_definition(scores, positives)
        assert average_precision(scores, positives) == pytest.approx(want, rel=1e-12)
        assert average_precision_score(positives, scores) == pytest.approx(want, rel=1e-12)


def test_ties_are_independent_of_the_order_of_the_samples():
    scores, positives = np.array([2, 1, 1, 1, 0]), np.array([0, 1, 1, 0, 1], bool)
    want = (2 / 4 + 2 / 4 + 3 / 5) / 3
    for order in map(list, itertools.permutations(range(5))):
        assert average_precision(scores[order], positives[order]) == pytest.approx(want, rel=1e-12)
    assert average_precision(np.zeros(8), np.arange(8) < 3) == pytest.approx(3 / 8)


def test_classes_without_positives_are_left_out_of_the_mean():
    scores = np.array([[0.9, 0.1, 0.5], [0.8, 0.6, 0.4], [0.2, 0.7, 0.3], [0.1, 0.2, 0.2]])
    positives = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]])
    ap = np.array([(1 + 2 / 3 + 3 / 4) / 3, 1 / 4, np.nan])
    np.testing.assert_allclose(per_class_average_precision(scores, positives), ap)
    assert mean_average_precision(scores, positives) == pytest.approx(ap[:2].mean())
    assert mean_average_precision(scores, positives, weighted=True) == pytest.approx((3 * ap[0] + ap[1]) / 4)
    assert np.isnan(mean_average_precision(scores, np.zeros((4, 3), bool)))


def test_leaving_out_unlabeled_videos_is_the_same_as_ranking_them_last():
    rng = np.random.default_rng(1)
    scores, positives = rng.random((40, 3)), rng.random((40, 3)) < 0.2
    labeled = positives.any(1)
    last = np.where(labeled[:, None], scores, scores - 1)
    want = mean_average_precision(last, positives)
    assert mean_average_precision(scores[labeled], positives[labeled]) == pytest.approx(want, rel=1e-12)
    assert mean_average_precision(scores, positives) < want


def test_time_points_start_at_zero_and_end_before_the_video():
    times = points(31.25)
    assert len(times) == 25 and times[0] == 0 and times[1] == 1.25 and times[-1] == 30.0
    assert points(6, n=3).tolist() == [0, 2, 4]


def test_segments_include_their_start_and_end():
    segments = [Segment(2, 4, 1), Segment(3.9, 5, 1), Segment(0, 9, 0), Segment(4.1, 5.9, 2)]
    got = labels_at(segments, points(10, n=5), 4)
    # At 0, 2, 4, 6 and 8 s; class 2 is active only between two points.
    assert got.astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert labels_at([], points(10), 4).shape == (25, 4) and not labels_at([], points(10), 4).any()


def test_chance_level_is_the_mean_over_all_rankings():
    for n, p in ((1, 1), (5, 1), (5, 2), (6, 6)):
        positives = np.arange(n) < p
        ap = [by_definition(np.array(order), positives) for order in itertools.permutations(range(n))]
        assert chance_average_precision(positives) == pytest.approx(np.mean(ap))


def test_chance_level_approaches_the_share_of_positives():
    positives = np.arange(100_000)[:, None] < [100_000, 30_000, 1_000, 0]
    chance = chance_average_precision(positives)
    np.testing.assert_allclose(chance, [1, 0.3, 0.01, np.nan], atol=2e-4)
    assert average_precision(np.zeros(100_000), positives[:, 1]) == pytest.approx(0.3)


def test_invalid_inputs_are_rejected():
    with pytest.raises(ValueError, match=r"must both have shape \[N\]"):
        average_precision(np.zeros(3), np.ones(2, bool))
    with pytest.raises(ValueError, match=r"must both have shape \[N, K\]"):
        mean_average_precision(np.zeros((3, 2)), np.ones((3, 1), bool))
    with pytest.raises(ValueError, match="NaN"):
        average_precision([0.1, np.nan], [True, False])
