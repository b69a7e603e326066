"""Bidirectional conversion of weights between naming schemes, by declarative rules.

A rule maps a pattern of source names to a pattern of vidjax paths, with an invertible transform, so the same
rules import and export. In a pattern, `{field}` matches digits and `{field:regex}` matches the regex; the
fields of a match are substituted in the patterns of the other side. Every array must match a rule; arrays
that only one side has require explicit rules (`Dropped`, `Added`).
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vidjax.errors import UserError

Arrays = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Transform:
    """A function from a rule's source arrays to its vidjax arrays, and the exact inverse."""

    forward: Callable[[Arrays], Arrays]
    inverse: Callable[[Arrays], Arrays]


def per_array(forward: Callable[[np.ndarray], np.ndarray], inverse: Callable) -> Transform:
    """Returns a transform that applies the same function to every array of a rule."""
    return Transform(lambda xs: tuple(map(forward, xs)), lambda xs: tuple(map(inverse, xs)))


def chain(*transforms: Transform) -> Transform:
    """Composes transforms in the given order."""

    def run(direction: str, steps: Iterable[Transform], xs: Arrays) -> Arrays:
        return functools.reduce(lambda ys, t: getattr(t, direction)(ys), steps, xs)

    return Transform(
        lambda xs: run("forward", transforms, xs), lambda xs: run("inverse", reversed(transforms), xs)
    )


def reshape(source: Sequence[int], ours: Sequence[int]) -> Transform:
    """Returns a transform between two shapes, each of which may contain one -1."""
    return per_array(lambda x: x.reshape(ours), lambda x: x.reshape(source))


def transpose(*axes: int) -> Transform:
    """Returns the transform `x.transpose(axes)`."""
    return per_array(lambda x: x.transpose(axes), lambda x: x.transpose(np.argsort(axes)))


def split(parts: int, axis: int = 0) -> Transform:
    """Returns a transform that splits an array into `parts` equal ones along `axis`, e.g. fused q, k, v."""
    return Transform(lambda xs: tuple(np.split(xs[0], parts, axis)), lambda xs: (np.concatenate(xs, axis),))


IDENTITY = per_array(lambda x: x, lambda x: x)
# [out, in, *window] -> [*window, in, out], for linear layers and convolutions of any dimension.
CHANNELS_LAST = per_array(
    lambda x: np.moveaxis(x, (0, 1), (-1, -2)), lambda x: np.moveaxis(x, (-1, -2), (0, 1))
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """Maps the arrays named `source` to the paths `ours`; all patterns of a rule have the same fields."""

    source: tuple[str, ...]
    ours: tuple[str, ...]
    transform: Transform = IDENTITY


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A source array that is not imported; exporting the path `beside` writes it with the value `value`."""

    source: str
    beside: str
    value: Any


@dataclasses.dataclass(frozen=True)
class Added:
    """A path that the source lacks, filled with `value`; exporting any other value is an error."""

    ours: str
    value: float


Rules = Sequence[Rule | Dropped | Added]


def rule(source: str | tuple[str, ...], ours: str | tuple[str, ...], transform: Transform = IDENTITY) -> Rule:
    """Creates a `Rule`; single patterns may be given as strings."""
    as_tuple = lambda x: (x,) if isinstance(x, str) else x  # noqa: E731
    return Rule(as_tuple(source), as_tuple(ours), transform)


def linear(source: str, ours: str, bias: bool = True) -> Rules:
    """Returns rules for the weight and bias of a PyTorch linear or convolutional layer."""
    weight = rule(f"{source}.weight", f"params/{ours}/kernel", CHANNELS_LAST)
    return (weight, rule(f"{source}.bias", f"params/{ours}/bias")) if bias else (weight,)


def batch_norm(source: str, ours: str) -> Rules:
    """Returns rules for PyTorch's BatchNorm. The batch count is unused and exported as 0."""
    return (
        rule(f"{source}.weight", f"params/{ours}/scale"),
        rule(f"{source}.bias", f"params/{ours}/bias"),
        rule(f"{source}.running_mean", f"batch_stats/{ours}/mean"),
        rule(f"{source}.running_var", f"batch_stats/{ours}/var"),
        Dropped(f"{source}.num_batches_tracked", f"batch_stats/{ours}/mean", np.zeros((), np.int64)),
    )


def unmatched(names: Iterable[str], rules: Rules) -> list[str]:
    """Returns the source names that no rule matches."""
    patterns = [p for r in rules for p in _sources(r)]
    return [n for n in names if all(_match(p, n) is None for p in patterns)]


def convert(
    source: Mapping[str, np.ndarray], rules: Rules, targets: Mapping[str, Any], what: str = "the weights"
) -> dict[str, np.ndarray]:
    """Fills `targets` from `source`.

    Args:
      source: the source's names and arrays.
      rules: see the module docstring; the order does not matter.
      targets: vidjax paths ("params/stem_conv/kernel", "batch_stats/...") and objects with a `shape`.
      what: description of the conversion for error messages.

    Returns:
      The arrays by vidjax path, with the dtypes of the source.

    Raises:
      UserError: lists all source arrays that no rule or several rules match, all targets that are filled
        never or twice, and all shapes that differ. If there are more than 50, which means another
        architecture, only the first 20 and the count are shown.
    """
    filled, failed, problems = _fill(source, rules, targets)
    for path in sorted(targets.keys() - filled.keys() - failed):
        names = [name for r in rules if isinstance(r, Rule) for name in _across(r.ours, path, r.source)]
        hint = f" (expected from {', '.join(names)})" if names else ""
        problems.append(f"{path} {tuple(targets[path].shape)}: not in the source{hint}")
    for path, (x, origin) in filled.items():
        if path not in targets:
            problems.append(f"{origin}: the model has no {path} {x.shape}")
        elif x.shape != tuple(targets[path].shape):
            problems.append(f"{origin} -> {path}: {x.shape} here, {tuple(targets[path].shape)} in the model")
    _raise(what, problems)
    return {path: x for path, (x, _) in filled.items()}


def export(variables: Mapping[str, np.ndarray], rules: Rules, what: str = "the weights") -> dict[str, Any]:
    """Inverts `convert`: maps vidjax paths to source names, and writes the `Dropped` arrays.

    Raises:
      UserError: lists all paths that no rule matches, or whose rule has other paths that are missing.
    """
    out, problems = {}, []
    for path, x in variables.items():
        taken = False
        for r in rules:
            if isinstance(r, Added) and _match(r.ours, path) is not None:
                taken = True
                if not np.array_equal(x, np.full_like(x, r.value)):
                    problems.append(
                        f"{path} {x.shape}: must be {r.value}, because the exported format does not store it"
                    )
            elif isinstance(r, Dropped) and (fields := _match(r.beside, path)) is not None:
                out[_write(r.source, fields)] = r.value
            elif isinstance(r, Rule):
                for pattern in r.ours:
                    if (fields := _match(pattern, path)) is None:
                        continue
                    taken = True
                    members = [_write(p, fields) for p in r.ours]
                    if missing := [m for m in members if m not in variables]:
                        problems.append(f"{path} {x.shape}: {', '.join(missing)} is missing")
                    elif path == members[0]:
                        arrays = r.transform.inverse(tuple(variables[m] for m in members))
                        out.update(zip((_write(p, fields) for p in r.source), arrays, strict=True))
        if not taken:
            problems.append(f"{path} {x.shape}: no rule matches it")
    _raise(what, problems)
    return out


def class_count(source: Mapping[str, np.ndarray], rules: Rules) -> int | None:
    """Returns the number of classes by the source of params/head or params/*/head; None without one."""
    for r in rules:
        heads = isinstance(r, Rule) and all(_HEAD.match(p) for p in r.ours)
        if heads and all(name in source for name in r.source):
            return r.transform.forward(tuple(source[name] for name in r.source))[0].shape[-1]
    return None


def _raise(what: str, problems: Sequence[str]) -> None:
    if problems:
        # So many problems mean another architecture, so the first ones suffice.
        shown = problems if len(problems) <= 50 else [*problems[:20], f"and {len(problems) - 20} more"]
        raise UserError(f"{what}: {len(problems)} problems: " + "; ".join(shown))


def _fill(source, rules, targets) -> tuple[dict[str, tuple[np.ndarray, str]], set[str], list[str]]:
    """Returns {path: (array, "name shape" of its source)}, paths of failed transforms, and the problems."""
    filled: dict[str, tuple[np.ndarray, str]] = {}
    failed: set[str] = set()
    problems = []

    def put(path: str, x: np.ndarray, origin: str) -> None:
        if path in filled:
            problems.append(f"{path} {x.shape}: filled twice, from {filled[path][1]} and from {origin}")
        filled[path] = (x, origin)

    for name, x in source.items():
        shown = f"{name} {x.shape}"
        matches = [(r, p, f) for r in rules for p in _sources(r) if (f := _match(p, name)) is not None]
        if not matches:
            problems.append(f"{shown}: no rule matches it")
        elif len(matches) > 1:
            problems.append(f"{shown}: matches several rules, {' and '.join(p for _, p, _ in matches)}")
        elif isinstance(r := matches[0][0], Rule):
            fields = matches[0][2]
            members = [_write(p, fields) for p in r.source]
            if missing := [m for m in members if m not in source]:
                problems.append(f"{shown}: {', '.join(missing)} is missing")
            elif name == members[0]:
                paths = [_write(p, fields) for p in r.ours]
                origin = ", ".join(f"{m} {source[m].shape}" for m in members)
                try:
                    arrays = r.transform.forward(tuple(source[m] for m in members))
                except ValueError as e:  # the rank or size does not fit the transform
                    problems.append(f"{origin} -> {', '.join(paths)}: {e}")
                    failed.update(paths)
                    continue
                for path, y in zip(paths, arrays, strict=True):
                    put(path, y, origin)
    for r in rules:
        if isinstance(r, Added):
            for path, target in targets.items():
                if _match(r.ours, path) is not None:
                    put(path, np.full(target.shape, r.value, np.float32), f"the constant {r.value}")
    return filled, failed, problems


def _sources(r: Rule | Dropped | Added) -> tuple[str, ...]:
    if isinstance(r, Added):
        return ()
    return (r.source,) if isinstance(r, Dropped) else r.source


def _across(patterns: Iterable[str], text: str, others: Iterable[str]) -> list[str]:
    """Fills `others` with the fields of the first of `patterns` that matches `text`."""
    for pattern in patterns:
        if (fields := _match(pattern, text)) is not None:
            return [_write(o, fields) for o in others]
    return []


_HEAD = re.compile(r"params/(\w+/)?head/")
_FIELD = re.compile(r"\{(\w+)(?::([^{}]+))?\}")


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    out, at = "", 0
    for field in _FIELD.finditer(pattern):
        out += re.escape(pattern[at : field.start()]) + f"(?P<{field[1]}>{field[2] or '[0-9]+'})"
        at = field.end()
    return re.compile(out + re.escape(pattern[at:]))


def _match(pattern: str, text: str) -> dict[str, str] | None:
    found = _compiled(pattern).fullmatch(text)
    return None if found is None else found.groupdict()


def _write(pattern: str, fields: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda field: fields[field[1]], pattern)
