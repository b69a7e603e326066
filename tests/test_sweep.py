"""Sweeps: grids are checked first, runs resume, failures and signals are contained, results are compared."""

import csv
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
from etils import epath
from PIL import Image

from vidjax.cli import main
from vidjax.errors import UserError
from vidjax.metrics.uncertainty import mean_over_runs
from vidjax.reports.sweep import as_csv, plot, table
from vidjax.sweep import run as runner
from vidjax.sweep.points import Sweep, commands, folder_name, parse_grid, points

CONFIG = "synthetic_motion/slow_fusion_conv4"
# Stands in for `vidjax train`: the accuracy is a function of the learning rate and the seed.
FAKE = """
import json, os, pathlib, signal, sys, time
flags = dict(a.split("=", 1) for a in sys.argv[2:])
lr, seed = float(flags["--config.optimizer.lr"]), int(flags["--config.seed"])
folder = pathlib.Path(flags["--workdir"])
(folder / "started").open("a").write("x")
def stop(number, frame):
    (folder / "saved").touch()
    sys.exit(0)
if lr == 0.4:
    print("step 3: the loss is not finite", file=sys.stderr)
    sys.exit(2)
if lr == 0.3 and not (folder / "saved").exists():
    signal.signal(signal.SIGTERM, stop)
    (folder / "running").touch()
    time.sleep(60)
(folder / "cores").write_text(json.dumps(sorted(os.sched_getaffinity(0))))
metrics = {"video_top1": 0.5 + lr + seed / 100, "loss": lr}
(folder / "result.json").write_text(json.dumps({"metrics": metrics, "best": "video_top1", "table": []}))
(folder / "report.html").touch()
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Makes sweeps run `FAKE` instead of training. Returns the workdir."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(runner, "PROGRAM", (sys.executable, "-S", str(tmp_path / "fake.py")))
    monkeypatch.setattr(runner, "_POLL", 0.01)
    return tmp_path / "runs"


def sweep(capsys, *line):
    with pytest.raises(SystemExit) as e:
        main(["sweep", *(str(x) for x in line)])
    return e.value.code, *capsys.readouterr()


def of(folder, *grid, seeds=1, overrides=()):
    return points(Sweep(CONFIG, tuple(overrides), parse_grid(grid), seeds), epath.Path(folder))


def starts(folder):
    return {p.parent.name: len(p.read_text()) for p in pathlib.Path(folder).glob("*/started")}


def test_commas_in_brackets_and_quotes_do_not_separate_values():
    assert parse_grid(["a=1,2", "b=(1,2),(3,4)", "c='x,y',z"]) == {
        "a": ("1", "2"),
        "b": ("(1,2)", "(3,4)"),
        "c": ("'x,y'", "z"),
    }


def test_points_are_the_product_of_values_and_seeds(tmp_path):
    found = of(tmp_path, "optimizer.lr=1e-3,1e-4", "data.scale=(0.2,1),(0.5,1)", seeds=3)
    assert len(found) == 12
    assert [p.seed for p in found[:3]] == [0, 1, 2] and found[-1].values["data.scale"] == [0.5, 1]
    assert [p.config.optimizer.lr for p in found[::6]] == [1e-3, 1e-4]
    assert all(p.config.seed == p.seed for p in found)
    assert len({p.folder for p in found}) == 12 and found[0].name.startswith("optimizer.lr=0.001,data.scale=")


def test_folder_names_are_readable_and_unique():
    name = folder_name({"optimizer.lr": 1e-4, "model.name": "r3d_18"})
    assert name == "optimizer.lr=0.0001,model.name=r3d_18"
    assert folder_name({"a": "x/y"}) != folder_name({"a": "x y"})
    assert "/" not in folder_name({"a": "x/y"}) and len(folder_name({"a": "x" * 999})) < 200


@pytest.mark.parametrize(
    "line, message",
    [
        (["--grid", "optimizer.rl=1"], "did you mean optimizer.lr"),
        (["--grid", "optimizer.lr=0.1,abc"], "'optimizer.lr' must be of type float, got 'abc'"),
        (["--grid", "model.options.dropuot=1"], "did you mean dropout"),
        (["--grid", "data.options.trian=1"], "did you mean train"),
        (["--grid", "optimizer.lr"], "write KEY=VALUE,VALUE"),
        (["--grid", "optimizer.lr=1,,2"], "write KEY=VALUE,VALUE"),
        (["--grid", "batch=1", "--grid", "batch=2"], "batch was already given"),
        (["--grid", "optimizer.lr=1e-3,0.001"], "have the same config: optimizer.lr=0.001"),
        (["--grid", "optimizer.lr=1", "--config.optimizer.lr=1"], "both swept and set"),
        (["--grid", "seed=1,2", "--seeds", "2"], "exclude each other"),
        (["--grid", "task.name=classification,multi_label"], "ranked by"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--jobs", "100000"], "exceeds the"),
        (["--submit", "sbatch run.sh"], "put {command} where"),
        (["--submit", "sbatch {comand}"], "did you mean command"),
        (["--summary"], "nothing to summarize"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_starts(line, message, fake, capsys):
    code, _, error = sweep(capsys, CONFIG, *line, "--workdir", fake)
    assert code == 2 and message in error and len(error.splitlines()) == 1
    assert not starts(fake)


def test_a_sweep_without_config_needs_an_earlier_one(fake, capsys):
    assert "has no sweep" in sweep(capsys, "--workdir", fake)[2]
    assert "give the config" in sweep(capsys, "--workdir", fake, "--grid", "batch=1")[2]


def test_finished_points_are_skipped_and_a_changed_grid_keeps_what_fits(fake, capsys):
    line = [CONFIG, "--workdir", fake, "--config.log_every=7"]
    assert sweep(capsys, *line, "--grid", "optimizer.lr=0.1,0.2", "--seeds", 2)[0] == 0
    assert list(starts(fake).values()) == [1] * 4
    code, out, _ = sweep(capsys, *line, "--grid", "optimizer.lr=0.2,0.25", "--seeds", 2)
    assert code == 0 and "2 of 4 points are finished" in out
    assert list(starts(fake).values()) == [1] * 6
    code, out, _ = sweep(capsys, "--workdir", fake)  # the last one
    assert code == 0 and "4 of 4 points are finished" in out and "| 0.25 | 2 of 2 |" in out


def test_a_run_with_the_same_config_is_reused_whatever_its_folder_is_called(tmp_path):
    (old,) = of(tmp_path, "optimizer.lr=0.1")
    old.folder.mkdir()
    (old.folder / "config.json").write_text(json.dumps(old.config.to_dict()))
    stride = old.config.data.stride
    found = of(tmp_path, "optimizer.lr=0.1,0.2", f"data.stride={stride},7")
    assert [p.folder for p in found].count(old.folder) == 1 and found[0].folder == old.folder
    with pytest.raises(UserError, match=r"a run of another config \(epochs: .* -> 77"):
        of(tmp_path, "optimizer.lr=0.1", overrides=["epochs=77"])
    # These values do not count as another config when a run is resumed, but they are swept here.
    workers = of(tmp_path, "optimizer.lr=0.1", f"data.workers={old.config.data.workers},3")
    assert [p.folder == old.folder for p in workers] == [True, False]


def test_a_failed_point_is_reported_and_the_others_go_on(fake, capsys):
    line = [CONFIG, "--workdir", fake, "--grid", "optimizer.lr=0.4,0.1"]
    code, out, error = sweep(capsys, *line)
    assert code == 1
    assert "optimizer.lr=0.4,seed=0: failed (exit code 2): step 3: the loss is not finite; see" in out
    assert error == "vidjax: 1 of 2 points failed: optimizer.lr=0.4,seed=0\n"
    assert "| 0.1 | 1 of 1 |" in out and "| 0.4 | 0 of 1 | – |" in out
    assert sweep(capsys, *line)[0] == 1 and starts(fake)["optimizer.lr=0.4,seed=0"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_runs_save_and_the_same_command_resumes_them(number, fake, capsys):
    line = [CONFIG, "--workdir", fake, "--grid", "optimizer.lr=0.3,0.2"]
    running = fake / "optimizer.lr=0.3,seed=0" / "running"

    def interrupt():
        while not running.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    code, out, error = sweep(capsys, *line)
    thread.join(10)
    assert code == 1 and "optimizer.lr=0.3,seed=0: stopped" in out and "run the same command again" in error
    assert (running.parent / "saved").exists() and len(starts(fake)) == 1
    code, out, _ = sweep(capsys, *line)
    assert code == 0 and starts(fake) == {"optimizer.lr=0.3,seed=0": 2, "optimizer.lr=0.2,seed=0": 1}


def test_a_point_that_another_process_trains_is_left_alone(fake, capsys, monkeypatch):
    (point,) = of(fake, "optimizer.lr=0.3")
    job = runner._start(point, runner._Share(), epath.Path(fake))
    try:
        code, out, _ = sweep(capsys, CONFIG, "--workdir", fake, "--grid", "optimizer.lr=0.3")
        assert code == 1 and "another process is training it" in out
    finally:
        job.process.kill()
        job.process.wait()
    assert set(starts(fake).values()) <= {1}


def test_jobs_run_side_by_side(fake, monkeypatch):
    monkeypatch.setattr(runner, "_shares", lambda jobs: [runner._Share()] * jobs)
    found = of(fake, "optimizer.lr=0.3,0.2")

    def release():
        while len(starts(fake)) < 2:  # the first one runs until it is stopped
            time.sleep(0.01)
        (found[0].folder / "saved").touch()
        jobs[0].process.send_signal(signal.SIGTERM)

    jobs, start = [], runner._start
    monkeypatch.setattr(runner, "_start", lambda *a: jobs.append(start(*a)) or jobs[-1])
    thread = threading.Thread(target=release, daemon=True)
    thread.start()
    failed, stopped = runner.run(found, epath.Path(fake), jobs=2)
    thread.join(10)
    assert (failed, stopped) == ([found[0].name], False) and found[1].finished()


def test_jobs_divide_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(10)))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    shares = runner._shares(4)
    assert [c for s in shares for c in s.cores] == list(range(10))
    assert [s.environment["CUDA_VISIBLE_DEVICES"] for s in shares] == ["4", "5", "6", "7"]
    with pytest.raises(UserError, match="--jobs 5 exceeds the 4 GPUs"):
        runner._shares(5)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert len(runner._shares(10)) == 10 and not runner._shares(10)[0].environment


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_processes_are_bound_to_their_cores(fake):
    before = os.sched_getaffinity(0)
    found = of(fake, "optimizer.lr=0.1,0.2")
    assert runner.run(found, epath.Path(fake), jobs=2) == ([], False)
    mine = [set(json.loads((p.folder / "cores").read_text())) for p in found]
    assert not mine[0] & mine[1] and mine[0] | mine[1] == before == os.sched_getaffinity(0)


def test_submit_fills_the_template_and_skips_finished_points(fake, capsys):
    line = [CONFIG, "--workdir", fake, "--grid", "optimizer.lr=0.1,0.2"]
    first, second = of(fake, "optimizer.lr=0.1,0.2")
    assert commands([first], "sbatch -J {name} 'a.sh' {command}") == [
        ["sbatch", "-J", first.name, "a.sh", "vidjax", *first.words]
    ]
    (words,) = commands([first], "ssh host 'cd x && {command}'")
    assert words[2].startswith("cd x && vidjax train --config=") and len(words) == 3
    assert sweep(capsys, *line, "--list")[1].splitlines()[0].startswith("vidjax train --config=")
    assert not fake.exists()
    first.folder.mkdir(parents=True)
    for name in ("result.json", "report.html"):
        saved = {"metrics": {"video_top1": 0.5}, "best": "video_top1", "table": []}
        (first.folder / name).write_text(json.dumps(saved))
    out = fake / "submitted"
    template = f"sh -c 'echo \"{{name}}\" >> {out}; echo job 7' {{command}}"
    code, text, _ = sweep(capsys, *line, "--submit", template)
    assert code == 0 and f"{second.name}: submitted: job 7" in text
    assert out.read_text() == f"{second.name}\n"
    code, _, error = sweep(capsys, *line, "--submit", "false {command}")
    assert code == 1 and f"1 of 2 points failed: {second.name}" in error
    assert "cannot run nonesuch" in sweep(capsys, *line, "--submit", "nonesuch {command}")[2]


def summary(lower=False, **grid):
    """Returns a summary with three seeds per point whose metric falls with the first key."""
    rows = []
    for i, value in enumerate(next(iter(grid.values()))):
        scores = [0.9 - 0.1 * i - 0.01 * seed for seed in range(3)]
        runs = [{"seed": s, "folder": f"{i}-{s}", "metrics": {"top1": x}} for s, x in enumerate(scores)]
        over = mean_over_runs(np.array(scores))
        rows.append(
            {
                "values": {key: values[i] for key, values in grid.items()} | {next(iter(grid)): value},
                "mean": float(over.mean),
                "half_width": float(over.high - over.mean),
                "runs": runs,
            }
        )
    about = {"config": "c", "overrides": [], "keys": list(grid), "evaluation": "val", "metric": "top1"}
    return about | {"lower_is_better": lower, "points": rows}


def test_summary_is_sorted_by_the_headline_and_has_intervals(fake, capsys):
    grid = ["--grid", "optimizer.lr=0.1,0.25,0.2"]
    code, out, _ = sweep(capsys, CONFIG, "--workdir", fake, *grid, "--seeds", 3)
    saved = json.loads((fake / "summary.json").read_text())
    assert code == 0 and saved["metric"] == "video_top1" and saved["evaluation"] == "val"
    assert [p["values"]["optimizer.lr"] for p in saved["points"]] == [0.25, 0.2, 0.1]
    over = mean_over_runs(np.array([0.75, 0.76, 0.77]))
    assert saved["points"][0]["mean"] == pytest.approx(over.mean)
    assert saved["points"][0]["half_width"] == pytest.approx(over.high - over.mean)
    shown = (fake / "summary.md").read_text()
    assert shown in out and "| 0.25 | 3 of 3 | 0.760 ± 0.025 |" in shown
    rows = list(csv.DictReader((fake / "summary.csv").open()))
    assert len(rows) == 9 and rows[0]["seed"] == "0" and float(rows[0]["video_top1"]) == 0.75
    assert Image.open(fake / "summary.png").size[0] > 300
    (fake / "optimizer.lr=0.25,seed=1" / "result.json").unlink()
    code, out, _ = sweep(capsys, "--workdir", fake, "--summary")
    assert code == 0 and "| 0.25 | 2 of 3 |" in out and starts(fake)["optimizer.lr=0.25,seed=1"] == 1


def test_lower_is_better_where_the_metric_says_so(tmp_path):
    from vidjax.sweep.points import summarize

    found = of(tmp_path, "optimizer.lr=0.1,0.2,0.3")
    for point, loss in zip(found[:2], (0.7, 0.6)):
        point.folder.mkdir()
        saved = {"metrics": {"loss": loss}, "best": "-loss", "table": []}
        (point.folder / "result.json").write_text(json.dumps(saved))
    made = summarize(Sweep(CONFIG, (), {"optimizer.lr": ("0.1", "0.2", "0.3")}), found)
    assert [p["mean"] for p in made["points"]] == [0.6, 0.7, None] and made["lower_is_better"]


def axes(monkeypatch, made):
    """Returns the axes that `plot` draws."""
    import matplotlib.pyplot as plt

    figures, subplots = [], plt.subplots
    monkeypatch.setattr(plt, "subplots", lambda *a, **k: figures.append(subplots(*a, **k)) or figures[-1])
    assert Image.open(io.BytesIO(plot(made))).format == "PNG"
    return figures[0][1][0]


def test_plot_has_a_panel_for_each_swept_key_and_a_log_axis_for_learning_rates(monkeypatch):
    grid = {"optimizer.lr": [2e-3, 1e-3], "model.name": ["a", "b"], "batch": [4, 4], "stride": [1, 2]}
    made = summary(**grid)
    lr, name, stride = axes(monkeypatch, made)
    assert (lr.get_xscale(), name.get_xscale(), stride.get_xscale()) == ("log", "linear", "linear")
    assert [t.get_text() for t in name.get_xticklabels()] == ["a", "b"]
    assert lr.get_ylabel() == "val top1" and lr.get_xlabel() == "optimizer.lr"
    assert plot(summary(batch=[4])) is None


def test_table_and_csv_show_values_of_any_type():
    made = summary(flag=[True, None])
    assert "| True | 3 of 3 | 0.890 ± 0.025 |" in table(made) and "| None |" in table(made)
    made["points"][1]["runs"][0]["metrics"] = None
    lines = as_csv(made).splitlines()
    assert lines[0] == "flag,seed,folder,top1" and lines[4] == ",0,1-0,"


def test_a_real_sweep_of_two_points(tmp_path, capsys, monkeypatch):
    """Trains in this process, where JAX is already running."""

    class Here:
        def __init__(self, words, stdout, **_):
            try:
                main(list(words[len(runner.PROGRAM) :]))
            except SystemExit as e:
                self.returncode = e.code

        def poll(self):
            return self.returncode

    pipes = types.SimpleNamespace(Popen=Here, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(runner, "subprocess", pipes)
    line = [f"{CONFIG}:smoke", "--workdir", tmp_path, "--grid", "optimizer.lr=1e-2,1e-3"]
    line += ["--config.report=False", "--config.steps=1"]
    code, out, _ = sweep(capsys, *line)
    assert code == 0 and out.count("| 1 of 1 |") == 2
    folder = tmp_path / "optimizer.lr=0.01,seed=0"
    assert json.loads((folder / "config.json").read_text())["optimizer"]["lr"] == 0.01
    before = (folder / "result.npz").read_bytes()
    code, out, _ = sweep(capsys, *line)
    assert code == 0 and "2 of 2 points are finished" in out
    assert (folder / "result.npz").read_bytes() == before
