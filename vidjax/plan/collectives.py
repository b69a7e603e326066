"""The communication of a compiled program, read from its HLO."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "c64": 8, "c128": 16}
_SHAPE = re.compile(r"\b(pred|bf16|c64|c128|f8\w*|[sfu]\d+)\[([\d,]*)\]")
_COLLECTIVE = re.compile(rf"= (?P<type>.+?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_CALL = re.compile(r"\b(?:body|condition|to_apply|calls|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_LIMIT = re.compile(r"= s32\[\]\S* constant\((\d+)\)")
_CONDITION = re.compile(r"\bcondition=%?([\w.-]+)")
_MESH = re.compile(r"replica_groups=mesh\[(?P<sizes>[^\]]*)\] \{(?P<axes>[^}]*)\}")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation of one step.

    Attributes:
      kind: one of `KINDS`.
      axes: axes of the mesh that it communicates over, joined by "+"; "?" if it is over no such group.
      bytes: size of the result on each device, of all executions in the step.
      wire: bytes that each device sends, by the algorithm on a ring.
    """

    kind: str
    axes: str
    bytes: float
    wire: float


def collectives(hlo: str, mesh: Mapping[str, int]) -> list[Collective]:
    """Lists the collectives of a program.

    Those in loops count once per iteration, if XLA or the condition of the loop has their number; else once.

    Args:
      hlo: text of the compiled program, `compiled.as_text()`.
      mesh: size of each axis, in the order of the mesh.

    Returns:
      One `Collective` for each kind and axes, with the largest first.
    """
    bodies, entry = _computations(hlo)
    groups = _groups(mesh)
    found: dict[tuple[str, str], list[float]] = {}
    for line, times in _walk(bodies, entry, 1):
        match = _COLLECTIVE.search(line)
        if not match:
            continue
        kind = match["kind"]
        axes, n = _axes(line, kind, groups, math.prod(mesh.values()))
        if n == 1:  # over an axis of one device, which sends nothing
            continue
        sizes = [_size(*shape) for shape in _SHAPE.findall(match["type"])]
        if match["start"] and kind != "all-reduce":  # (operands, results, ...)
            sizes = sizes[len(sizes) // 2 :] if kind == "all-gather" else sizes[:1]
        size = times * sum(sizes)
        total = found.setdefault((kind, axes), [0.0, 0.0])
        total[0] += size
        total[1] += size * _sent(kind, n)
    rows = [Collective(kind, axes, *total) for (kind, axes), total in found.items()]
    return sorted(rows, key=lambda c: -c.wire)


def _sent(kind: str, n: int) -> float:
    """Returns the bytes that a device of n sends per byte of its result."""
    if kind == "collective-permute":
        return 1.0
    share = (n - 1) / n
    return {"all-reduce": 2 * share, "reduce-scatter": n * share}.get(kind, share)


def _size(dtype: str, dims: str) -> float:
    bits = re.search(r"\d+", dtype)
    each = _BYTES.get(dtype) or (1 if dtype.startswith("f8") else int(bits[0]) / 8 if bits else 1)
    return each * math.prod(int(d) for d in dims.split(",") if d)


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of each computation, and the name of the entry."""
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in hlo.splitlines():
        if match := _COMPUTATION.match(line):
            name = match[2]
            bodies[name] = []
            entry = name if match[1] else entry
        elif name:
            bodies[name].append(line)
    return bodies, entry


def _walk(bodies: Mapping[str, Sequence[str]], name: str, times: int) -> Iterator[tuple[str, int]]:
    """Yields the lines of a computation and of those that it calls, with how often they run."""
    for line in bodies.get(name, ()):
        yield line, times
        called = _CALL.findall(line)
        for branches in _BRANCHES.findall(line):
            called += [b.strip().lstrip("%") for b in branches.split(",")]
        turns = _turns(bodies, line) if " while(" in line else 1
        for other in called:
            yield from _walk(bodies, other, times * turns)


def _turns(bodies: Mapping[str, Sequence[str]], line: str) -> int:
    """Returns how often a loop runs: a scan counts from 0 to the only number in its condition."""
    if trips := _TRIPS.search(line):
        return int(trips[1])
    condition = _CONDITION.search(line)
    numbers = _LIMIT.findall("\n".join(bodies.get(condition[1], ()))) if condition else []
    return int(numbers[0]) if len(numbers) == 1 else 1


def _groups(mesh: Mapping[str, int]) -> dict[frozenset[frozenset[int]], str]:
    """Returns the groups of devices along each combination of axes that have several devices."""
    ids = np.arange(math.prod(mesh.values())).reshape(tuple(mesh.values()))
    names = [name for name, size in mesh.items() if size > 1]
    found = {}
    for count in range(1, len(names) + 1):
        for axes in itertools.combinations(names, count):
            last = [list(mesh).index(a) for a in axes]
            moved = np.moveaxis(ids, last, range(-len(last), 0))
            rows = moved.reshape(-1, math.prod(mesh[a] for a in axes))
            found[frozenset(frozenset(map(int, row)) for row in rows)] = "+".join(axes)
    return found


def _axes(
    line: str, kind: str, groups: Mapping[frozenset[frozenset[int]], str], devices: int
) -> tuple[str, int]:
    """Returns the axes that a collective is over, and the number of devices in each of its groups."""
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
        moves = [tuple(map(int, p)) for p in re.findall(r"(\d+),(\d+)", pairs[1])] if pairs else []
        for rows, name in sorted(groups.items(), key=lambda item: len(item[1])):
            owner = {d: i for i, row in enumerate(rows) for d in row}
            if moves and all(owner[a] == owner[b] for a, b in moves):
                return name, 2
        return "?", 2
    rows = _replica_groups(line, devices)
    return groups.get(frozenset(map(frozenset, rows)), "?"), max(map(len, rows))


def _replica_groups(line: str, devices: int) -> list[list[int]]:
    """Parses {{0,1},{2,3}}, the form [2,2]<=[4] or [2,2]<=[2,2]T(1,0), and mesh['a'=2,'b'=2] {'b'}."""
    if match := _MESH.search(line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match["sizes"])}
        over = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", match["axes"])]
        ids = np.moveaxis(
            np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values())), over, range(-len(over), 0)
        )
        return ids.reshape(-1, math.prod(ids.shape[-len(over) :])).tolist()
    if match := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        shape, dims = ([int(x) for x in match[i].split(",")] for i in (1, 2))
        ids = np.arange(math.prod(dims)).reshape(dims)
        if match[3]:
            ids = ids.transpose([int(x) for x in match[3].split(",")])
        return ids.reshape(shape[0], -1).tolist()
    if (match := re.search(r"replica_groups=\{(\{.*?\})\}", line)) and match[1] != "{}":
        return [[int(x) for x in row.split(",")] for row in re.findall(r"\{([\d,]+)\}", match[1])]
    return [list(range(devices))]
