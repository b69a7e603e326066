"""The X3D search: stepwise expansion of a tiny image network along one axis at a time.

"X3D: Expanding Architectures for Efficient Video Recognition", Feichtenhofer, CVPR 2020, arXiv:2004.04730,
sections 3.1 and 3.2. The search starts from X2D, on one frame of 112x112. A step expands each of six axes by
as much as doubles the cost, trains the six networks and keeps the best (`expand`); where the last step
overshoots the budget, its axis is contracted (`contract`). `family` repeats the steps that won on
Kinetics-400 (figure 2).
"""

import dataclasses
import math
from collections.abc import Callable

DEPTHS = (1, 2, 5, 3)  # blocks per stage at depth 1 (table 1)
WIDTHS = (24, 48, 96, 192)  # channels per stage at width 1
HEAD_WIDTH = 2048


@dataclasses.dataclass(frozen=True)
class Expansion:
    """A point of the search: six expansion factors, expressed as sizes of the input and the network.

    Attributes:
      frames: T of the clip (gamma_t).
      stride: temporal stride of the clip's frames in the video (the inverse of gamma_tau).
      size: height and width, pixels (gamma_s times 112).
      width: factor on all channels (gamma_w).
      bottleneck: ratio of a block's inner channels to its output channels (gamma_b).
      depth: factor on the blocks of each stage (gamma_d).
    """

    frames: int = 1
    stride: int = 48
    size: int = 112
    width: float = 1.0
    bottleneck: float = 1.0
    depth: float = 1.0

    @property
    def stage_sizes(self) -> tuple[int, ...]:
        return tuple(math.ceil(self.depth * n) for n in DEPTHS)

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(round_channels(self.width * n) for n in WIDTHS)

    @property
    def gmacs(self) -> float:
        """Multiply-adds of one clip in units of 1e9, with 400 classes."""
        side, channels = -(-self.size // 2), self.widths[0]
        per_frame, per_clip = side**2 * channels * (27 + 5), 0
        for width, blocks in zip(self.widths, self.stage_sizes):
            inner = int(width * self.bottleneck)
            for j in range(blocks):
                per_frame += side**2 * channels * inner
                if j == 0:
                    side = -(-side // 2)
                    per_frame += side**2 * channels * width
                per_frame += side**2 * inner * (27 + width)
                per_clip += 2 * inner * round_channels(inner / 16) if j % 2 == 0 else 0
                channels = width
        per_frame += side**2 * channels * inner
        return (per_frame * self.frames + per_clip + HEAD_WIDTH * (inner + 400)) / 1e9


X2D = Expansion()


def round_channels(width: float) -> int:
    """Rounds to the nearest multiple of 8, at least 8, and up if that would lose more than 10 percent."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


# Section 3.2. A clip can grow at the same duration (fast) or over a longer one (temporal; of the factor, the
# duration takes the root and the frame rate the rest).
AXES: dict[str, Callable[[Expansion, float], dict]] = {
    "fast": lambda p, f: dict(frames=round(p.frames * f), stride=max(1, round(p.stride / f))),
    "temporal": lambda p, f: dict(frames=round(p.frames * f), stride=max(1, round(p.stride / math.sqrt(f)))),
    "spatial": lambda p, f: dict(size=round(p.size * f / 8) * 8),
    "depth": lambda p, f: dict(depth=p.depth * f),
    "width": lambda p, f: dict(width=p.width * f),
    "bottleneck": lambda p, f: dict(bottleneck=p.bottleneck * f),
}


def scale_axis(point: Expansion, axis: str, gmacs: float) -> Expansion:
    """Scales one axis of `point` so that the cost of a clip is as close to `gmacs` as rounding allows.

    Raises:
      KeyError: `axis` is not in `AXES`.
    """
    low, high = 1 / 16, 16.0
    tried = []
    for _ in range(40):
        factor = math.sqrt(low * high)
        tried.append(dataclasses.replace(point, **AXES[axis](point, factor)))
        low, high = (factor, high) if tried[-1].gmacs < gmacs else (low, factor)
    return min(tried, key=lambda p: abs(p.gmacs - gmacs))


def candidates(point: Expansion, factor: float = 2.0) -> dict[str, Expansion]:
    """Returns the six candidates of one step, each with one axis expanded to `factor` times the cost."""
    return {axis: scale_axis(point, axis, factor * point.gmacs) for axis in AXES}


def expand(
    evaluate: Callable[[Expansion], float], gmacs: float, start: Expansion = X2D, factor: float = 2.0
) -> list[tuple[str, Expansion]]:
    """Expands until a clip costs at least `gmacs`, then contracts to that budget.

    Args:
      evaluate: trains a network and returns its score; called six times per step.
      gmacs: the budget, 1e9 multiply-adds of a clip.
      start: starting point.
      factor: increase in cost per step.

    Returns:
      (axis, point) of each step, followed by ("contract", point) if the last step exceeded the budget.
    """
    steps, point = [], start
    while point.gmacs < gmacs:
        found = candidates(point, factor)
        axis = max(found, key=lambda a: evaluate(found[a]))
        before, point = point, found[axis]
        steps.append((axis, point))
    if steps and point.gmacs > gmacs:
        steps.append(("contract", scale_axis(before, axis, gmacs)))
    return steps


# The axis selected in each step on Kinetics-400, with the paper's final values; each step about doubles the
# cost. X3D-XS is the fifth step, X3D-S the seventh, contracted. The kind of the temporal steps after the
# fifth and the stride of the sixth are inferred from the published instances.
STEPS: tuple[tuple[str, dict], ...] = (
    ("bottleneck", dict(bottleneck=2.25)),
    ("fast", dict(frames=2, stride=24)),
    ("spatial", dict(size=160)),
    ("depth", dict(depth=2.2)),
    ("temporal", dict(frames=4, stride=12)),
    ("fast", dict(frames=8, stride=6)),
    ("temporal", dict(frames=16, stride=5)),
    ("spatial", dict(size=224)),
    ("spatial", dict(size=312)),
    ("depth", dict(depth=5.0)),
)
CONTRACTED = dict(frames=13, stride=6)


def family() -> dict[str, Expansion]:
    """Returns X3D-XS, S, M and L: X2D after five steps, seven and a contraction, eight, and ten."""
    points = [X2D]
    for _, change in STEPS:
        points.append(dataclasses.replace(points[-1], **change))
    small = dataclasses.replace(points[7], **CONTRACTED)
    return {"x3d_xs": points[5], "x3d_s": small, "x3d_m": points[8], "x3d_l": points[10]}
