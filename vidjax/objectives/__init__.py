"""Pure losses: `loss, aux = objective(model, params, model_state, batch, rng, train)`."""

import dataclasses
from typing import Any

from vidjax.errors import UserError, unknown
from vidjax.objectives.classify import Classify
from vidjax.objectives.mae import MAE

OBJECTIVES = {"classify": Classify, "mae": MAE}


def create_objective(name: str, **options: Any) -> Any:
    """Creates the objective `name`.

    Options of other objectives are ignored at their default values.

    Raises:
      UserError: the objective or an option is unknown, or an option of another objective is set.
    """
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    own = {f.name for f in dataclasses.fields(OBJECTIVES[name])}
    defaults = {f.name: f.default for o in OBJECTIVES.values() for f in dataclasses.fields(o)}
    for key in options.keys() - own:
        if key not in defaults:
            raise unknown(f"option of the objective {name}", key, own)
        if options[key] != defaults[key]:
            raise UserError(f"objective.{key} is not an option of the objective {name}: remove it")
    return OBJECTIVES[name](**{k: v for k, v in options.items() if k in own})
