"""Tests of the number of threads that load data, and that they do not start threads of their own."""

import contextlib
import os
import subprocess
import sys
import time

import ml_collections
import numpy as np
import pytest

from vidjax.config_schema import schema
from vidjax.data import cores
from vidjax.data.datasets import load_source
from vidjax.data.pipeline import train_batches
from vidjax.data.workers import Workers


@pytest.mark.parametrize(
    "line, files, expected",
    [
        ("0::/", {"cpu.max": "max 100000"}, float("inf")),
        ("0::/", {"cpu.max": "250000 100000"}, 2.5),
        ("0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "400000 100000"}, 1.5),
        ("0::/of/the/host", {"cpu.max": "300000 100000"}, 3.0),
        (
            "4:cpu,cpuacct:/job",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            0.5,
        ),
        (
            "4:cpu,cpuacct:/job",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            float("inf"),
        ),
        ("9:memory:/job", {"memory/job/cpu.max": "100000 100000"}, float("inf")),
    ],
)
def test_quota_is_the_smallest_of_all_control_groups(tmp_path, line, files, expected):
    (tmp_path / "cgroup").write_text(f"1:name=systemd:/x\n{line}\n")
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    assert cores._quota(tmp_path / "cgroup", tmp_path / "fs") == expected
    assert cores._quota(tmp_path / "none", tmp_path) == float("inf")


def test_threads_are_the_cores_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(cores, "_processes", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    monkeypatch.setattr(cores, "_quota", lambda *_: float("inf"))
    assert cores.usable() == cores.threads("auto") == 12
    assert cores.threads(3) == 3
    cores.share(5)
    assert cores.threads("auto") == 2
    cores.share(50)
    assert cores.threads("auto") == 1
    cores.share(1)
    monkeypatch.setattr(cores, "_quota", lambda *_: 3.5)
    assert cores.threads("auto") == 3
    monkeypatch.setattr(cores, "_quota", lambda *_: 0.5)
    assert cores.threads("auto") == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(256)))
    monkeypatch.setattr(cores, "_quota", lambda *_: float("inf"))
    assert cores.threads("auto") == cores.MOST


def test_processes_with_the_same_affinity_share_their_cores():
    code = "from vidjax.data import cores; print(cores.pool())"
    pin = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}});"
    other, pinned = (
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True).stdout.strip()
        for c in (code, pin + code)
    )
    assert other == cores.pool()
    assert (pinned == other) == (len(os.sched_getaffinity(0)) == 1)


def multiply(i):
    """Returns the CPU time of the process over that of this thread, and the number of OpenCV's threads."""
    import cv2

    import vidjax.data.transforms  # noqa: F401

    a, process, thread = np.ones((700, 700), np.float32), time.process_time(), time.thread_time()
    for _ in range(20):
        a @ a
    return (time.process_time() - process) / (time.thread_time() - thread), cv2.getNumThreads()


def test_libraries_use_one_thread_in_a_worker():
    with contextlib.closing(Workers(multiply, 0, 1, 1, 1)) as workers:
        busy, opencv = next(workers)
    assert busy < 1.2 and opencv == 1


def test_setup_is_described(monkeypatch):
    monkeypatch.setattr(cores, "usable", lambda: 8)
    monkeypatch.setattr(cores, "_processes", 2)
    source = load_source("synthetic_motion", "train", size=32, frames=8, train=24, val=1, test=1)

    def setup(**changes):
        cfg = ml_collections.ConfigDict(schema().data.to_dict() | dict(size=16, short_side=16) | changes)
        return train_batches(source, cfg, 4, 0).setup

    assert setup() == "data is loaded on 4 threads, 2 batches ahead (8 cores shared by 2 processes)"
    assert setup(workers=4) == (
        "data is loaded on 4 workers, 8 batches ahead (8 cores shared by 2 processes)"
    )
    assert setup(workers=5, prefetch=11) == (
        "data is loaded on 5 workers, 20 batches ahead (8 cores shared by 2 processes); lower data.workers "
        "to the number of cores"
    )
    assert setup(threads=1, prefetch=1).startswith("data is loaded on 1 thread, 1 batch ahead")
    monkeypatch.setattr("vidjax.data.pipeline._host_bytes", lambda: 3 * 10**6)
    assert "4 workers, 4 batches ahead" in setup(workers=4)
