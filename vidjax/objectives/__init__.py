"""Pure losses: `loss, aux = objective(model, params, model_state, batch, rng, train)`."""

import dataclasses
from typing import Any

from vidjax.errors import UserError, unknown
from vidjax.objectives.classify import Classify
from vidjax.objectives.mae import MAE

OBJECTIVES = {"classify": Classify, "mae": MAE}


def create_objective(name: str, **options: Any) -> Any:
    """The objective called `name`; options of another objective are refused where they are set.

    Raises:
      UserError: an unknown objective, or an option that is not its own and is not at rest.
    """
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    own = {f.name for f in dataclasses.fields(OBJECTIVES[name])}
    resting = {f.name: f.default for o in OBJECTIVES.values() for f in dataclasses.fields(o)}
    for key in options.keys() - own:
        if key not in resting:
            raise unknown(f"option of the objective {name}", key, own)
        if options[key] != resting[key]:
            raise UserError(f"objective.{key} means nothing to the objective {name}: leave it out")
    return OBJECTIVES[name](**{k: v for k, v in options.items() if k in own})
