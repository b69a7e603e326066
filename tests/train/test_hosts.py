"""Multi-host runs in separate processes equal single-host runs, and stop together."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from vidjax.data.datasets import load_source
from vidjax.data.feature_file import FeatureFile
from vidjax.train.hosts import LOST
from vidjax.train.metrics import read_metrics

OPTIONS = dict(size=32, frames=8, train=24, val=12, test=13)  # 13: the last batch of one host is only padding
CONFIG = f"""
from ml_collections import ConfigDict
from vidjax.config import pretraining_evals
def get_config(arg=""):
    return ConfigDict(dict(
        batch=4, steps=4, seed=1,
        data=dict(name="synthetic_motion", options=dict({OPTIONS}),
                  frames=4, stride=1.0, size=16, short_side=16, crop="center"),
        model=dict(name="videomae_s_pretrain", tiny=True),
        task=dict(name="masked_autoencoding"),
        optimizer=dict(name="adamw", lr=1e-3),
        evals=pretraining_evals(every=0.0, videos=13),
        checkpoint=dict(every_epochs=0.0, best="knn"),
        log_every=1,
    ))
"""
CLASSIFY = {  # changes CONFIG to a classifier
    "videomae_s_pretrain": "videomae_s",
    "masked_autoencoding": "classification",
    "pretraining_evals(every=0.0, videos=13)": 'dict(val=dict(type="metrics", every=0.0))',
    'best="knn"': 'best="val"',
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "config.py").write_text(CONFIG)
    tune = CONFIG
    for old, new in CLASSIFY.items():
        assert old in tune
        tune = tune.replace(old, new)
    (folder / "tune.py").write_text(tune)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(folder / "cache"))
        yield folder


def start(place, *args, **env):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", **env}
    line = [sys.executable, "-m", "vidjax", *map(str, args)]
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start_two(place, *args, second=(), env=None, devices=1):
    """Starts two processes of some devices; the second one has more arguments and environment variables."""
    cluster = ["--distributed", "--coordinator", f"localhost:{free_port()}", "--processes", 2]
    both = {"JAX_NUM_CPU_DEVICES": str(devices)}
    first = start(place, *args, *cluster, "--process", 0, **both)
    return [first, start(place, *args, *second, *cluster, "--process", 1, **both, **(env or {}))]


def finish(processes, timeout=240):
    """Returns (exit code, stdout, stderr) of each process."""
    texts = [p.communicate(timeout=timeout) for p in processes]
    return [(p.returncode, *text) for p, text in zip(processes, texts)]


def succeed(processes, timeout=240):
    """Returns the stderr of the first process."""
    results = finish(processes, timeout)
    for code, _, err in results:
        assert code == 0, err
    return results[0][-1]


def train_line(place, workdir, *args, config="config.py"):
    return ["train", "--config", place / config, "--workdir", place / workdir, *args]


def both(place, workdir, *args, **options):
    """Runs the same training on one host and on two."""
    succeed([start(place, *train_line(place, f"{workdir}_1", *args, **options))])
    err = succeed(start_two(place, *train_line(place, f"{workdir}_2", *args, **options)))
    assert " shared by 2 processes)" in err
    return place / f"{workdir}_1", place / f"{workdir}_2"


def assert_same_metrics(one, two, evaluations):
    keys = ("step", "split", "loss", "knn_top1", "effective_rank", "grad_norm", "video_top1", "top1")
    one, two = ([[r.get(k, 0.0) for k in keys] for r in read_metrics(run)] for run in (one, two))
    assert [r[:2] for r in one] == [r[:2] for r in two] and len(one) == 4 + evaluations
    np.testing.assert_allclose([r[2:] for r in two], [r[2:] for r in one], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def trained(place):
    return both(place, "trained", config="tune.py")


@pytest.mark.slow  # twice the time of a classifier, and little is different
def test_two_hosts_pretrain_as_one(place):
    runs = both(place, "mae")
    assert_same_metrics(*runs, 2)
    one, two = (run / "reconstructions" / "step_4.png" for run in runs)
    assert one.is_file() and two.is_file()
    assert (runs[1] / "report.html").is_file()


def test_two_hosts_train_as_one(trained):
    assert_same_metrics(*trained, 1)
    one, two = (
        [json.loads(line)["id"] for line in (run / "predictions.jsonl").read_text().splitlines()]
        for run in trained
    )
    assert one == two and len(one) == 13


def test_two_hosts_evaluate_as_one(place, trained):
    """Each of them reads only its own videos."""
    line = ["eval", "--checkpoint", trained[0], "--config.data.host_shards=True"]
    results = finish(start_two(place, *line, "--out", place / "evaluated"))
    assert [code for code, *_ in results] == [0, 0], results
    (_, out, _), (_, silent, _) = results
    got = dict(line.split() for line in out.splitlines() if line.startswith(("video_top1", "loss")))
    expected = read_metrics(trained[0])[-1]
    assert float(got["loss"]) == pytest.approx(expected["loss"], abs=1e-4)
    assert float(got["video_top1"]) == pytest.approx(expected["video_top1"], abs=1e-4)
    assert all(line.startswith("[Gloo]") for line in silent.splitlines())
    assert (place / "evaluated" / "result.npz").is_file()


@pytest.mark.slow
def test_two_hosts_extract_features_as_one(place, trained):
    """Rows, times, labels and the report of an unreadable file are equal and in order."""
    record = load_source("synthetic_motion", "test", **OPTIONS)[0]
    paths = [place / f"{name}.mp4" for name in "abcde"]
    for path in paths:
        path.write_bytes(record.encoded() if path.stem != "c" else b"")
    for videos in ("dataset:test",), paths:
        line = ["features", *videos, "--checkpoint", trained[0], "--config.data.threads=2", "--out"]
        code = 0 if len(videos) == 1 else 2
        one = finish([start(place, *line, place / "one.npz")])
        two = finish(start_two(place, *line, place / "two.npz"))
        assert one[0][0] == two[0][0] == code and two[1][0] == 0, (one, two)
        a, b = FeatureFile(place / "one.npz"), FeatureFile(place / "two.npz")
        assert a.meta == b.meta and len(a.meta["ids"]) == (13 if code == 0 else 4)
        for i in range(len(a.meta["ids"])):
            for x, y in zip(a.read(i), b.read(i)):
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    assert "c.mp4" in one[0][2] and "c.mp4" in two[0][2]


def wait_for_step(workdir, step, processes):
    while not any(r["step"] >= step for r in read_metrics(workdir)):
        assert all(p.poll() is None for p in processes), finish(processes)
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_signal_to_one_host_stops_all_at_the_same_step(place, number):
    workdir = place / f"stopped_{number.name}"
    processes = start_two(place, *train_line(place, workdir, "--config.steps=100000"))
    wait_for_step(workdir, 3, processes)
    processes[1].send_signal(number)  # the host that does not print
    (code, _, err), (other, _, silent) = finish(processes)
    assert code == other == 0, err + silent
    saved = [int(p.name) for p in (workdir / "checkpoints").iterdir()]
    assert len(saved) == 1 and f"stopped and saved at step {saved[0]}" in err


@pytest.mark.parametrize("lost", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_host_is_reported_in_one_line(place, lost):
    workdir = place / f"lost_{lost}"
    args = ["--config.steps=100000", "--config.parallel.host_timeout=10"]
    processes = start_two(place, *train_line(place, workdir, *args))
    wait_for_step(workdir, 3, processes)
    processes[lost].kill()
    ended = time.monotonic()
    code, _, err = finish(processes)[1 - lost]
    assert code == LOST and f"process {lost} was lost" in err.splitlines()[-1], err
    assert "Traceback" not in err and "***" not in err and time.monotonic() - ended < 30


def test_error_on_one_host_stops_all_with_its_message(place):
    """Only the second host reads the corrupt video."""
    source = load_source("synthetic_motion", "test", **OPTIONS)
    for i in range(8):
        for split in ("train", "test"):
            path = place / "folder" / split / "ab"[i % 2] / f"{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            bad = split == "test" and i == 7
            path.write_bytes(b"no video" if bad else source[i].encoded())
    args = ["--config.data.name=video_folder", f"--config.data.options.path={place / 'folder'}"]
    args += ["--config.data.bad_limit=0", "--config.steps=1"]
    processes = start_two(place, *train_line(place, "bad", *args, config="tune.py"))
    (code, _, err), (other, _, own) = finish(processes)
    assert code == other == 2, err + own
    assert "process 1 stopped: 1 of 8 videos cannot be read" in err.splitlines()[-1]
    assert "1 of 8 videos cannot be read" in own.splitlines()[-1] and "Traceback" not in err + own


def test_hosts_with_another_config_or_version_are_refused_by_name(place, tmp_path):
    """Every host ends with the difference in one line."""
    odd = [  # another version of a package, on the second host only
        "import importlib.metadata as m",
        "version = m.version",
        "m.version = lambda name: '0.0.1' if name == 'flax' else version(name)",
    ]
    (tmp_path / "sitecustomize.py").write_text("\n".join(odd))
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    for env, args, message in (
        ({}, ["--config.optimizer.lr=0.5"], r"config than process 0 on \S+: optimizer.lr 0.5 against 0.001"),
        (path, [], r"code than process 0 on \S+: flax 0.0.1 against "),
    ):
        line = train_line(place, "differs")
        processes = start_two(place, *line, second=args, env=env)
        (code, _, err), (other, _, own) = finish(processes)
        assert code == other == 2, err + own
        for text in (err, own):
            assert re.search(rf"process 1 .* has another {message}", text.splitlines()[-1]), err + own
            assert "Traceback" not in text


def test_invalid_cluster_arguments_are_reported(place):
    for args, message in (
        (["--distributed"], "--distributed found no cluster environment"),
        (
            ["--distributed", "--coordinator", "localhost:1", "--processes", "2", "--process", "5"],
            "cannot join",
        ),
    ):
        ((code, _, err),) = finish([start(place, *train_line(place, "none", *args))])
        assert code == 2 and message in err and err.count("\n") == 1, err
