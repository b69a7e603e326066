"""Accuracy over the number of test views, from one evaluation with many of them.

Of an evaluation of C clips x S crops, two kinds of subsets are scored:

- Protocols of t clips x s crops, for every t from 1 to C and for s = 1, the center crop, and s = S. The clips
  are evenly spaced. These are K-Center and K-LeftCenterRight of X3D (Feichtenhofer, arXiv:2004.04730, section
  4.1 and figure 3).
- Random views: the mean over random subsets of n views, for n from 1, the clip accuracy, to all.

The accuracy from all views is the `video_top1` of the result.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vidjax.errors import UserError
from vidjax.metrics.uncertainty import Interval, bootstrap_mean, mean_over_runs, paired_difference
from vidjax.metrics.views import correct_by_count, correct_by_subset, protocol_views
from vidjax.tasks.fusion import align
from vidjax.tasks.results import ClassificationResult


@dataclasses.dataclass(frozen=True)
class ViewAccuracy:
    """The video accuracy from some of the views.

    Attributes:
      views: number of views.
      crops: crops per clip of a protocol; None for random views.
      top1: accuracy as a fraction.
      low, high: bounds of its interval.
    """

    views: int
    crops: int | None
    top1: float
    low: float
    high: float

    @property
    def name(self) -> str:
        """Clips x crops, such as "10x3", or "random"."""
        return "random" if self.crops is None else f"{self.views // self.crops}x{self.crops}"


def layout(result: ClassificationResult, crops: int | None = None) -> tuple[int, int] | None:
    """Returns the clips and crops of a result, or None if they are unknown.

    Args:
      result: any result.
      crops: crops per clip of a result that does not have them.

    Raises:
      UserError: `crops` does not divide the number of views, or contradicts the result.
    """
    views = result.logits.shape[1]
    if crops is not None and (crops < 1 or views % crops or result.crops not in (None, crops)):
        of = f" of {result.crops} crops per clip" if result.crops else ""
        raise UserError(f"{crops} crops per clip do not fit a result with {views} views{of}")
    crops = crops or result.crops or (1 if views == 1 else None)
    return None if crops is None else (views // crops, crops)


def view_accuracies(
    results: Sequence[ClassificationResult], crops: int | None = None, level: float = 0.95
) -> list[ViewAccuracy]:
    """Returns the accuracies of all protocols, if the layout is known, and of all numbers of random views.

    Args:
      results: one result, whose intervals are over videos by the bootstrap; or those of several runs of one
        model with different seeds, whose intervals are over the runs by Student's t.
      crops: crops per clip of results that do not have them.
      level: of the intervals.

    Raises:
      UserError: the results of several runs differ in their views, or `crops` does not fit.
    """
    layouts = {(r.logits.shape[1], layout(r, crops)) for r in results}
    if len(layouts) > 1:
        raise UserError("the results differ in their views: evaluate all runs with the same clips and crops")
    ((views, clips_crops),) = layouts
    rows: list[tuple[int, int | None]] = []
    subsets = []
    if clips_crops:
        for s in sorted({1, clips_crops[1]}):
            for t in range(1, clips_crops[0] + 1):
                rows.append((t * s, s))
                subsets.append(protocol_views(t, s, *clips_crops))
    rows += [(n, None) for n in range(1, views + 1)]
    correct = [
        np.concatenate(
            [
                *([correct_by_subset(r.logits, r.labels, subsets)] if subsets else []),
                correct_by_count(r.logits, r.labels),
            ],
            axis=1,
        )
        for r in results
    ]
    if len(results) == 1:
        interval = bootstrap_mean(correct[0], level)
    else:
        interval = mean_over_runs(np.stack([c.mean(0) for c in correct]), level)
    return [ViewAccuracy(*row, *map(float, x)) for row, *x in zip(rows, *interval, strict=True)]


def difference(a: ClassificationResult, b: ClassificationResult, level: float = 0.95) -> Interval:
    """Returns the accuracy of a minus that of b, from all views, and its paired bootstrap interval.

    Raises:
      UserError: the videos, labels or classes differ.
    """
    a, b = align([a, b])
    return paired_difference(a.predictions == a.labels, b.predictions == b.labels, level)
