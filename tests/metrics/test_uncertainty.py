"""Tests of confidence intervals: hand-computed cases, scipy, and coverage on simulated data."""

import numpy as np
import pytest
import scipy.stats

from vidjax.metrics.uncertainty import bootstrap_mean, mean_over_runs, paired_difference


def test_bootstrap_of_two_videos_matches_its_exact_distribution():
    # The means of two draws from {0, 1} are 0, 1/2 and 1 with probabilities 1/4, 1/2 and 1/4.
    assert bootstrap_mean([0, 1], level=0.6) == (0.5, 0, 1)
    assert bootstrap_mean([0, 1], level=0.4) == (0.5, 0.5, 0.5)


def test_bootstrap_matches_scipy():
    values = np.random.default_rng(0).gamma(1.0, size=40)
    found = bootstrap_mean(values, 0.9)
    reference = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=10_000, method="percentile", rng=1
    ).confidence_interval
    assert found.mean == values.mean()
    np.testing.assert_allclose(found[1:], reference, atol=0.015)  # the interval is 0.5 wide


def test_bootstrap_is_seeded_and_its_columns_share_the_draws():
    right = np.random.default_rng(0).random(50) < 0.7
    both = bootstrap_mean(np.stack([right, ~right], 1), seed=3)
    alone = bootstrap_mean(right, seed=3)
    np.testing.assert_allclose([both.low[0], both.high[0]], alone[1:])
    np.testing.assert_allclose([both.low[1], both.high[1]], [1 - alone.high, 1 - alone.low])
    values = np.random.default_rng(1).normal(size=50)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_resampling_in_parts_keeps_all_draws(monkeypatch):
    values = np.random.default_rng(0).normal(size=30)
    whole = bootstrap_mean(values, resamples=1000)
    monkeypatch.setattr("vidjax.metrics.uncertainty._DRAWN", 30 * 7)
    np.testing.assert_allclose(bootstrap_mean(values, resamples=1000), whole)


def test_bootstrap_interval_covers_the_expected_accuracy():
    right = np.random.default_rng(0).random((150, 600)) < 0.7  # 600 simulated test sets
    found = bootstrap_mean(right, 0.9, resamples=1000)
    assert 0.86 < ((found.low <= 0.7) & (found.high >= 0.7)).mean() < 0.93


def test_paired_difference_of_models_that_fail_on_the_same_videos_is_narrow():
    rng = np.random.default_rng(0)
    easy = rng.random(200) < 0.6
    a, b = easy | (rng.random(200) < 0.15), easy | (rng.random(200) < 0.02)
    found = paired_difference(a, b)
    assert found.mean == pytest.approx(a.mean() - b.mean()) and found.low > 0
    widths = [high - low for _, low, high in (bootstrap_mean(a), bootstrap_mean(b))]
    assert found.high - found.low < 0.6 * np.hypot(*widths)  # that of independent videos
    assert paired_difference(a, a) == (0, 0, 0)


def test_mean_over_runs_is_the_interval_of_student():
    # t of 2 degrees of freedom at 0.975 is 4.302653, and the standard deviation of 1, 2, 3 is 1.
    half = 4.302653 / 3**0.5
    np.testing.assert_allclose(mean_over_runs([1, 2, 3]), [2, 2 - half, 2 + half], rtol=1e-6)
    found = mean_over_runs(np.random.default_rng(0).normal(0.8, 0.02, size=(3, 4000)))
    assert 0.94 < ((found.low <= 0.8) & (found.high >= 0.8)).mean() < 0.96


@pytest.mark.parametrize("values", [[], [[]], [0, np.nan], 1.0, np.zeros((2, 2, 2))])
def test_values_without_an_interval_are_rejected(values):
    for function in (bootstrap_mean, mean_over_runs):
        with pytest.raises(ValueError, match="finite values"):
            function(values)


def test_invalid_arguments_are_rejected():
    with pytest.raises(ValueError, match="at least two"):
        mean_over_runs([0.5])
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean([0, 1], 95)
    with pytest.raises(ValueError, match="same videos"):
        paired_difference([0, 1], [0, 1, 1])
