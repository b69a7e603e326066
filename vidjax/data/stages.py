"""Measures the stages of loading a clip, for `vidjax data bench`.

`stage` marks what belongs to a stage; what a nested stage takes is not counted for the outer one. Outside of
`measured`, it does nothing.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator

Spent = dict[str, tuple[float, float]]  # stage -> seconds of CPU time, and of wall-clock time
OTHER = "other"  # time that belongs to no stage


class _Thread(threading.local):
    spent: Spent | None = None  # what is measured, if anything
    names: list[str]  # of the stages that the thread is in
    mark: tuple[float, float]  # when the innermost one was entered or continued


_local = _Thread()
_NOTHING = contextlib.nullcontext()


def stage(name: str) -> contextlib.AbstractContextManager:
    """Returns a context whose time counts for a stage."""
    return _NOTHING if _local.spent is None else _Stage(name)


@contextlib.contextmanager
def measured(active: bool = True) -> Iterator[Spent]:
    """Context that measures the stages of this thread, if `active`. Yields the times, complete at the end."""
    if not active:
        yield {}
        return
    outer = vars(_local).copy()
    _local.spent, _local.names = {}, []
    try:
        with _Stage(OTHER):
            yield _local.spent
    finally:
        vars(_local).update({"spent": None} | outer)
        _local.mark = _now()  # the outer measurement, if there is one, goes on from here


def total(parts: Iterable[Spent]) -> Spent:
    """Adds the times of each stage."""
    result: Spent = {}
    for part in parts:
        for name, (cpu, wall) in part.items():
            _add(result, name, cpu, wall)
    return result


class _Stage:
    def __init__(self, name: str):
        self._name = name

    def __enter__(self) -> None:
        _count()
        _local.names.append(self._name)

    def __exit__(self, *_: object) -> None:
        _count()
        _local.names.pop()


def _now() -> tuple[float, float]:
    return time.thread_time(), time.perf_counter()


def _count() -> None:
    """Adds the time since the last call to the innermost stage."""
    now = _now()
    if _local.spent is not None and _local.names:
        cpu, wall = (b - a for a, b in zip(_local.mark, now))
        _add(_local.spent, _local.names[-1], cpu, wall)
    _local.mark = now


def _add(spent: Spent, name: str, cpu: float, wall: float) -> None:
    before = spent.get(name, (0.0, 0.0))
    spent[name] = before[0] + cpu, before[1] + wall
