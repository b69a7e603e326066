"""Pure losses: `loss, aux = objective(model, params, model_state, batch, rng, train)`."""

from typing import Any

from vidjax.errors import unknown
from vidjax.objectives.classify import Classify
from vidjax.objectives.mae import MAE

OBJECTIVES = {"classify": Classify, "mae": MAE}


def create_objective(name: str, **options: Any) -> Any:
    """The objective called `name`. Raises `UserError` with the nearest names for any other."""
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name](**options)
