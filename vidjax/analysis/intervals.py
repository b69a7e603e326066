"""Interval arithmetic over a jaxpr: the input positions that each element depends on.

An `Interval` holds the first and the last position on one axis of the input for every element of an array,
as two integer arrays that broadcast to its shape: a length of 1 means that all elements along that axis
agree. Elements that depend on no position (constants, padding) have the empty interval (NONE, -NONE).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from vidjax.analysis import graph

NONE = 1 << 40
LIMIT = 1 << 22  # elements; a larger interval array is coarsened along its longest axis
Interval = tuple[Any, Any]
Shape = tuple[int, ...]

_ELEMENTWISE = graph.ARITHMETIC | graph.TRANSCENDENTAL | graph.COMPARISON | graph.PASSED


def outputs(jaxpr: Jaxpr, axes: Iterable[int]) -> list[list[Interval]]:
    """Returns the intervals of each output of `jaxpr` on the given axes of the last input."""
    shape = jaxpr.invars[-1].aval.shape
    per_axis = []
    for axis in axes:
        n = shape[axis]
        positions = np.arange(n).reshape([n if a == axis else 1 for a in range(len(shape))])
        inputs = [empty(len(v.aval.shape)) for v in jaxpr.invars[:-1]]
        per_axis.append(_run(jaxpr, [*inputs, (positions, positions)]))
    return [list(intervals) for intervals in zip(*per_axis)]


def empty(ndim: int) -> Interval:
    """Returns the interval of constants."""
    return np.full((1,) * ndim, NONE), np.full((1,) * ndim, -NONE)


def _run(jaxpr: Jaxpr, inputs: Sequence[Interval]) -> list[Interval]:
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(v: Any) -> Interval:
        return empty(v.aval.ndim) if isinstance(v, Literal) or v not in known else known[v]

    for eqn in jaxpr.eqns:
        args = [read(v) for v in eqn.invars]
        if all(_is_empty(a) for a in args):
            continue  # an unknown variable reads as empty
        for var, value in zip(eqn.outvars, _apply(eqn, args)):
            known[var] = _compress(value)
    return [read(v) for v in jaxpr.outvars]


def _apply(eqn: JaxprEqn, args: list[Interval]) -> list[Interval]:
    name, p = eqn.primitive.name, eqn.params
    shapes = [v.aval.shape for v in eqn.invars]
    out = eqn.outvars[0].aval.shape
    if name in _ELEMENTWISE:
        if len(eqn.outvars) > 1:  # optimization_barrier
            return args
        return [_union(args)]
    if name in _RULES:
        return [_RULES[name](args, shapes, out, p)]
    if name.startswith("reduce_window") and len(args) <= 2:
        return [_pool(args, shapes, out, p)]
    if name.startswith(("reduce_", "arg")) and len(eqn.outvars) == 1:
        return [_each(args[0], lambda b, hull: hull(b, tuple(p["axes"])))]
    if name.startswith("cum"):
        return [_cumulate(args[0], p["axis"], p["reverse"])]
    if name == "split":
        ends = np.cumsum(p["sizes"])
        return [_take(args[0], p["axis"], slice(e - n, e)) for e, n in zip(ends, p["sizes"])]
    if name == "unstack":
        slices = [_take(args[0], p["axis"], slice(i, i + 1)) for i in range(len(eqn.outvars))]
        return [_each(i, lambda b, _: b.squeeze(p["axis"])) for i in slices]
    if name == "sort":
        whole = _each(_union(args), lambda b, hull: hull(b, p["dimension"], keepdims=True))
        return [whole] * len(eqn.outvars)
    if name == "scan":
        return _scan(args, p)
    if name == "cond":
        sides = [_run(branch.jaxpr, args[1:]) for branch in p["branches"]]
        return [_union([_everything(args[:1], ways[0][0].ndim), *ways]) for ways in zip(*sides)]
    bodies = list(graph.subjaxprs(eqn))
    same = bodies and [v.aval.shape for v in bodies[0].invars] == shapes
    if len(bodies) == 1 and same and name not in ("shard_map", "scatter"):
        return _run(bodies[0], args)
    return [_everything(args, v.aval.ndim) for v in eqn.outvars]


# Helpers on intervals. `hull` is np.min for the first positions and np.max for the last.


def _each(interval: Interval, fn: Any) -> Interval:
    return fn(interval[0], np.min), fn(interval[1], np.max)


def _is_empty(interval: Interval) -> bool:
    return bool((interval[0] > interval[1]).all())


def _compress(interval: Interval) -> Interval:
    for axis, n in enumerate(np.broadcast_shapes(interval[0].shape, interval[1].shape)):
        if n > 1 and all((b == b.take([0], axis)).all() for b in interval):
            interval = _take(interval, axis, slice(0, 1))
    return interval


def _union(intervals: Sequence[Interval]) -> Interval:
    intervals = [i for i in intervals if not _is_empty(i)] or [max(intervals, key=lambda i: i[0].ndim)]
    while math.prod(shape := np.broadcast_shapes(*(i[0].shape for i in intervals))) > LIMIT:
        axis = int(np.argmax(shape)) - len(shape)
        intervals = [
            _each(i, lambda b, hull, axis=axis: hull(b, axis, keepdims=True)) if i[0].ndim >= -axis else i
            for i in intervals
        ]
    first, last = intervals[0]
    for a, b in intervals[1:]:
        first, last = np.minimum(first, a), np.maximum(last, b)
    return first, last


def _everything(args: list[Interval], ndim: int) -> Interval:
    first, last = min(a[0].min() for a in args), max(a[1].max() for a in args)
    return np.full((1,) * ndim, first), np.full((1,) * ndim, last)


def _take(interval: Interval, axis: int, part: slice) -> Interval:
    if interval[0].shape[axis] == 1:
        return interval
    return _each(interval, lambda b, _: b[(slice(None),) * axis + (part,)])


def _expand(interval: Interval, axis: int, n: int) -> Interval:
    return _each(interval, lambda b, _: b if b.shape[axis] == n else b.repeat(n, axis))


def _pad(interval: Interval, axis: int, n: int, low: int, high: int, interior: int = 0) -> Interval:
    """Inserts empty elements before, after and between; negative numbers crop.

    An axis of n > 1 equal elements keeps length 1: a window over padding there also covers an element.
    """
    if (low, high, interior) == (0, 0, 0) or (interval[0].shape[axis] == 1 and n > 1):
        return interval
    interval = _expand(interval, axis, n)
    length = n + max(n - 1, 0) * interior
    where = np.arange(n) * (interior + 1) + low
    keep = (where >= 0) & (where < length + low + high)

    def fill(bound: np.ndarray, hull: Any) -> np.ndarray:
        shape = list(bound.shape)
        shape[axis] = length + low + high
        new = np.moveaxis(np.full(shape, NONE if hull is np.min else -NONE), axis, 0)
        new[where[keep]] = np.moveaxis(bound, axis, 0)[keep]
        return np.moveaxis(new, 0, axis)

    return _each(interval, fill)


def _slide(interval: Interval, axis: int, window: int, stride: int, dilation: int, out: int) -> Interval:
    if interval[0].shape[axis] == 1:
        return interval

    def look(bound: np.ndarray, hull: Any) -> np.ndarray:
        bound = np.moveaxis(bound, axis, 0)
        taps = [bound[k * dilation :][: (out - 1) * stride + 1 : stride] for k in range(window)]
        return np.moveaxis(hull(taps, 0), 0, axis)

    return _each(interval, look)


def _cumulate(interval: Interval, axis: int, reverse: bool) -> Interval:
    if interval[0].shape[axis] == 1:
        return interval
    turn = (slice(None),) * axis + (slice(None, None, -1 if reverse else 1),)
    first, last = interval
    return np.minimum.accumulate(first[turn], axis)[turn], np.maximum.accumulate(last[turn], axis)[turn]


def _scan(args: list[Interval], p: dict[str, Any]) -> list[Interval]:
    """Iterates over the steps, since the field of a recurrent network grows with each of them."""
    fixed, carried = p["num_consts"], p["num_consts"] + p["num_carry"]
    consts, carry, inputs = args[:fixed], args[fixed:carried], args[carried:]
    steps: list[list[Interval]] = [[]] * p["length"]
    for t in range(p["length"])[:: -1 if p["reverse"] else 1]:
        now = [_each(_take(x, 0, slice(t, t + 1)), lambda b, _: b[0]) for x in inputs]
        results = [_compress(r) for r in _run(p["jaxpr"].jaxpr, [*consts, *carry, *now])]
        carry, steps[t] = results[: p["num_carry"]], results[p["num_carry"] :]
    stacked = [_join([_each(y, lambda b, _: b[None]) for y in ys], 0) for ys in zip(*steps)]
    return [*carry, *stacked]


def _join(intervals: Sequence[Interval], axis: int) -> Interval:
    rest = [[n if a != axis else 1 for a, n in enumerate(i[0].shape)] for i in intervals]
    shape = np.broadcast_shapes(*rest)

    def fill(bound: np.ndarray) -> np.ndarray:
        return np.broadcast_to(bound, [n if a != axis else bound.shape[axis] for a, n in enumerate(shape)])

    return tuple(np.concatenate([fill(i[k]) for i in intervals], axis) for k in (0, 1))


# Rules of single operations: (intervals, shapes of the inputs, shape of the output, parameters) -> interval.


def _broadcast(args, shapes, out, p):
    def place(bound, _):
        shape = [1] * len(out)
        for axis, n in zip(p["broadcast_dimensions"], bound.shape):
            shape[axis] = n
        return bound.reshape(shape)

    return _each(args[0], place)


def _reshape(args, shapes, out, p):
    """Groups axes whose lengths have a common product, such as (8, 4) and (2, 16).

    A group is expanded if its elements differ and keeps length 1 if they agree.
    """
    (interval,), (shape,) = args, shapes
    before, after = [], []
    i = j = 0
    while i < len(shape) or j < len(out):
        a, b = i, j
        i, j = min(i + 1, len(shape)), min(j + 1, len(out))
        while math.prod(shape[a:i]) != math.prod(out[b:j]):
            if math.prod(shape[a:i]) < math.prod(out[b:j]):
                i += 1
            else:
                j += 1
        varies = any(n > 1 for n in interval[0].shape[a:i])
        before += shape[a:i] if varies else [1] * (i - a)
        after += out[b:j] if varies else [1] * (j - b)
    if math.prod(before) > 4 * LIMIT:
        return _everything(args, len(out))
    return _each(interval, lambda bound, _: np.broadcast_to(bound, before).reshape(after))


def _slice(args, shapes, out, p):
    interval = args[0]
    strides = p["strides"] or (1,) * len(out)
    for axis, part in enumerate(zip(p["start_indices"], p["limit_indices"], strides)):
        interval = _take(interval, axis, slice(*part))
    return interval


def _pads(args, shapes, out, p):
    interval = args[0]
    for axis, (low, high, interior) in enumerate(p["padding_config"]):
        interval = _pad(interval, axis, shapes[0][axis], low, high, interior)
    return _union([interval, _everything(args[1:], len(out))])


def _concatenate(args, shapes, out, p):
    axis = p["dimension"]
    if len({(a[0].tobytes(), a[1].tobytes(), a[0].shape) for a in args}) == 1 and args[0][0].shape[axis] == 1:
        return args[0]
    return _join([_expand(a, axis, s[axis]) for a, s in zip(args, shapes)], axis)


def _stack(args, shapes, out, p):
    return _join([_each(a, lambda b, _: np.expand_dims(b, p["axis"])) for a in args], p["axis"])


def _tile(args, shapes, out, p):
    repeats = [r if n > 1 else 1 for r, n in zip(p["reps"], args[0][0].shape)]
    return _each(args[0], lambda b, _: np.tile(b, repeats))


def _dynamic_slice(args, shapes, out, p):
    """The start is unknown, so the slice can be anywhere along the axes that it shortens."""
    cut = tuple(a for a, (n, m) in enumerate(zip(shapes[0], out)) if n != m)
    moved = _each(args[0], lambda b, hull: hull(b, cut, keepdims=True))
    return _union([moved, _everything(args[1:], len(out))])


def _dynamic_update_slice(args, shapes, out, p):
    cut = tuple(a for a, (n, m) in enumerate(zip(out, shapes[1])) if n != m)
    update = _each(args[1], lambda b, hull: hull(b, cut, keepdims=True))
    return _union([args[0], update, _everything(args[2:], len(out))])


def _gather(args, shapes, out, p):
    """Full axes keep their intervals; along indexed axes an element can come from any position."""
    numbers, sizes = p["dimension_numbers"], p["slice_sizes"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    cut = tuple(a for a, n in enumerate(shapes[0]) if a in gone or sizes[a] != n)
    kept = [a for a in range(len(sizes)) if a not in gone]

    def place(bound, hull):
        bound, shape = hull(bound, cut, keepdims=True), [1] * len(out)
        for to, axis in zip(numbers.offset_dims, kept):
            shape[to] = bound.shape[axis]
        return bound.reshape(shape)

    return _union([_each(args[0], place), _everything(args[1:], len(out))])


def _dot(args, shapes, out, p):
    contracted, batch = p["dimension_numbers"]
    placed = []
    for side in (0, 1):
        free = [a for a in range(len(shapes[side])) if a not in (*contracted[side], *batch[side])]
        skip = 0 if side == 0 else len(out) - len(batch[1]) - len(free)
        after = len(out) - len(batch[side]) - skip - len(free)

        def place(bound, hull, side=side, free=free, skip=skip, after=after):
            bound = hull(bound, tuple(contracted[side]), keepdims=True)
            bound = bound.transpose(*batch[side], *free, *contracted[side])
            b, f = bound.shape[: len(batch[side])], bound.shape[len(batch[side]) :][: len(free)]
            return bound.reshape(*b, *(1,) * skip, *f, *(1,) * after)

        placed.append(_each(args[side], place))
    return _union(placed)


def _conv(args, shapes, out, p):
    numbers = p["dimension_numbers"]
    mixed = numbers.lhs_spec[1] if p["batch_group_count"] == 1 else tuple(numbers.lhs_spec[:2])
    interval = _each(args[0], lambda b, hull: hull(b, mixed, keepdims=True))
    for i, axis in enumerate(numbers.lhs_spec[2:]):
        pad, base = p["padding"][i], p["lhs_dilation"][i]
        window, length = shapes[1][numbers.rhs_spec[2 + i]], out[numbers.out_spec[2 + i]]
        interval = _pad(interval, axis, shapes[0][axis], *pad, base - 1)
        interval = _slide(interval, axis, window, p["window_strides"][i], p["rhs_dilation"][i], length)
    order = np.argsort(numbers.out_spec)
    interval = _each(interval, lambda b, _: b.transpose(numbers.lhs_spec).transpose(order))
    return _union([interval, _everything(args[1:], len(out))])


def _pool(args, shapes, out, p):
    interval = args[0]
    for axis, window in enumerate(p["window_dimensions"]):
        interval = _pad(interval, axis, shapes[0][axis], *p["padding"][axis], p["base_dilation"][axis] - 1)
        stride, dilation = p["window_strides"][axis], p["window_dilation"][axis]
        interval = _slide(interval, axis, window, stride, dilation, out[axis])
    return interval


_RULES = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": lambda args, shapes, out, p: _each(args[0], lambda b, _: b.squeeze(tuple(p["dimensions"]))),
    "transpose": lambda args, shapes, out, p: _each(args[0], lambda b, _: b.transpose(p["permutation"])),
    "rev": lambda args, shapes, out, p: _each(args[0], lambda b, _: np.flip(b, p["dimensions"])),
    "slice": _slice,
    "pad": _pads,
    "concatenate": _concatenate,
    "stack": _stack,
    "tile": _tile,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "dot_general": _dot,
    "conv_general_dilated": _conv,
}
