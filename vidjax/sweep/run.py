"""Running the points of a sweep as processes of this machine."""

import contextlib
import dataclasses
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from etils import epath

from vidjax import files, interrupts
from vidjax.errors import UserError
from vidjax.sweep.points import Point

PROGRAM = (sys.executable, "-m", "vidjax")  # of the processes
_POLL = 0.1  # seconds between looks at the processes


@dataclasses.dataclass(frozen=True)
class _Share:
    """A part of this machine: cores, all if empty, and environment variables that select devices."""

    cores: Sequence[int] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Job:
    point: Point
    process: subprocess.Popen
    share: _Share
    start: float


def run(found: Sequence[Point], workdir: epath.Path, jobs: int = 1) -> tuple[list[str], bool]:
    """Trains the points that are not finished.

    SIGINT and SIGTERM are passed on to the processes as SIGTERM, on which they save a checkpoint, and end the
    sweep.

    Args:
      found: the points.
      workdir: local folder of the sweep, also for the compilation cache.
      jobs: processes at a time, each with its own share of the cores and GPUs.

    Returns:
      The names of the points that failed, and whether a signal ended the sweep.

    Raises:
      UserError: there are not enough cores or GPUs.
    """
    free = _shares(jobs)
    waiting = [p for p in found if not p.finished()]
    if len(waiting) < len(found):
        print(f"{len(found) - len(waiting)} of {len(found)} points are finished", flush=True)
    running: list[_Job] = []
    failed: list[str] = []
    stopping = False

    def signal_all(number: int) -> None:
        for job in running:
            job.process.send_signal(number)

    def kill() -> None:
        signal_all(signal.SIGKILL)

    interrupts.before_leaving.append(kill)
    try:
        with interrupts.saving():
            while running or (waiting and not stopping):
                while waiting and free and not stopping:
                    point = waiting.pop(0)
                    if job := _start(point, free[0], workdir):
                        running.append(job)
                        del free[0]
                    else:
                        failed.append(point.name)
                for job in [j for j in running if j.process.poll() is not None]:
                    running.remove(job)
                    free.append(job.share)
                    failed += [] if _succeeded(job, stopping) else [job.point.name]
                if interrupts.requested() and not stopping:
                    stopping = True
                    print("stopping: the running points save a checkpoint", flush=True)
                    signal_all(signal.SIGTERM)
                time.sleep(_POLL)
    except BaseException:
        kill()
        raise
    finally:
        interrupts.before_leaving.remove(kill)
    return failed, stopping


def _succeeded(job: _Job, stopping: bool) -> bool:
    """Prints how a run ended. Returns False if it failed; not if it was stopped with the sweep."""
    point, code, log = job.point, job.process.returncode, job.point.folder / "log.txt"
    result = None
    if code == 0:
        with contextlib.suppress(UserError):
            result = point.result()
    if result is not None:
        name = result.best.lstrip("-")
        seconds = time.monotonic() - job.start
        print(f"{point.name}: {name} {result.metrics[name]:.3f}, {seconds:.0f} s", flush=True)
        return True
    if stopping:
        print(f"{point.name}: stopped", flush=True)
        return True
    last = log.read_bytes().decode(errors="replace").strip().splitlines()[-1:]
    how = f"failed (exit code {code})" if code else "stopped before the end"
    print(f"{point.name}: {how}: {''.join(last)}; see {log}", flush=True)
    return False


def _start(point: Point, share: _Share, workdir: epath.Path) -> _Job | None:
    """Starts a run on its share of the machine. Returns None if another process is training it."""
    point.folder.mkdir(parents=True, exist_ok=True)
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(files.absolute(workdir) / ".jax_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with _unlocked(point.folder / ".lock") as lock, open(point.folder / "log.txt", "ab") as log:
        if lock is None:
            print(f"{point.name}: failed: another process is training it; wait, or stop it", flush=True)
            return None
        with _pinned(share.cores):
            process = subprocess.Popen(
                [*PROGRAM, *point.words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**cache, **os.environ, **share.environment},
                pass_fds=[
                    lock.fileno()
                ],  # the lock is held until the process ends, even if this one is killed
                start_new_session=True,  # Ctrl-C reaches this process only, which passes it on once
            )
    print(f"{point.name}: started", flush=True)
    return _Job(point, process, share, time.monotonic())


@contextlib.contextmanager
def _unlocked(path: epath.Path) -> Iterator[IO | None]:
    """Opens and locks a file; None if another process has locked it."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file


@contextlib.contextmanager
def _pinned(cores: Sequence[int]) -> Iterator[None]:
    """Binds this thread, and so the processes that it starts, to some cores."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _shares(jobs: int) -> list[_Share]:
    """Divides the cores and GPUs of this machine; a single job has all of them."""
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {jobs}")
    if jobs == 1:
        return [_Share()]
    cores, gpus = sorted(os.sched_getaffinity(0)), _gpus()
    for what, count in (("cores", len(cores)), ("GPUs", len(gpus))):
        if 0 < count < jobs:
            raise UserError(f"--jobs {jobs} exceeds the {count} {what} of this machine: use fewer jobs")
    devices = _split(gpus, jobs) if gpus else [[]] * jobs
    return [
        _Share(mine, {"CUDA_VISIBLE_DEVICES": ",".join(visible)} if visible else {})
        for mine, visible in zip(_split(cores, jobs), devices, strict=True)
    ]


def _split(items: Sequence[Any], parts: int) -> list[Sequence[Any]]:
    """Divides a sequence into parts whose lengths differ by at most one."""
    n = len(items)
    return [items[i * n // parts : (i + 1) * n // parts] for i in range(parts)]


def _gpus() -> list[str]:
    """Returns the GPUs that processes may use; JAX would make each process use all of them."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    return [str(i) for i in range(len(re.findall(r"^GPU \d+:", listed, re.M)))]
