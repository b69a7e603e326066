"""Tests of the correctness of predictions from some of the views."""

import itertools

import numpy as np
import pytest

from vidjax.data.sampling import test_clips as clips_of
from vidjax.metrics.views import correct_by_count, correct_by_subset, evenly_spaced, protocol_views


def data(n=70, views=4, k=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, views, k)).astype(np.float32) * 2
    logits[np.arange(n), :, labels] += 1
    return logits, labels


def test_evenly_spaced_indices_match_hand_computed_values():
    found = {
        (10, 1): [4],
        (10, 3): [0, 4, 9],
        (10, 4): [0, 3, 6, 9],
        (3, 1): [1],
        (3, 2): [0, 2],
        (1, 1): [0],
    }
    assert {case: evenly_spaced(*case).tolist() for case in found} == found
    for count in (0, 4):
        with pytest.raises(ValueError, match="cannot choose"):
            evenly_spaced(3, count)


@pytest.mark.parametrize("of, counts", [(10, (2, 4, 10)), (9, (1, 2, 3, 5, 9)), (5, (1, 2, 3, 5))])
def test_evenly_spaced_clips_are_those_of_a_separate_evaluation(of, counts):
    for total, count in itertools.product((41, 100, 257), counts):
        chosen = clips_of(total, 16, 2, of)[evenly_spaced(of, count)]
        np.testing.assert_array_equal(chosen, clips_of(total, 16, 2, count))


def test_protocol_views_are_numbered_clip_by_clip():
    assert protocol_views(2, 1, 3, 3).tolist() == [1, 7]
    assert protocol_views(1, 3, 3, 3).tolist() == [3, 4, 5]
    assert protocol_views(3, 3, 3, 3).tolist() == list(range(9))


def test_subsets_average_the_softmax_of_their_views():
    p = np.log([[[0.98, 0.02], [0.2, 0.8], [0.3, 0.7]]])
    found = correct_by_subset(np.repeat(p, 2, 0), np.array([0, 1]), [[0], [1], [0, 1], [1, 2], [0, 1, 2]])
    right = [True, False, True, False, False]  # means of class 0: 0.98, 0.2, 0.59, 0.25, 0.49
    np.testing.assert_array_equal(found, [right, [not r for r in right]])


def test_random_views_approach_the_mean_over_all_subsets():
    logits, labels = data()
    found = correct_by_count(logits, labels, orders=600)
    for n in range(1, 5):
        subsets = [list(s) for s in itertools.combinations(range(4), n)]
        exact = correct_by_subset(logits, labels, subsets).mean(1)
        np.testing.assert_allclose(found[:, n - 1], exact, atol=0 if n in (1, 4) else 0.09)
        assert found[:, n - 1].mean() == pytest.approx(exact.mean(), abs=0.005)


def test_random_views_depend_on_the_seed_only():
    logits, labels = data(views=6)
    once, again, other = (correct_by_count(logits, labels, 3, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
