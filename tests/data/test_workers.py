"""Tests of worker processes: order, errors, and that they exit with the process that started them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import pytest

from vidjax.data.workers import Workers
from vidjax.errors import UserError


def make(i):
    if i == 5:
        raise UserError("five")
    return {"x": np.full((i, 3), i), "scalar": np.float32(i), "pid": os.getpid(), "empty": np.zeros(0)}


def count_up(i):
    time.sleep(0.01)
    return i


def exit_at_2(i):
    if i == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def children():
    """Returns the child processes of all threads of this process."""
    files = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in files for pid in file.read_text().split()}


def ends(pid, seconds=5.0):
    """Returns whether a process, not necessarily a child, exits in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_items_are_ordered_and_errors_are_raised():
    workers = Workers(make, 1, 9, 2, 2)
    items = [next(workers) for _ in range(4)]
    for i, item in enumerate(items, 1):
        np.testing.assert_array_equal(item["x"], np.full((i, 3), i))
        assert item["x"].flags.writeable and item["scalar"] == i and item["empty"].shape == (0,)
    assert items[0]["pid"] == items[2]["pid"] != items[1]["pid"] == items[3]["pid"]
    with pytest.raises(UserError, match="five"):
        next(workers)
    workers.close()
    assert all(ends(item["pid"]) for item in items)
    with pytest.raises(StopIteration):
        next(workers)
    assert list(Workers(make, 0, 3, 5, 1))[2]["pid"] != os.getpid()


def test_interrupt_during_startup_leaves_no_process():
    def interrupt(*_):
        raise KeyboardInterrupt

    before, old = children(), signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in (1e-4, 1e-3, 3e-3, 0.01, 0.05, 0.2):
            workers = Workers(make, 0, 1 << 40, 3, 2)
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, delay)
                while True:
                    next(workers)["pid"]
            workers.close()
            assert all(ends(pid) for pid in children() - before - {resource_tracker._resource_tracker._pid})
    finally:
        signal.signal(signal.SIGALRM, old)


def test_unpicklable_function_is_an_error():
    lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        next(Workers(lambda i: lock, 0, 9, 1, 1))


def test_killed_worker_is_a_one_line_error():
    workers = Workers(exit_at_2, 0, 9, 1, 1)
    assert [next(workers), next(workers)] == [0, 1]
    with pytest.raises(UserError, match=r"worker was killed \(out of memory\?\): lower data.workers"):
        next(workers)
    workers.close()


_RUN = """
import os, sys, time
from tests.data.test_workers import Workers, make
if __name__ == "__main__":
    workers = Workers(make, 0, 4, 2, 2)
    print(*[next(workers)["pid"] for _ in range(2)], flush=True)
    if sys.argv[1] == "wait":
        time.sleep(60)
    if sys.argv[1] == "leave":
        os._exit(3)
"""


@pytest.mark.parametrize("how", ["wait", "leave", "end"])
def test_workers_exit_with_their_parent(tmp_path, how):
    (tmp_path / "run.py").write_text(_RUN)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(tmp_path / "run.py"), how]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as run:
        pids = [int(pid) for pid in run.stdout.readline().split()]
        if how == "wait":
            for number in (signal.SIGINT, signal.SIGTERM):
                for pid in pids:
                    os.kill(pid, number)
            assert not any(ends(pid, 0.3) for pid in pids)
            run.kill()
        assert run.wait(30) == {"wait": -signal.SIGKILL, "leave": 3, "end": 0}[how]
        assert len(pids) == 2 and all(ends(pid) for pid in pids)
        assert run.stderr.read() == ""  # neither a traceback nor a leaked object


_INTERRUPTED = """
import sys
from tests.data.test_workers import Workers, count_up
from vidjax import interrupts
if __name__ == "__main__":
    workers = Workers(count_up, 0, 1 << 40, 2, 2)
    try:
        with interrupts.handled():
            print("starting", flush=True)
            while True:
                next(workers)
    except interrupts.Interrupted as e:
        if sys.argv[1] == "close":
            workers.close()
            sys.exit(e.code)
        interrupts.leave(e.code)
"""


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4])
@pytest.mark.parametrize("how", ["close", "leave"])
def test_ctrl_c_during_startup_is_quiet_and_leaves_no_process(tmp_path, how, delay):
    (tmp_path / "run.py").write_text(_INTERRUPTED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(tmp_path / "run.py"), how]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as run:
        assert run.stdout.readline() == "starting\n"
        time.sleep(delay)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(10) == 130
        assert run.stderr.read() == {"close": "", "leave": "vidjax: interrupted\n"}[how]
        assert all(ends(pid) for pid in group(run.pid))


def group(leader):
    """Returns the processes of a process group."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if file.read_text().rsplit(")")[-1].split()[2] == str(leader):
                yield int(file.parent.name)
