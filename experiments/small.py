"""The budget that the tables at scale cpu share: tiny models on the embedded motions and on Weizmann.

Every cell has the same clips, updates and optimizer (configs/*/any_model.py, with `BUDGET` on the motions),
its own learning rate from the same grid, and three seeds. Models differ in width, depth and what their row is
about.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

import vidjax
from experiments.cells import Outcome, Train
from experiments.table import Column, top1
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.params import count_params

# Pairs of classes of the embedded motion data that are each other's reverse in time.
REVERSED = (
    ("move_left", "move_right"),
    ("move_up", "move_down"),
    ("spin_clockwise", "spin_counterclockwise"),
    ("colours_forward", "colours_backward"),
    ("grow_then_snap", "shrink_then_snap"),
)
BUDGET = {"batch": 8, "epochs": 2.5}  # 1,500 updates
VALIDATED = ("ira", "lena")  # performers of Weizmann on whom learning rates are chosen, apart from the tested


def motion(model: str, overrides: Mapping[str, Any] | None = None, **fields: Any) -> Train:
    """Returns the cell of a model on the twelve embedded motions; `fields` are those of `Train`."""
    tune = {"evals.tune": {"type": "metrics", "split": "val", "every": 0.0}}
    config = f"configs/synthetic_motion/any_model.py:model={model}"
    return Train(config, {**BUDGET, **tune, **(overrides or {})}, **fields)


def weizmann(model: str, overrides: Mapping[str, Any] | None = None, **fields: Any) -> Train:
    """Returns the cell of a model on Weizmann; `fields` are those of `Train`."""
    validation = {"data.options.val_groups": VALIDATED, "data.eval_split": "val"}
    config = f"configs/weizmann/any_model.py:model={model}"
    return Train(config, overrides or {}, validation=validation, **fields)


def options(**fields: Any) -> dict[str, Any]:
    """Returns overrides that set fields of the model."""
    return {f"model.options.{name}": value for name, value in fields.items()}


def direction(outcome: Outcome) -> float:
    """Returns how often the true class scores above its reversed version; chance is 0.5.

    Evaluated on the videos of the ten motions that have a reverse. Models that ignore the order of frames
    are at chance, however well they distinguish other classes.
    """
    result = outcome.result
    names = list(result.class_names)
    other = {names.index(a): names.index(b) for pair in REVERSED for a, b in (pair, pair[::-1])}
    scores = result.logits.mean(1)
    rows = [i for i, label in enumerate(result.labels) if int(label) in other]
    right = [scores[i, result.labels[i]] > scores[i, other[int(result.labels[i])]] for i in rows]
    return float(np.mean(right))


MOTION = (
    Column("motion top-1", "motion", top1, 1 / 12),
    Column("motion direction", "motion", direction, 0.5),
)
WEIZMANN = (Column("Weizmann top-1", "weizmann", top1, 0.1),)


def counted(model: str, clip: tuple[int, ...] = (8, 32, 32, 3), **fields: Any) -> dict[str, Any]:
    """Counts the parameters and multiply-adds of a tiny model for a clip [T, H, W, C] of the motions."""
    traced = graph.trace(vidjax.create_model(model, 12, tiny=True, **fields), clip)
    return {
        "parameters": count_params(traced.variables["params"]),
        "MMACs": round(jaxpr_cost(traced.jaxpr).macs / 1e6, 1),
    }
