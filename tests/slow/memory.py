"""Memory of a process and its children, for tests that look for leaks."""

import contextlib
import ctypes
import os
import pathlib


def resident() -> int:
    """Returns the memory of this process in bytes, without what was freed but is kept by the allocator."""
    with contextlib.suppress(AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
    return _pages(os.getpid())


def children() -> int:
    """Returns the memory of the child processes in bytes."""
    tasks = pathlib.Path("/proc/self/task").iterdir()
    return sum(_pages(int(pid)) for task in tasks for pid in (task / "children").read_text().split())


def _pages(pid: int) -> int:
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
