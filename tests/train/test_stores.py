"""Training on object stores, against emulators: interrupted, resumed, evaluated and used for predictions."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

import chex
import fsspec
import jax
import pytest
from etils.epath import backend

from tests.train.test_checkpoint import INIT, state_at
from tests.train.test_hosts import start_two
from tests.train.test_loop import rows
from vidjax.checkpoint_io import find_checkpoint, load_variables
from vidjax.cli import main
from vidjax.convert.formats import read
from vidjax.data.datasets import load_source
from vidjax.errors import UserError
from vidjax.train import staging
from vidjax.train.checkpoint import Checkpointer
from vidjax.train.hosts import LOST
from vidjax.train.staging import StagedCheckpointer

OPTIONS = dict(size=32, frames=8, train=24, val=12, test=12)
CONFIG = f"""
from ml_collections import ConfigDict
def get_config(arg=""):
    return ConfigDict(dict(
        batch=4, steps=12, seed=1,
        data=dict(name="synthetic_motion", options=dict({OPTIONS}),
                  frames=4, stride=1.0, size=16, short_side=16, color_jitter=0.4),
        model=dict(name="slow_fusion_conv4", tiny=True, options=dict(dropout=0.5)),
        optimizer=dict(name="adamw", lr=1e-2, ema=0.9),
        evals=dict(val=dict(type="metrics", every=1.0)),
        checkpoint=dict(every_epochs=0.67),
        log_every=1,
    ))
"""
COMMIT = "commit_success.txt"  # the last object of a complete checkpoint


@dataclasses.dataclass
class Store:
    """An emulated object store with the bucket "runs"."""

    scheme: str
    client: fsspec.AbstractFileSystem  # vidjax shares neither it nor its listings

    def path(self, name):
        return f"{self.scheme}://runs/{name}"

    def find(self, name):
        self.client.invalidate_cache()
        return self.client.find(f"runs/{name}")

    def steps(self, workdir):
        """Returns the steps of the complete checkpoints of a run."""
        names = [path.split("/")[3:] for path in self.find(f"{workdir}/checkpoints")]
        return sorted(int(name[0]) for name in names if name[1:] == [COMMIT])


def with_generations(emulator):
    """Adds to the emulator what TensorStore needs: generations of objects, and writes that depend on them."""

    class Handler(emulator.RequestHandler):
        generation = ""

        def answer(self, then):
            url = urllib.parse.urlparse(self.path)
            query = urllib.parse.parse_qs(url.query)
            bucket, _, name = url.path.partition("/b/")[2].partition("/o")
            name = urllib.parse.unquote(name[1:]) or query.get("name", [""])[0]
            found = self.storage.objects.get(bucket, {}).get(name, {}).get("generation", "0")
            if name and query.get("ifGenerationMatch", [found]) != [found]:  # else the name is in the body
                self.refuse(412)
            elif query.get("ifGenerationNotMatch") == [found]:
                self.refuse(304)
            else:
                self.generation = found if query.get("alt") == ["media"] and found != "0" else ""
                then()

        def refuse(self, code):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def end_headers(self):
            if self.generation:
                self.send_header("x-goog-generation", self.generation)
            super().end_headers()

        def do_GET(self):
            self.answer(super().do_GET)

        def do_POST(self):
            self.answer(super().do_POST)

        def do_DELETE(self):
            self.answer(super().do_DELETE)

    return Handler


def gcs(patch):
    """Starts an emulator of Google Cloud Storage. Returns its client and a function that stops it."""
    gcsfs = pytest.importorskip("gcsfs", reason="needs gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator")
    patch.setattr(emulator, "RequestHandler", with_generations(emulator))
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    server = emulator.create_server("localhost", port, in_memory=True)
    server.start()
    for key in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
        patch.setenv(key, f"http://localhost:{port}")
    patch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # the emulator has no such buckets
    gcsfs.GCSFileSystem.clear_instance_cache()
    return gcsfs.GCSFileSystem(skip_instance_cache=True), server.stop


def s3(patch):
    """Starts an emulator of S3. Returns its client and a function that stops it."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(key, "x")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    return s3fs.S3FileSystem(skip_instance_cache=True), server.stop


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    (folder / "config.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module", params=[gcs, s3], ids=["gs", "s3"])
def store(request, place):
    with pytest.MonkeyPatch.context() as patch:
        client, stop = request.param(patch)
        backend.fsspec_backend._get_filesystem.cache_clear()
        client.mkdir("runs")
        yield Store("gs" if request.param is gcs else "s3", client)
        backend.fsspec_backend._get_filesystem.cache_clear()
        stop()


def train(place, workdir, *args):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    line = [sys.executable, "-m", "vidjax", "train", "--config", place / "config.py", "--workdir", workdir]
    return subprocess.Popen(
        [*map(str, line), *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def run(capsys, *line):
    with pytest.raises(SystemExit) as e:
        main([str(x) for x in line])
    out, err = capsys.readouterr()
    assert e.value.code == 0, err
    return out


@pytest.fixture(scope="module")
def whole(place):
    """Returns the workdir of an uninterrupted run on the local disk."""
    code, _, err = finish(train(place, place / "whole"))
    assert code == 0, err
    return place / "whole"


def store_half(store, step):
    """Copies half of the objects of a checkpoint of the run "a" to step 99."""
    objects = [x for x in store.find(f"a/checkpoints/{step}") if not x.endswith(f"{step}/{COMMIT}")]
    for path in objects[::2]:
        store.client.copy(path, path.replace(f"checkpoints/{step}/", "checkpoints/99/"))


def test_keeps_the_latest_the_best_and_every_nth_checkpoint(store):
    kind, workdir = Checkpointer if store.scheme == "gs" else StagedCheckpointer, store.path("kept")
    for step, metric in {2: 0.9, 4: None, 5: 0.1, 6: None}.items():
        checkpoints = kind(workdir, keep=1, keep_every=4)
        checkpoints.save(state_at(step), {"step": step}, metric)
        checkpoints.close()
    assert store.steps("kept") == [2, 4, 6]
    assert [find_checkpoint(workdir, which).name for which in ("last", "best", "4")] == ["6", "2", "4"]
    state, meta = kind(workdir).restore(jax.eval_shape(lambda: INIT(True)))
    chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(state_at(6)))
    assert meta == {"step": 6}
    weights, meta = read(find_checkpoint(workdir, "best"))
    chex.assert_trees_all_equal(weights["params/head/bias"], jax.device_get(state_at(2).ema["head"]["bias"]))
    assert meta == {"step": 2}


def test_upload_that_fails_on_another_host_leaves_no_complete_checkpoint(store, monkeypatch):
    if store.scheme == "gs":
        pytest.skip("orbax writes to gs:// itself")

    def fail(*_):
        raise OSError("another host was lost")

    monkeypatch.setattr(staging, "meet", fail)
    checkpoints = StagedCheckpointer(store.path("failed"))
    checkpoints.save(state_at(1), {})
    with pytest.raises(OSError, match="another host was lost"):
        checkpoints.wait()
    assert store.find("failed/checkpoints/1/state")
    assert StagedCheckpointer(store.path("failed")).latest_step() is None
    assert not store.find("failed/checkpoints/1")


def test_incomplete_checkpoint_on_a_store_is_ignored_and_removed(store):
    kind, workdir = Checkpointer if store.scheme == "gs" else StagedCheckpointer, store.path("a")
    checkpoints = kind(workdir)
    checkpoints.save(state_at(1), {})
    checkpoints.close()
    store_half(store, 1)
    assert find_checkpoint(workdir).name == "1"
    with pytest.raises(UserError, match="no checkpoint of step 99"):
        find_checkpoint(workdir, "99")
    checkpoints = kind(workdir)
    assert checkpoints.latest_step() == 1
    checkpoints.save(state_at(2), {})
    checkpoints.close()
    assert store.steps("a") == [2] and not store.find("a/checkpoints/99")
    store.client.rm("runs/a", recursive=True)


@pytest.mark.slow
def test_interrupted_run_on_a_store_equals_a_local_one(place, whole, store, capsys):
    """It is killed, stopped by SIGTERM, and given half of the objects of a later checkpoint."""
    workdir = store.path("a")
    for how in (signal.SIGKILL, signal.SIGTERM):
        process, before = train(place, workdir), store.steps("a")
        while process.poll() is None and store.steps("a") == before:
            time.sleep(0.01)
        process.send_signal(how)
        code, _, err = finish(process)
        assert code == (0 if how == signal.SIGTERM else -how), err
    assert "resuming from step" in err and "stopped and saved at step" in err
    latest = store.steps("a")[-1]
    assert latest < 12
    store_half(store, latest)
    assert find_checkpoint(workdir).name == str(latest)

    code, _, err = finish(train(place, workdir))
    assert code == 0 and f"resuming from step {latest} of 12" in err, err
    assert store.steps("a")[-1] == 12 and not store.find("a/checkpoints/99")
    (expected, meta), (got, saved) = (load_variables(path) for path in (whole, workdir))
    chex.assert_trees_all_equal(got, expected)
    assert saved["data"] == meta["data"] and rows(workdir) == rows(whole)

    written = {path.removeprefix("runs/a/").split("/")[0] for path in store.find("a")}
    assert written == {path.name for path in whole.iterdir()}

    out = run(capsys, "eval", "--checkpoint", workdir)
    scored = [float(line.split()[1]) for line in out.splitlines() if line.startswith("loss")]
    assert scored == [pytest.approx(rows(whole)[-1]["loss"], abs=1e-4)]
    assert "runs/a/eval/evaluation.json" in store.find("a")
    video = place / "a.mp4"
    video.write_bytes(load_source("synthetic_motion", "test", **OPTIONS)[0].encoded())
    remote, local = (
        json.loads(run(capsys, "predict", video, "--checkpoint", path, "--json")) for path in (workdir, whole)
    )
    assert remote == local


@pytest.mark.slow
def test_two_hosts_without_a_common_disk_resume_from_a_store(place, store):
    """Each holds half of the parameters; one is killed after a checkpoint."""

    def start(workdir):
        options = ["--config.parallel.mesh.fsdp=2", "--config.parallel.host_timeout=10"]
        line = ["train", "--config", place / "config.py", "--workdir", workdir, *options]
        return start_two(place, *line, env={"VIDJAX_CACHE": str(place / "second")})

    calm = [finish(process) for process in start(place / "calm")]
    assert [code for code, *_ in calm] == [0, 0], calm
    processes = start(store.path("two"))
    while not store.steps("two"):
        assert all(process.poll() is None for process in processes), [finish(p) for p in processes]
        time.sleep(0.01)
    processes[1].kill()
    assert finish(processes[0])[0] in (0, LOST)
    latest = store.steps("two")[-1]
    results = [finish(process) for process in start(store.path("two"))]
    assert [code for code, *_ in results] == [0, 0], results
    assert f"resuming from step {latest} of 12" in results[0][2] and latest < 12
    if store.scheme == "s3":  # where each shard is an object: the second host uploaded those of index 1
        shards = [p.split("/")[-1].split(".") for p in store.find("two/checkpoints/12") if "/params." in p]
        assert any("1" in shard for shard in shards), shards
    expected, got = (load_variables(path)[0] for path in (place / "calm", store.path("two")))
    chex.assert_trees_all_equal(got, expected)
