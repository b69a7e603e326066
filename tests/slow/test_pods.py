"""Runs of two processes: bit for bit those of one, resumed by another number of them, and killed 20 times."""

import random
import signal
import time

import chex
import pytest

from tests.train.test_hosts import (
    CLASSIFY,
    CONFIG,
    finish,
    free_port,
    start,
    start_two,
    succeed,
    wait_for_step,
)
from tests.train.test_loop import rows
from vidjax.checkpoint_io import load_variables
from vidjax.train.hosts import LOST
from vidjax.train.metrics import read_metrics

pytestmark = pytest.mark.slow

KILLS, STEPS = 20, 1200
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONG = {"steps=4,": f"steps={STEPS},", "every=0.0": "every=20.0", "every_epochs=0.0": "every_epochs=5.0"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write(place, name, changes):
    """Writes the config of the tests of hosts with some changes."""
    text = CONFIG
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (place / name).write_text(text)


def line(place, config, workdir, *options):
    return ["train", "--config", place / config, "--workdir", place / workdir, *options]


@pytest.mark.parametrize("changes", [{}, CLASSIFY], ids=["pretraining", "classification"])
def test_two_hosts_of_two_devices_equal_one_of_four(place, changes):
    """Parameters, losses and evaluations, if the one process adds up over its devices as several do."""
    write(place, "config.py", changes)
    succeed(start_two(place, *line(place, "config.py", "two"), devices=2))
    alone = ["--distributed", "--coordinator", f"localhost:{free_port()}", "--processes", 1, "--process", 0]
    succeed([start(place, *line(place, "config.py", "one"), *alone, JAX_NUM_CPU_DEVICES="4")])
    two, one = (load_variables(place / name)[0] for name in ("two", "one"))
    chex.assert_trees_all_equal(two, one)
    assert rows(place / "two") == rows(place / "one")


def test_run_resumes_with_another_number_of_hosts_and_another_mesh(place):
    write(place, "config.py", {"steps=4,": "steps=60,", **CLASSIFY})
    succeed([start(place, *line(place, "config.py", "whole"))])
    processes = start_two(place, *line(place, "config.py", "moved"))
    wait_for_step(place / "moved", 5, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert [code for code, *_ in finish(processes)] == [0, 0]
    first = max(r["step"] for r in read_metrics(place / "moved"))
    assert first < 60
    mesh = ["--config.parallel.mesh.data=1", "--config.parallel.mesh.fsdp=2"]
    process = start(place, *line(place, "config.py", "moved", *mesh), JAX_NUM_CPU_DEVICES="2")
    wait_for_step(place / "moved", first + 5, [process])
    process.send_signal(signal.SIGKILL)
    process.wait()
    succeed(start_two(place, *line(place, "config.py", "moved")))
    whole, moved = (load_variables(place / name)[0]["params"] for name in ("whole", "moved"))
    chex.assert_trees_all_close(whole, moved, rtol=1e-3, atol=1e-4)


def phase(workdir, start):
    """Returns what a run does: it starts or compiles, or it has made steps since `start` and saves now."""
    if any(".orbax-checkpoint-tmp" in path.name for path in workdir.glob("checkpoints/*")):
        return "saving"
    rows = read_metrics(workdir)
    last = max((r["step"] for r in rows), default=0)
    if last <= start:
        return "starting"
    # Evaluations follow the step that they evaluate, and are written when they end.
    evaluated = max((r["step"] for r in rows if r["split"] != "train"), default=0)
    return "evaluating" if last % 120 == 0 and evaluated < last else "stepping"


def test_killed_run_ends_like_an_undisturbed_one(place):
    """Any signal at any moment to either host; every restart resumes."""
    write(place, "config.py", LONG)
    options = ["--config.log_every=5", "--config.parallel.host_timeout=10"]

    began = time.monotonic()
    succeed(start_two(place, *line(place, "config.py", "calm", *options)), 1200)
    print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)

    rng, workdir, killed = random.Random(0), place / "killed", []
    while len(killed) < KILLS:
        step = max((r["step"] for r in read_metrics(workdir)), default=0)
        assert step < STEPS, f"finished after {len(killed)} kills"
        processes = start_two(place, *line(place, "config.py", "killed", *options))
        host, number = rng.randrange(2), rng.choice(SIGNALS)
        wait = rng.uniform(0, 40)
        time.sleep(wait)
        where = phase(workdir, step)
        processes[host].send_signal(number)
        results = finish(processes)
        code = results[1 - host][0]
        assert code in (0, LOST, 128 + number), results
        assert all("Traceback" not in err for _, _, err in results), results
        killed.append(where)
        print(f"kill {len(killed)}: {number.name} to host {host} after {wait:.1f} s, {where}", flush=True)
    succeed(start_two(place, *line(place, "config.py", "killed", *options)), 1200)
    calm, disturbed = (load_variables(place / name)[0] for name in ("calm", "killed"))
    chex.assert_trees_all_equal(calm, disturbed)
    print(
        f"survived {len(killed)} kills: " + ", ".join(f"{killed.count(k)} {k}" for k in sorted(set(killed)))
    )
