"""Training runs from the command line: complete, interrupted and resumed, and with invalid input."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import chex
import numpy as np
import pytest

from vidjax.checkpoint_io import load_variables
from vidjax.train.metrics import read_metrics

CONFIG = """
from ml_collections import ConfigDict
def get_config(arg=""):
    return ConfigDict(dict(
        batch=4, steps=12, seed=1,
        data=dict(name="synthetic_motion", options=dict(size=32, frames=8, train=24, val=12, test=12),
                  frames=4, stride=1.0, size=16, short_side=16, color_jitter=0.4),
        model=dict(name="slow_fusion_conv4", tiny=True, options=dict(dropout=0.5)),
        optimizer=dict(name="adamw", lr=1e-2, ema=0.9),
        evals=dict(val=dict(type="metrics", every=1.0)),
        report=False,
        checkpoint=dict(every_epochs=0.34),
        log_every=1,
    ))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    (folder / "config.py").write_text(CONFIG)
    tune = CONFIG.replace("slow_fusion_conv4", "videomae_s").replace("dict(dropout=0.5)", "{}")
    tune = tune.replace("color_jitter=0.4", "color_jitter=0.4, repeats=2")
    (folder / "tune.py").write_text(tune)
    mae = tune.replace("videomae_s", "videomae_s_pretrain")
    mae = mae.replace("log_every=1", "log_every=1, task=dict(name='masked_autoencoding')")
    mae = mae.replace('dict(val=dict(type="metrics", every=1.0))', "pretraining_evals(every=1.0)")
    mae = mae.replace("every_epochs=0.34", "every_epochs=0.34, best='knn'")
    (folder / "mae.py").write_text(f"from vidjax.config import pretraining_evals\n{mae}")
    return folder


def start(place, *args, devices=1):
    env = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(devices),
        "VIDJAX_CACHE": str(place / "cache"),
        "JAX_PLATFORMS": "cpu",
    }
    line = [sys.executable, "-m", "vidjax", *map(str, args)]
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def command(place, workdir, *args, devices=1, config="config.py"):
    line = ["train", "--config", place / config, "--workdir", place / workdir, *args]
    return start(place, *line, devices=devices)


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def whole(place):
    """Returns the workdir of an uninterrupted run."""
    code, out, err = finish(command(place, "whole"))
    assert code == 0, err
    assert "video_top1" in out
    return place / "whole"


def rows(workdir):
    timing = {"clips_per_s", "step_time", "data_wait", "decode_cpu"}
    return [{k: v for k, v in r.items() if k not in timing} for r in read_metrics(workdir)]


@pytest.mark.slow
def test_pmap_trains_evaluates_and_resumes(place):
    args = ("--config.parallel.mode=pmap", "--config.steps=4")
    code, out, err = finish(command(place, "pmap", *args, devices=4))
    assert code == 0 and "video_top1" in out, err
    before = rows(place / "pmap")[-1]
    code, _, err = finish(command(place, "pmap", *args, devices=2))  # resumes on another number of devices
    assert code == 0 and "resuming from step 4" in err, err
    after = rows(place / "pmap")[-1]
    assert before["split"] == after["split"] == "val"
    np.testing.assert_allclose(after["loss"], before["loss"], rtol=1e-5)


def test_training_writes_metrics_and_predictions(whole):
    train = [r for r in read_metrics(whole) if r["split"] == "train"]
    assert [r["step"] for r in train] == list(range(1, 13))
    assert {"loss", "top1", "lr", "grad_norm", "clips_per_s", "step_time"} <= train[0].keys()
    assert all(0 < r["decode_cpu"] <= 1 and 0 < r["data_wait"] <= 1 for r in train)
    assert [r["step"] for r in read_metrics(whole) if r["split"] == "val"] == [6, 12]
    assert len((whole / "predictions.jsonl").read_text().splitlines()) == 12
    assert list((whole / "tensorboard").iterdir())


def test_resume_is_bit_identical_after_sigkill(place, whole):
    """Sends SIGKILL twice, possibly during an asynchronous save, then SIGTERM."""
    for stop, how in ((3, signal.SIGKILL), (7, signal.SIGKILL), (9, signal.SIGTERM)):
        process = command(place, "killed")
        while process.poll() is None and not any(r["step"] >= stop for r in read_metrics(place / "killed")):
            time.sleep(0.01)
        process.send_signal(how)
        code, _, err = finish(process)
        if how == signal.SIGTERM and code == 0:
            assert "stopped and saved at step" in err or "video top1" in err
        else:
            assert code == -how, err
    code, _, err = finish(command(place, "killed"))
    assert code == 0, err
    assert rows(place / "killed") == rows(whole)
    last = pathlib.Path("checkpoints", "12")
    got, expected = (load_variables(place / run / last)[0] for run in ("killed", "whole"))
    chex.assert_trees_all_equal(got, expected)


@pytest.mark.slow  # the contract of tasks kills a shorter run of pretraining
def test_pretraining_resumes_bit_identically_and_is_fine_tuned(place):
    whole, killed = (place / f"mae_{run}" for run in ("whole", "killed"))
    code, _, err = finish(command(place, whole.name, config="mae.py"))
    assert code == 0 and (whole / "reconstructions" / "step_12.png").is_file(), err
    process = command(place, killed.name, config="mae.py")
    while process.poll() is None and not any(r["step"] >= 6 for r in read_metrics(killed)):
        time.sleep(0.01)
    process.kill()
    finish(process)
    code, _, err = finish(command(place, killed.name, config="mae.py"))
    assert code == 0, err
    assert rows(killed) == rows(whole)
    got, expected = (load_variables(run / "checkpoints" / "12")[0] for run in (killed, whole))
    chex.assert_trees_all_equal(got, expected)

    tune = [f"--config.init.path={whole}", "--config.steps=2"]
    skip = "--config.init.skip=('params/(norm|decoder|mask_token|fc_norm|head)',)"
    code, out, err = finish(command(place, "mae_tuned", *tune, skip, config="tune.py"))
    assert code == 0 and "video_top1" in out, err
    code, _, err = finish(command(place, "mae_strict", *tune, config="tune.py"))
    assert code == 2 and "mask_token" in err and "fc_norm" in err


def test_task_must_fit_the_model(place):
    code, _, err = finish(command(place, "mixed", "--config.task.name=masked_autoencoding"))
    assert code == 2 and "task.name=masked_autoencoding does not fit slow_fusion_conv4" in err
    code, _, err = finish(command(place, "mixed", "--config.task.name=classification", config="mae.py"))
    assert code == 2 and "task.name=classification does not fit videomae_s_pretrain" in err
    code, _, err = finish(command(place, "mixed", "--config.task.mixup=0.8", config="mae.py"))
    assert code == 2 and "unknown config key 'task.mixup'" in err


def vidjax_main(capsys, *line):
    from vidjax.cli import main

    with pytest.raises(SystemExit) as e:
        main([str(x) for x in line])
    return e.value.code, *capsys.readouterr()


def test_eval_reproduces_the_metrics_of_training(place, whole):
    last = whole / "checkpoints" / "12"
    code, out, err = finish(start(place, "eval", "--checkpoint", last, "--out", place / "eval"))
    assert code == 0, err
    val = [r for r in read_metrics(whole) if r["split"] == "val"][-1]
    got = dict(line.split() for line in out.splitlines() if line.startswith(("video_top1", "loss")))
    assert float(got["video_top1"]) == pytest.approx(val["video_top1"], abs=1e-4)
    assert float(got["loss"]) == pytest.approx(val["loss"], rel=1e-3)
    assert (place / "eval" / "predictions.jsonl").read_text() == (whole / "predictions.jsonl").read_text()


def test_predict_on_video_files(place, whole, capsys, monkeypatch):
    """Predictions for a file equal those of the evaluation, and a corrupt file does not affect others."""
    from vidjax.data.datasets import load_source

    monkeypatch.setenv("VIDJAX_CACHE", str(place / "cache"))
    record = load_source("synthetic_motion", "test", size=32, frames=8, train=24, val=12, test=12)[5]
    (place / "a.mp4").write_bytes(record.encoded())
    (place / "b.webm").write_bytes(b"")
    line = ["predict", place / "a.mp4", place / "b.webm", "--checkpoint", whole / "checkpoints" / "12"]
    code, out, err = vidjax_main(capsys, *line, "--json", "--draw", place / "drawn.png")
    good, bad = (json.loads(row) for row in out.splitlines())
    expected = json.loads((whole / "predictions.jsonl").read_text().splitlines()[5])
    assert expected["id"] == record.id
    assert [t["name"] for t in good["top"]] == [name for name, _ in expected["top5"]]
    np.testing.assert_allclose(
        [t["probability"] for t in good["top"]], [p for _, p in expected["top5"]], atol=1e-4
    )
    assert 0 <= good["clips"][0]["start"] < good["clips"][0]["end"] <= 8 / 25
    assert code == 2 and bad["error"] and "b.webm" in err and err.count("\n") == 1
    assert (place / "drawn_0.png").read_bytes().startswith(b"\x89PNG")


def test_models_and_describe(capsys):
    code, out, _ = vidjax_main(capsys, "models", "r3*_18", "--json")
    assert code == 0 and [row["name"] for row in json.loads(out)] == ["r3d_18"]
    code, out, _ = vidjax_main(capsys, "describe", "r3d_18", "--json")
    assert code == 0 and json.loads(out)["params"] == 33_371_472


def test_workdir_of_another_config_is_rejected(place, whole):
    code, _, err = finish(command(place, "whole", "--config.optimizer.lr=0.5"))
    assert code == 2 and "optimizer.lr: 0.01 -> 0.5" in err and "Traceback" not in err


def test_nonfinite_loss_reports_step_batch_and_layer(place):
    code, _, err = finish(command(place, "diverged", "--config.optimizer.lr=1e38"))
    assert code == 2 and "Traceback" not in err
    assert "not finite" in err and "batch" in err and ("non-finite layer is" in err or "parameter" in err)


@pytest.mark.parametrize(
    "args, message",
    [
        (["--config.optimizer.lrr=1"], "did you mean optimizer.lr"),
        (["--config.model.name=r3d_81"], "did you mean r3d_18"),
        (["--config.data.name=synthetic_notion"], "did you mean synthetic_motion"),
        (["--config.data.options.sise=3"], "did you mean size"),
        (["--config.model.options.widht=3"], "unknown option of slow_fusion_conv4 'widht'"),
        (
            ["--config.evals.val.type=knn", "--config.evals.val.videos=1"],
            "none of the 1 training videos of the",
        ),
        (["--config.evals.val.split=vall"], "did you mean val"),
        (["--config.evals.x.type=reconstructions"], "remove this eval"),
        (["--config.parallel.mesh.data=3"], "does not fit"),
        (["--config.parallel.accumulation=3"], "does not divide"),
        (["--config.model.options.widths=(4,)"], "does not take clips of"),
        (["--config.model.name=resnet18"], "is an image model"),
        (["--config.init.path=/nowhere"], "no checkpoint at /nowhere"),
        (["--workdir=/proc/x"], "cannot write to the workdir /proc/x"),
        (["--workdir=az://bucket/x"], "runs cannot be on az://bucket/x"),
        (["--confg.batch=3"], "unknown argument"),
    ],
)
def test_invalid_input_is_reported_in_one_line(place, tmp_path, capsys, monkeypatch, args, message):
    from vidjax.cli import main

    monkeypatch.setenv("VIDJAX_CACHE", str(place / "cache"))
    line = ["train", "--config", str(place / "config.py"), "--workdir", str(tmp_path), *args]
    with pytest.raises(SystemExit) as e:
        main(line)
    err = capsys.readouterr().err
    assert e.value.code == 2 and message in err and err.count("\n") == 1, err


def test_nonfinite_skip_continues_training(place, whole):
    code, _, err = finish(
        command(place, "skipping", "--config.optimizer.lr=1e38", "--config.optimizer.nonfinite=skip")
    )
    assert "skipped: batch" in err
    last = [r for r in read_metrics(place / "skipping") if r["split"] == "train"][-1]
    assert last["step"] >= 6 and np.isnan(last["loss"] if last["loss"] is not None else np.nan)
    assert code in (0, 2)  # the evaluation may reject non-finite logits
    assert json.loads((place / "skipping" / "config.json").read_text())["optimizer"]["nonfinite"] == "skip"
