"""The CPU cores that this process may use to load data.

`data.threads="auto"` is one thread for each of these cores, at most `MOST`. A loading thread uses one core:
OpenCV, ffmpeg and, in data workers, BLAS run in the thread that calls them.
"""

import os
import platform
from pathlib import Path

MOST = 16  # threads; Python runs one at a time between the calls that decode and transform
_processes = 1


def share(processes: int) -> None:
    """Sets the number of training processes, including this one, that share the cores of this process."""
    global _processes
    _processes = processes


def processes() -> int:
    """Returns the number of training processes that share the cores of this process."""
    return _processes


def usable() -> int:
    """Returns the number of cores that this process and those it shares them with may use together.

    It is limited by the affinity of the process and by the CPU quota of its control groups.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, _quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")))))


def threads(setting: int | str) -> int:
    """Returns the number of loading threads for a value of `data.threads`, a number or "auto"."""
    return max(1, min(MOST, usable() // _processes)) if setting == "auto" else int(setting)


def pool() -> str:
    """Identifies the cores of this process; processes with the same ones return the same text."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    machine = boot.read_text().strip() if boot.is_file() else ""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return f"{platform.node()} {machine} {mine}"


def _quota(groups: Path, root: Path) -> float:
    """Returns the smallest quota, in cores, of the control groups of this process; infinity without one.

    Args:
      groups: lists them, as /proc/self/cgroup.
      root: where the file system of control groups is mounted.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return float("inf")
    found = [float("inf")]
    for line in lines:  # "number:controllers:path"; version 2 has one line without controllers
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        inner = top / path.strip("/")
        # In a container, the path may be that of the host, and the limit is at the top.
        for folder in (inner, *(p for p in inner.parents if p.is_relative_to(top))):
            found.append(_limit(folder))
    return min(found)


def _limit(folder: Path) -> float:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{k}_us").read_text() for k in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else float("inf")
    except (OSError, ValueError, ZeroDivisionError):  # no limit: "max", or no such file
        return float("inf")
