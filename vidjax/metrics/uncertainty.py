"""Confidence intervals of means: over the videos of a test set, and over runs that differ in their seed.

The two answer different questions. `bootstrap_mean` is about other test videos for the same weights;
`mean_over_runs` is about other seeds for the same test videos.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

_DRAWN = 2**22  # videos that are drawn at a time, to bound the memory


class Interval(NamedTuple):
    """A mean and its confidence interval, float64 scalars or arrays [M]."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bootstrap_mean(
    values: np.ndarray, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Returns the mean over videos and its percentile bootstrap interval.

    Videos are drawn with replacement, and the interval lies between two quantiles of the means of the draws
    (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3). For few videos it is slightly
    too narrow; if all values are equal, it has no width.

    Args:
      values: one value per video, [N], or M of them, [N, M], which share the draws. Accuracy is the mean of 1
        for each correct video and 0 for the others.
      level: probability that the interval contains the expected mean.
      resamples: number of draws of N videos.
      seed: of the draws.

    Raises:
      ValueError: there are no values, or they are not finite.
    """
    values = _checked(values, level)
    n = len(values)
    columns = values.reshape(n, -1)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, step := max(1, _DRAWN // n)):
        rows = min(step, resamples - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        means.append(counts.astype(np.float64) @ columns / n)
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    shape = values.shape[1:]
    return Interval(values.mean(0), low.reshape(shape)[()], high.reshape(shape)[()])


def paired_difference(
    a: np.ndarray, b: np.ndarray, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Returns the mean of a - b over the same videos and its bootstrap interval, see `bootstrap_mean`.

    Videos that are hard for both models cancel, so the interval is narrower than those of the two means
    suggest. The models differ at this level if it does not contain 0.

    Args:
      a, b: values of two models for the same videos in the same order, [N] or [N, M].
      level, resamples, seed: see `bootstrap_mean`.

    Raises:
      ValueError: the shapes differ, there are no values, or they are not finite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"values of shapes {a.shape} and {b.shape} are not of the same videos")
    return bootstrap_mean(a - b, level, resamples, seed)


def mean_over_runs(values: np.ndarray, level: float = 0.95) -> Interval:
    """Returns the mean over runs and its interval by Student's t: mean ± t s / sqrt(R).

    Here s is the standard deviation with R - 1 degrees of freedom, and t the quantile (1 + level) / 2 of the
    t distribution, 4.30 for three runs at 0.95. Runs are assumed to be normally distributed, so bounds of an
    accuracy can be outside 0 to 1.

    Args:
      values: one value per run, [R], or M of them, [R, M]; for instance the accuracies of three seeds.
      level: probability that the interval contains the expected mean.

    Raises:
      ValueError: there are fewer than two runs, or the values are not finite.
    """
    values = _checked(values, level)
    runs = len(values)
    if runs < 2:
        raise ValueError("an interval over runs needs at least two of them")
    half = stdtrit(runs - 1, (1 + level) / 2) * values.std(0, ddof=1) / np.sqrt(runs)
    return Interval(mean := values.mean(0), mean - half, mean + half)


def half_width(values: Sequence[float]) -> float | None:
    """Returns half the width of the 95 % t interval of the mean over runs, None for a single one."""
    if len(values) < 2:
        return None
    over = mean_over_runs(np.array(values))
    return float(over.high - over.mean)


def _checked(values: np.ndarray, level: float) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim not in (1, 2) or not values.size or not np.isfinite(values).all():
        raise ValueError(f"an interval needs finite values [N] or [N, M], not {values.shape} of {values}")
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval must be between 0 and 1, not {level}")
    return values
