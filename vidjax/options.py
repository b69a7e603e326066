"""Dataclass fields that are set by a config: types, ranges and choices, checked in one place."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vidjax.errors import UserError, unknown


def option(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    optional: bool = False,
    kind: type | None = None,
) -> Any:
    """Declares a dataclass field that a config may set.

    Args:
      default: the default, whose type a value must have. None allows any type, unless `kind` is set.
      low, high: closed range of a number.
      choices: the accepted values of a text.
      optional: whether None is accepted; implied by a default of None.
      kind: type of the values where the default is None.
    """
    about: dict[str, Any] = {
        "range": None if low is None else (low, high),
        "choices": tuple(choices),
        "kind": kind,
    }
    about |= {"option": True, "optional": optional or default is None}
    return dataclasses.field(default=default, metadata=about)


def option_fields(cls: type) -> dict[str, dataclasses.Field]:
    """Returns the fields of a dataclass that were declared by `option`."""
    return {f.name: f for f in dataclasses.fields(cls) if f.metadata.get("option")}


def complete(cls: type, given: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Returns all options of a dataclass, with those in `given` replaced.

    Args:
      cls: a dataclass.
      given: values by name.
      section: key of the config that holds them, for messages.

    Raises:
      UserError: an unknown option, or a value of the wrong type, out of range, or not among the choices.
    """
    known = option_fields(cls)
    for name in given:
        if name not in known:
            raise unknown("config key", f"{section}.{name}", [f"{section}.{k}" for k in known])
    return {k: _checked(f"{section}.{k}", given.get(k, f.default), f) for k, f in known.items()}


def _checked(key: str, value: Any, field: dataclasses.Field) -> Any:
    about = field.metadata
    if value == "none" and not isinstance(field.default, str):
        value = None
    if value is None:
        if not about["optional"]:
            raise UserError(f"config key '{key}' must be of type {type(field.default).__name__}, got None")
        return None
    value = typed(f"config key '{key}'", value, field.default)
    if about["kind"] and type(value) is not about["kind"]:
        raise UserError(f"config key '{key}' must be of type {about['kind'].__name__}, got {value!r}")
    if about["choices"] and value not in about["choices"]:
        raise unknown(f"value of {key}", str(value), about["choices"])
    if about["range"]:
        check_range(key, value, *about["range"])
    return value


def typed(what: str, value: Any, default: Any) -> Any:
    """Converts `value` to the type of `default`, or raises a `UserError`."""
    if value == "none" and not isinstance(default, str):
        return None
    if isinstance(value, Mapping):
        raise UserError(f"{what} is a value, not a section, got {value}")
    if default is None or value is None:
        return value
    if default == "auto" and isinstance(value, bool | int):
        return value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1000 else math.inf if value > 0 else -math.inf
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(default, str) and isinstance(value, int | float):
        return str(value)
    if type(value) is not type(default):
        raise UserError(f"{what} must be of type {type(default).__name__}, got {value!r}")
    return value


def check_range(key: str, value: Any, low: float, high: float) -> None:
    """Raises `UserError` if a number is not from `low` to `high`; an integer if `low` is one."""
    whole = isinstance(low, int)
    number = isinstance(value, int | (int if whole else float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        kind = "an integer" if whole else "a number"
        raise UserError(f"config key '{key}' must be {kind} from {low:g} to {high:g}, got {value!r}")
