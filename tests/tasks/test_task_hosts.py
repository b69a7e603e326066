"""Every task on two processes with two devices each equals one process with four devices."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest
from test_task_contract import CASES

HERE = pathlib.Path(__file__).parent
# Evaluates newly initialized models of every task, and writes the metrics.
SCRIPT = """
import json, pathlib, sys
from vidjax.train import hosts
if len(sys.argv) > 2:
    hosts.join(sys.argv[2], 2, int(sys.argv[3]), 60.0)
import jax
from etils import epath
from test_task_contract import CASES, config_of
from vidjax.train.experiment import build, initial_state
out = epath.Path(sys.argv[1])
found = {}
for name in CASES:
    exp = build(config_of(name))
    state = initial_state(exp)
    results = {k: e.run(exp, state.eval_variables, out, 0) for k, e in exp.evals.items()}
    found[name] = {key: dict(result.metrics) for key, result in results.items()}
if jax.process_index() == 0:
    (out / "found.json").write_text(json.dumps(found))
"""


def start(out, devices, *cluster):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    env["PYTHONPATH"] = os.pathsep.join([str(HERE), *sys.path])
    line = [sys.executable, "-c", SCRIPT, str(out), *map(str, cluster)]
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(processes):
    for process in processes:
        _, err = process.communicate(timeout=500)
        assert process.returncode == 0, err


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Returns the metrics of one process and of two."""
    folder = tmp_path_factory.mktemp("hosts")
    with pytest.MonkeyPatch.context() as patch, socket.socket() as s:
        patch.setenv("VIDJAX_CACHE", str(folder / "cache"))
        s.bind(("localhost", 0))
        address = f"localhost:{s.getsockname()[1]}"
        (folder / "one").mkdir(), (folder / "two").mkdir()
        finish([start(folder / "one", 4)])
        s.close()
        finish([start(folder / "two", 2, address, i) for i in range(2)])
    return [json.loads((folder / run / "found.json").read_text()) for run in ("one", "two")]


@pytest.mark.slow  # tests/train/test_hosts.py compares two tasks in all
@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(runs, case):
    one, two = runs
    assert two[case] == one[case]
