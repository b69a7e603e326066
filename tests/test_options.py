"""Options of dataclasses: types, ranges, choices, None, and one-line errors."""

import dataclasses
import math

import pytest

from vidjax.errors import UserError
from vidjax.options import check_range, complete, option, option_fields, typed


@dataclasses.dataclass(frozen=True)
class Thing:
    inner: int = 3  # not an option
    flag: bool = option(False)
    count: int = option(2, 1, 10)
    share: float = option(0.5, 0.0, 1.0)
    pool: str = option("mean", choices=("mean", "max"))
    sides: tuple = option((1, 2))
    limit: float = option(1.0, 0.0, 2.0, optional=True)
    size: int | None = option(None, 1, 100)
    split: str | None = option(None, kind=str)
    whole: int | None = option(None, kind=int)


def accepted(**given):
    (name,) = given
    return complete(Thing, given, "task")[name]


def test_defaults_are_completed_and_only_options_are_listed():
    got = complete(Thing, {"count": 5}, "task")
    assert got.pop("count") == 5
    assert got == {f.name: f.default for f in dataclasses.fields(Thing) if f.name not in ("inner", "count")}
    assert "inner" not in option_fields(Thing) and Thing(**got, count=1).inner == 3


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("count", 1, 1),
        ("count", 10, 10),
        ("share", 1, 1.0),
        ("share", 0.0, 0.0),
        ("pool", "max", "max"),
        ("sides", [3, 4], (3, 4)),
        ("limit", None, None),
        ("limit", "none", None),
        ("size", None, None),
        ("size", "none", None),
        ("size", 100, 100),
        ("split", "none", None),
        ("split", "val", "val"),
        ("whole", 7, 7),
    ],
)
def test_valid_values_are_converted_to_the_type_of_the_default(name, value, expected):
    got = accepted(**{name: value})
    assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("flag", 1, "config key 'task.flag' must be of type bool, got 1"),
        ("flag", "yes", "config key 'task.flag' must be of type bool, got 'yes'"),
        ("count", 0, "config key 'task.count' must be an integer from 1 to 10, got 0"),
        ("count", 11, "config key 'task.count' must be an integer from 1 to 10, got 11"),
        ("count", 2.0, "config key 'task.count' must be of type int, got 2.0"),
        ("count", True, "config key 'task.count' must be of type int, got True"),
        ("count", None, "config key 'task.count' must be of type int, got None"),
        ("count", "none", "config key 'task.count' must be of type int, got None"),
        ("count", {"a": 1}, "config key 'task.count' is a value, not a section, got {'a': 1}"),
        ("share", 1.5, "config key 'task.share' must be a number from 0 to 1, got 1.5"),
        ("share", math.nan, "config key 'task.share' must be a number from 0 to 1, got nan"),
        ("share", 10**400, "config key 'task.share' must be a number from 0 to 1, got inf"),
        ("share", False, "config key 'task.share' must be of type float, got False"),
        ("limit", -1, "config key 'task.limit' must be a number from 0 to 2, got -1.0"),
        ("pool", "maxx", "unknown value of task.pool 'maxx': did you mean max"),
        ("pool", 3, "unknown value of task.pool '3': one of max, mean"),
        ("pool", None, "config key 'task.pool' must be of type str, got None"),
        ("sides", 3, "config key 'task.sides' must be of type tuple, got 3"),
        ("size", 0, "config key 'task.size' must be an integer from 1 to 100, got 0"),
        ("size", 2.5, "config key 'task.size' must be an integer from 1 to 100, got 2.5"),
        ("size", True, "config key 'task.size' must be an integer from 1 to 100, got True"),
        ("split", 3, "config key 'task.split' must be of type str, got 3"),
        ("split", ["val"], "config key 'task.split' must be of type str, got ['val']"),
        ("whole", True, "config key 'task.whole' must be of type int, got True"),
        ("counts", 3, "unknown config key 'task.counts': did you mean task.count"),
        ("inner", 3, "unknown config key 'task.inner'"),
    ],
)
def test_invalid_values_are_reported_in_one_line(name, value, message):
    with pytest.raises(UserError) as e:
        accepted(**{name: value})
    assert str(e.value).startswith(message) and "\n" not in str(e.value)


def test_an_invalid_default_is_reported():
    @dataclasses.dataclass(frozen=True)
    class Wrong:
        count: int = option(20, 1, 10)

    with pytest.raises(UserError, match=r"'a\.b\.count' must be an integer from 1 to 10, got 20"):
        complete(Wrong, {}, "a.b")


def test_typed_converts_to_the_default():
    assert typed("x", 3, "auto") == 3 and typed("x", True, "auto") is True and typed("x", 3, "text") == "3"
    assert typed("x", "none", 1) is None and typed("x", "none", "text") == "none"
    assert typed("x", [1], None) == [1] and typed("x", -(10**400), 1.0) == -math.inf


def test_ranges_are_closed():
    for value in (0.0, 1, 1.0):
        check_range("x", value, 0.0, 1.0)
    for value in (-1e-9, 1 + 1e-9, None, "1", [0.5]):
        with pytest.raises(UserError, match="'x' must be a number from 0 to 1"):
            check_range("x", value, 0.0, 1.0)
