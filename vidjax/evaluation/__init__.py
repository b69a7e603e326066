"""Evaluations that a config names: what is measured, on which split, and how often.

Each kind is one file of this package; `evals.NAME.type` of a config selects it, and its options are the other
keys of `evals.NAME`.
"""

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from vidjax.errors import unknown
from vidjax.evaluation.base import Eval
from vidjax.options import complete


@functools.cache
def _import_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def kinds() -> dict[str, type[Eval]]:
    """Returns all kinds of evaluations by type: those of this package, and others that were imported."""
    _import_all()
    return {cls.type: cls for cls in sorted(Eval.__subclasses__(), key=lambda cls: cls.type)}


def eval_class(kind: str) -> type[Eval]:
    """Returns the class of a type of evaluation. Raises `UserError` if it is unknown."""
    if kind not in kinds():
        raise unknown("type of evaluation", kind, kinds())
    return kinds()[kind]


def create_evals(section: Mapping[str, Mapping[str, Any]]) -> dict[str, Eval]:
    """Creates the evaluations of a config's section `evals`, by name.

    Raises:
      UserError: a type or an option is unknown, or a value is out of range.
    """
    made = {}
    for name, given in section.items():
        options = {k: v for k, v in given.items() if k != "type"}
        cls = eval_class(given["type"])
        made[name] = cls(**complete(cls, options, f"evals.{name}"))
    return made
