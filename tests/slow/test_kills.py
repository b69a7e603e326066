"""A run of two processes that is killed 20 times ends like one that nobody disturbed."""

import random
import signal
import time

import chex
import pytest

from tests.train.test_hosts import CONFIG, finish, start_two
from vidjax.checkpoint_io import load_variables
from vidjax.train.hosts import LOST
from vidjax.train.metrics import read_metrics

pytestmark = pytest.mark.slow

KILLS, STEPS = 20, 4000
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONG = {"steps=4,": f"steps={STEPS},", "every=0.0": "every=20.0", "every_epochs=0.0": "every_epochs=5.0"}


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


def test_killed_run_ends_like_an_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    text = CONFIG
    for old, new in LONG.items():
        assert old in text
        text = text.replace(old, new)
    config = tmp_path / "config.py"
    config.write_text(text)

    def line(name):
        options = ["--config.log_every=5", "--config.parallel.host_timeout=10"]
        return ["train", "--config", config, "--workdir", tmp_path / name, *options]

    began = time.monotonic()
    for code, _, err in finish(start_two(tmp_path, *line("calm")), 1200):
        assert code == 0, err
    print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)

    rng, workdir, killed = random.Random(0), tmp_path / "killed", []
    while len(killed) < KILLS:
        step = max((r["step"] for r in read_metrics(workdir)), default=0)
        assert step < STEPS, f"finished after {len(killed)} kills"
        processes = start_two(tmp_path, *line("killed"))
        host, number = rng.randrange(2), rng.choice(SIGNALS)
        wait = rng.uniform(0, 30)
        time.sleep(wait)
        where = phase(workdir, step)
        processes[host].send_signal(number)
        results = finish(processes)
        assert results[1 - host][0] in (0, LOST, 128 + number), results
        assert all("Traceback" not in err for _, _, err in results), results
        killed.append(where)
        print(f"kill {len(killed)}: {number.name} to host {host} after {wait:.1f} s, {where}", flush=True)
    codes = [code for code, *_ in finish(start_two(tmp_path, *line("killed")), 1200)]
    assert codes == [0, 0]
    calm, disturbed = (load_variables(tmp_path / name)[0] for name in ("calm", "killed"))
    chex.assert_trees_all_equal(calm, disturbed)
    print(
        f"survived {len(killed)} kills: " + ", ".join(f"{killed.count(k)} {k}" for k in sorted(set(killed)))
    )
