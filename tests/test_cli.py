"""The command line: errors of the user end in a one-line message and exit code 2."""

import json
import os
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath

import vidjax
from vidjax import files
from vidjax.checkpoint_io import find_checkpoint, save_variables
from vidjax.config import resolve
from vidjax.data.datasets import load_source
from vidjax.data.pipeline import BadVideos
from vidjax.errors import UserError
from vidjax.tasks.results import ClassificationResult
from vidjax.train.hosts import LOST
from vidjax.train.loop import train
from vidjax.train.metrics import MetricsWriter, read_metrics

OPTIONS = dict(size=32, frames=8, train=12, val=12, test=12)
DATA = dict(name="synthetic_motion", options=OPTIONS, frames=4, stride=1.0, size=16, short_side=16)


def config(model, task="classification"):
    return dict(
        batch=4,
        steps=1,
        data=DATA | dict(crop="center"),
        model=dict(name=model, tiny=True),
        task=dict(name=task),
        report=False,
        log_every=1,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Returns a folder with checkpoints of a classifier, a masked autoencoder and a probe, and a video."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(folder / "cache"))
        source = load_source("synthetic_motion", "test", **OPTIONS)
        (folder / "a.mp4").write_bytes(source[0].encoded())
        names = ["größe", *source.class_names[1:]]
        probe = config("linear_probe") | dict(
            data=dict(name="features", options=dict(path="x.npz"), feature_width=8)
        )
        for name, settings, shape in (
            ("classifier", config("slow_fusion_conv4"), (1, 4, 16, 16, 3)),
            ("pretraining", config("videomae_s_pretrain", "masked_autoencoding"), (1, 4, 16, 16, 3)),
            ("probe", probe, (1, 1, 8)),
        ):
            model = vidjax.create_model(settings["model"]["name"], 12, tiny=True)
            variables = jax.jit(model.init)(jax.random.PRNGKey(0), np.zeros(shape, np.float32))
            meta = {"config": settings, "class_names": names if name == "classifier" else list(names)}
            save_variables(folder / name, jax.device_get(variables), meta)
        damage(folder)
        yield folder


def damage(folder):
    """Adds files and workdirs that are empty, damaged or of another kind."""
    for name in ("empty.npz", "empty.array_record"):
        (folder / name).write_bytes(b"")
    (folder / "folder.npz").mkdir()
    for name, lines in (
        ("raises", "def get_config(arg):\n    {}['x']"),
        ("imports", "import no_such_module"),
        ("noarg", "def get_config():\n    return {}"),
        ("nothing", "def get_config(arg):\n    return None"),
        ("good", f"def get_config(arg):\n    return {config('slow_fusion_conv4')}"),
    ):
        (folder / f"{name}.py").write_text(lines + "\n")
    damaged = folder / "damaged"
    shutil.copytree(folder / "classifier", damaged / "meta")
    (damaged / "meta" / "meta" / "metadata").write_text("[]")
    shutil.copytree(folder / "classifier", damaged / "keys")
    (damaged / "keys" / "meta" / "metadata").write_text("{}")
    shutil.copytree(folder / "classifier", damaged / "metric" / "checkpoints" / "1")
    (damaged / "metric" / "checkpoints" / "1" / "metrics").mkdir()
    (damaged / "metric" / "checkpoints" / "1" / "metrics" / "metrics").write_text("{")
    (damaged / "config").mkdir()
    (damaged / "config" / "config.json").write_text("[]")
    (folder / "configured").mkdir()
    (folder / "configured" / "config.json").write_text(json.dumps(config("slow_fusion_conv4")))
    (damaged / "rows" / "metrics.jsonl").mkdir(parents=True)
    (damaged / "file").mkdir()
    (damaged / "file" / "checkpoints").write_bytes(b"")


def run(capsys, *line):
    from vidjax.cli import main

    with pytest.raises(SystemExit) as e:
        main([str(x) for x in line])
    return e.value.code, *capsys.readouterr()


@pytest.mark.parametrize(
    "line, message",
    [
        ("predict {p}/a.mp4 --checkpoint {p}/pretraining", "without a classifier"),
        ("predict {p}/a.mp4 --checkpoint {p}/probe", "trained on cached features"),
        ("predict {p}/a.mp4 --checkpoint {p}/a.mp4", "no such folder"),
        ("predict {p}/none.mp4 --checkpoint {p}/classifier", "none.mp4"),
        ("predict {p} --checkpoint {p}/classifier", "not a readable video"),
        ("predict {p}/a.mp4 --checkpoint {p}/classifier --clips 1000000", "evals.val.clips"),
        ("predict {p}/a.mp4 --checkpoint {p}/classifier --clips 0", "evals.val.clips"),
        ("predict {p}/a.mp4 --checkpoint {p}/classifier --draw {p}/none/a.png", "does not exist"),
        ("predict {p}/a.mp4 --checkpoint {p}/classifier --draw {p}/a.pgn", "unknown image format"),
        ("predict {p}/a.mp4 --checkpoint {p}/classifier --which bset", "choose last, best or a step"),
        ("predict {p}/a.mp4 --checkpoint {p}/classifier --which 7", "is one checkpoint"),
        ("predict {p}/a.mp4 --checkpoint {p}/classifier --stream", "does not support --stream"),
        ("features {p}/a.mp4 --checkpoint {p}/probe --out {p}/f.npz", "trained on features"),
        ("features {p}/a.mp4 --checkpoint {p}/classifier --out {p}/f.txt", ".npz or .array_record"),
        ("features {p}/a.mp4 --checkpoint {p}/classifier --out {p}/a.mp4/f.npz", "cannot write features"),
        ("features dataset:tset --checkpoint {p}/classifier --out {p}/f.npz", "did you mean test"),
        ("eval --checkpoint {p}/pretraining --out {p}/a.mp4", "cannot create the folder"),
        ("eval --checkpoint {p}/classifier --config.evals.val.clip=3", "did you mean evals.val.clips"),
        ("eval --checkpoint {p}/classifier --config.evals.clips=3", "'evals.clips' must be a section with"),
        (
            "eval --checkpoint {p}/classifier --config.evals.knn.videos=3",
            "'evals.knn' must be a section with",
        ),
        ("eval --checkpoint {p}/classifier --config.task.mixupp=1", "did you mean task.mixup"),
        ("eval --checkpoint {p}/classifier --config.checkpoint.best=vall", "did you mean val"),
        (
            "eval --checkpoint {p}/classifier --config.task.name=multi_label",
            "classifier was trained with task.name=classification, not multi_label: remove the override, or",
        ),
        (
            "eval --checkpoint {p}/pretraining --config.task.name=classification",
            "pretraining was trained with task.name=masked_autoencoding, not classification",
        ),
        ("eval --checkpoint {p}/classifier", "the classes of the dataset differ from those"),
        ("eval --checkpoint {p}", "no checkpoint in"),
        ("export {p}/classifier --to torchvision --out {p}/x.safetensors", "slow_fusion_conv4"),
        ("export {p}/none --to torchvision --out {p}/x.safetensors", "no such folder"),
        ("probe {p}/none.npz --workdir {p}/w", "none.npz does not exist"),
        ("probe {p}/a.mp4 --workdir {p}/w", "a.mp4"),
        ("report {p}/none --out {p}/r.html", "cannot read the config of the run"),
        ("report {p}/damaged/config --out {p}/r.html", "cannot read the config of the run"),
        ("report {p}/configured --out {p}/r.html", "no saved result"),
        ("report {p}/damaged/config {p}/config --out {p}/r.html", "have the same name"),
        ("fuse {p}/none --out {p}/w", "no saved result"),
        ("fuse {p}/a.mp4 --out {p}/w", "not a saved classification result"),
        ("train --config {p}/none.py --workdir {p}/w", "unknown config file"),
        ("train --config {p} --workdir {p}/w", "unknown config file"),
        ("describe r3d_81", "did you mean r3d_18"),
        ("describe r3d_18 --frames 0", "frames"),
        ("describe r3d_18 --size -3", "size"),
        ("models nothing_*", "no model matches"),
        ("describe r3d_18 --size 99999999999999999999", "size must be at least 1 and at most 8,192"),
        ("describe r3d_18 --classes 99999999999999999999", "num_classes must be at most"),
        ("predict {p}/a.mp4 --checkpoint {p}/classifier --which ²", "choose last, best or a step"),
        ("predict {p}/a.mp4 --checkpoint {p}/damaged/meta", "its metadata is not a JSON object"),
        ("predict {p}/a.mp4 --checkpoint {p}/damaged/keys", "lacks config, class_names"),
        ("features {p}/a.mp4 --checkpoint {p}/damaged/keys --out {p}/f.npz", "lacks config, class_names"),
        ("eval --checkpoint {p}/damaged/keys", "lacks config, class_names"),
        ("export {p}/damaged/keys --to timm --out {p}/x.safetensors", "lacks config"),
        ("predict {p}/a.mp4 --checkpoint {p}/damaged/metric --which best", "cannot read the checkpoint"),
        ("predict {p}/a.mp4 --checkpoint {p}/classifier --draw {p}/x.h5", "unknown image format"),
        ("predict {p}/a.mp4 --checkpoint {p}/classifier --draw /proc/x.png", "/proc/x.png"),
        ("predict {p}/a.mp4 --checkpoint {empty}", "the argument 'checkpoint' is empty"),
        ("eval --checkpoint {p}/classifier --coordinator localhost:1", "are for --distributed"),
        ("eval --checkpoint {p}/classifier --distributed --coordinator nohost", "must be HOST:PORT"),
        ("features {p}/a.mp4 --checkpoint {p}/classifier --out {p}/folder.npz", "cannot write features"),
        ("features {p}/a.mp4 --checkpoint {p}/classifier --out gs://b/f.npz", "name a local file"),
        ("predict {p}/a.mp4 --checkpoint gz://b/run", "gz://b/run: unknown storage"),
        ("probe {p}/empty.npz --workdir {p}/w", "is not a feature file"),
        ("probe {p}/empty.array_record --workdir {p}/w", "is not a feature file"),
        ("train --config {p}/raises.py --workdir {p}/w", "raises.py, line 2: KeyError: 'x'"),
        ("train --config {p}/imports.py --workdir {p}/w", "line 1: ModuleNotFoundError"),
        ("train --config {p}/noarg.py --workdir {p}/w", "takes 0 positional arguments"),
        ("train --config {p}/nothing.py --workdir {p}/w", "must return a ConfigDict, got None"),
        ("train --config {p}/good.py --workdir {p}/damaged/config", "it holds no config"),
        ("train --config {p}/good.py --workdir {p}/damaged/rows", "Is a directory"),
        ("train --config {p}/good.py --workdir {p}/damaged/file", "checkpoints: Not a directory"),
        ("train --config {p}/good.py --workdir {p}/w --config.batch=16777216", "GiB at a time"),
        ("convert {p}/none.pth --model r3d_18 --out {p}/c", "no checkpoint at"),
        ("convert {p}/a.mp4 --model r3d_18 --out {p}/c", "unknown weight format"),
    ],
)
def test_user_errors_are_one_line(place, capsys, line, message):
    code, _, err = run(capsys, *(x.format(p=place, empty="") for x in line.split()))
    assert code == 2 and message in err and err.count("\n") == 1, err


def test_failed_start_leaves_the_workdir_reusable(place, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(place / "cache"))
    slow = config("slow_fusion_conv4")
    with pytest.raises(UserError, match="no checkpoint at"):
        train(resolve(slow, ["init.path=/nowhere", "optimizer.lr=0.5"]), tmp_path / "run")
    assert train(resolve(slow), tmp_path / "run") is not None
    with pytest.raises(UserError, match="belongs to another config"):
        train(resolve(slow, ["optimizer.lr=0.5"]), tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        train(resolve(slow), tmp_path / "run")


def test_metrics_survive_a_kill_during_rewriting(tmp_path, monkeypatch):
    """Resuming rewrites the rows; the old file is kept until the new one is complete."""
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write(step, "train", {"loss": 1.0}, 0.0)
    writer.close()
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'null\n{"split": "val"}\n\x00\xff\n{"step": 4, "lo')  # killed while writing, or damaged

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            MetricsWriter(tmp_path, 2)
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2, 3]
    MetricsWriter(tmp_path, 2).close()
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2]
    assert not list(tmp_path.glob(".*"))


def test_a_truncated_list_of_bad_videos_does_not_block_a_resume(tmp_path):
    (tmp_path / "bad_videos.jsonl").write_text('{"id": "a"}\n{"id": "b')
    with pytest.raises(UserError, match="2 of 3 videos"):
        BadVideos(3, 0.5, tmp_path).report([("a", None, "?"), ("b", None, "?")])
    assert [row["id"] for row in files.read_rows(tmp_path / "bad_videos.jsonl")] == ["a"]


def test_a_damaged_checkpoint_is_named_at_resume(place, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(place / "cache"))
    small, run_ = resolve(config("slow_fusion_conv4")), tmp_path / "run"
    train(small, run_)
    checkpoint = run_ / "checkpoints" / "1"
    for damage in (
        lambda: (checkpoint / "meta" / "metadata").write_text("[]"),
        lambda: shutil.rmtree(checkpoint / "state" / "d"),
        lambda: (checkpoint / "metrics" / "metrics").write_text("x"),
    ):
        damage()
        with pytest.raises(UserError, match=r"cannot read the checkpoint .*: remove the damaged one") as e:
            train(small, run_)
        assert "\n" not in str(e.value)


@pytest.fixture(scope="module")
def finished(place):
    """Returns the workdir of a finished run, which is evaluated on two splits and ranked by the first."""
    evals = dict(val=dict(type="metrics"), fit=dict(type="metrics", split="train", clips=2))
    settings = config("slow_fusion_conv4") | dict(evals=evals, checkpoint=dict(best="fit"))
    train(resolve(settings), place / "finished")
    return place / "finished"


def test_a_result_states_its_checkpoint_and_split(finished, capsys):
    code, out, _ = run(capsys, "eval", "--checkpoint", finished, "--which", "best")
    about = json.loads((finished / "eval" / "evaluation.json").read_text())
    assert code == 0 and f"checkpoint: {about['checkpoint']}\n" in out
    assert about["checkpoint"].endswith("checkpoints/1 (best of its run on the split 'train')")
    assert {name: e["split"] for name, e in about["evals"].items()} == {"val": "test", "fit": "train"}
    assert "val, split test:\n" in out and "fit, split train:\n" in out
    assert about["config"]["evals"]["fit"]["clips"] == 2
    trained = {r["split"]: r for r in read_metrics(finished)}
    for name, e in about["evals"].items():
        assert e["metrics"]["video_top1"] == trained[name]["video_top1"]
        assert e["metrics"]["loss"] == pytest.approx(trained[name]["loss"], rel=1e-4)


def test_results_of_other_evaluations_are_in_their_folders(finished):
    splits = {}
    for folder in (finished, finished / "val"):
        result = ClassificationResult.load(folder / "result.npz")
        splits[folder.name] = result.ids[0].split("/")[0].split("_")[0], result.logits.shape[:2]
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == list(result.ids)
    (ranked, ranked_shape), (other, other_shape) = splits.values()
    assert "train" in ranked and "test" in other
    assert ranked_shape == (12, 2) and other_shape == (12, 1)
    assert not (finished / "fit").exists()


def test_report_of_a_finished_run(finished, capsys, tmp_path):
    code, out, err = run(capsys, "report", finished, "--out", tmp_path / "a.html", "--title", "A <run>")
    assert code == 0 and out == f"report: {tmp_path / 'a.html'}\n", err
    page = (tmp_path / "a.html").read_text()
    assert "A &lt;run&gt;" in page and "<script>" not in page.split("A &lt;run&gt;")[0].split("<title>")[1]
    top1 = ClassificationResult.load(finished / "result.npz").metrics["video_top1"]
    assert "finished" in page and f"{top1:.1%}" in page
    code, out, _ = run(capsys, "report", finished, "--out", tmp_path / "b.html")
    assert code == 0 and "slow_fusion_conv4" in (tmp_path / "b.html").read_text().split("</title>")[0]
    code, _, err = run(capsys, "report", finished, "--out", tmp_path / "none" / "c.html", "--config.batch=2")
    assert code == 2 and "does not accept --config.KEY" in err and err.count("\n") == 1


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_never_comes_is_one_line(place, process):
    """JAX's client would abort with a stack dump."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        address = f"localhost:{s.getsockname()[1]}"
    line = ["-m", "vidjax", "train", "--config", place / "good.py", "--workdir", place / "hosts"]
    line += ["--config.parallel.host_timeout=1", "--distributed", "--coordinator", address]
    done = python(*line, "--processes", 2, "--process", process, JAX_PLATFORMS="cpu")
    err = done.stderr.decode()
    assert done.returncode == LOST and err.count("\n") == 1, err
    assert f"process {process} could not join the run at {address} within 1 s" in err


def test_object_store_paths_are_unchanged(monkeypatch):
    """`pathlib` would convert "gs://bucket" to "gs:/bucket" in the working directory."""
    assert str(files.absolute("gs://bucket/run")) == "gs://bucket/run"
    assert os.fspath(files.absolute("run")) == os.path.join(os.getcwd(), "run")
    paths = []
    monkeypatch.setattr(files, "filesystem", lambda path: None)  # needs gcsfs
    monkeypatch.setattr(type(epath.Path("gs://b")), "is_dir", lambda self: paths.append(str(self)))
    with pytest.raises(UserError, match="no checkpoint at gs://bucket/run"):
        find_checkpoint("gs://bucket/run")
    assert paths == ["gs://bucket/run"]


def test_metrics_on_an_object_store_are_written_as_whole_files(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "is_remote", lambda path: True)
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, "train", {"loss": 1.0}, 0.0)
    assert read_metrics(tmp_path) == []  # not yet: an object cannot be appended to
    writer.write(1, "val", {"loss": 1.0}, 0.0)
    assert len(read_metrics(tmp_path)) == 2
    writer.write(2, "train", {"loss": 1.0}, 0.0)
    writer.flush()  # before a checkpoint
    assert len(read_metrics(tmp_path)) == 3
    writer.close()


def python(*line, **env):
    clean = {k: v for k, v in os.environ.items() if k not in ("LC_ALL", "LANG", "PYTHONIOENCODING")}
    return subprocess.run(
        [sys.executable, *map(str, line)], env={**clean, **env}, capture_output=True, timeout=120
    )


def test_optimized_python_in_an_ascii_terminal_without_a_home(place):
    env = dict(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", HOME="/proc/none", JAX_PLATFORMS="cpu")
    env["VIDJAX_CACHE"] = str(place / "cache")
    line = ["-OO", "-m", "vidjax", "predict", place / "a.mp4", "--checkpoint", place / "classifier"]
    done = python(*line, "--top", "12", "--json", **env)
    assert done.returncode == 0, done.stderr
    assert "gr\\xf6\\xdfe" in done.stdout.decode("ascii")
    row = json.loads(done.stdout.decode("ascii").replace("\\x", "\\u00"))
    assert len(row["top"]) == 12


def test_configs_are_listed_and_printed_with_overrides(capsys):
    code, out, _ = run(capsys, "configs", "kinetics400/*")
    assert code == 0 and "kinetics400/slowfast" in out and "weizmann" not in out
    assert all(len(row.split()) >= 4 for row in out.splitlines())
    code, out, _ = run(capsys, "config", "weizmann/slow_fusion_conv4", "--config.optimizer.lr=0.5")
    changed = [row for row in out.splitlines() if row.startswith("*")]
    assert code == 0 and len(changed) == 1 and changed[0].startswith("* optimizer.lr = 0.5  (was ")
    code, out, _ = run(capsys, "config", "configs/weizmann/slow_fusion_conv4.py:smoke", "--json")
    assert code == 0 and json.loads(out)["model"]["tiny"] is True
    code, _, err = run(capsys, "configs", "nothing")
    assert code == 2 and "no config matches 'nothing'" in err
    code, _, err = run(capsys, "config", "weizman/slow_fusion_conv4")
    assert code == 2 and "did you mean weizmann/slow_fusion_conv4" in err


def test_listing_models_imports_no_jax():
    code = "import sys; from vidjax.cli import main\ntry: main(['models'])\nexcept SystemExit: pass\n"
    done = python("-c", code + "print('jax' in sys.modules, 'flax' in sys.modules)")
    rows = done.stdout.decode().splitlines()
    assert rows[-1] == "False False" and any(row.startswith("r3d_18 ") for row in rows), done.stderr
