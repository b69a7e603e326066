"""What every task must do: static shapes, learning, exact metrics, exact resume, and one-line errors."""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest

from vidjax.checkpoint_io import load_variables
from vidjax.config import pretraining_evals, resolve
from vidjax.data.clips import Clip, Views
from vidjax.data.datasets import ListSource, load_source
from vidjax.data.decode import DecodeError
from vidjax.data.geometry import Geometry
from vidjax.data.pipeline import eval_batches
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget, MultiLabelTarget, Segment, SegmentsTarget
from vidjax.evaluation.metrics import collect
from vidjax.metrics.average_precision import labels_at
from vidjax.tasks import tasks
from vidjax.train.experiment import build, initial_state
from vidjax.train.loop import train
from vidjax.train.metrics import read_metrics

MOTION = dict(
    data=dict(
        name="synthetic_motion",
        options=dict(size=32, frames=8, train=24, val=12, test=13),
        frames=4,
        stride=1.0,
        size=16,
        short_side=16,
        crop="center",
        flip=False,
    )
)
SCENES = dict(
    data=dict(
        name="synthetic_scenes",
        options=dict(size=64, seconds=4.0, fps=12, train=24, val=12, test=13),
        frames=4,
        stride=2.0,
        size=16,
        short_side=16,
        crop="center",
        flip=False,
    )
)
SMALL = dict(model=dict(name="slow_fusion_conv4", tiny=True))


@dataclasses.dataclass(frozen=True)
class Case:
    """How a task is tested.

    Attributes:
      config: a small config.
      perfect: (record, times [clips, crops, T], classes) -> outputs of a perfect model for one video.
      best: headline of perfect predictions.
      malformed: a target that is not valid; None if the task has no target.
      fits: fraction of the initial loss that is reached on eight samples.
    """

    config: dict
    perfect: object
    best: float
    malformed: object = None
    fits: float = 0.05


def one_hot(labels, classes):
    return np.where(np.isin(np.arange(classes), labels), 20.0, -20.0).astype(np.float32)


def views(times):
    return times.shape[0] * times.shape[1]


def frame_logits(record, times, classes):
    clips, crops, frames = times.shape
    active = labels_at(record.target.segments, times.ravel(), classes)
    return np.where(active, 20.0, -20.0).reshape(clips * crops, frames, classes).astype(np.float32)


CASES = {
    "classification": Case(
        MOTION | SMALL | dict(task=dict(name="classification")),
        lambda r, times, k: np.tile(one_hot([r.target.label], k), (views(times), 1)),
        1.0,
        ClassTarget(99),
    ),
    "masked_autoencoding": Case(
        MOTION
        | dict(model=dict(name="videomae_s_pretrain", tiny=True))
        | dict(task=dict(name="masked_autoencoding", normalize_targets=False))
        | dict(evals=pretraining_evals(), checkpoint=dict(best="knn")),
        lambda r, times, k: {"error": np.float32(0), "weight": np.float32(1)},
        0.0,
        fits=0.2,  # masked patches of noise cannot be predicted exactly
    ),
    "multi_label": Case(
        SCENES | SMALL | dict(task=dict(name="multi_label")),
        lambda r, times, k: np.tile(one_hot(r.target.labels, k), (views(times), 1)),
        1.0,
        MultiLabelTarget((99,)),
    ),
    "frame_classification": Case(
        SCENES
        | dict(model=dict(name="cnn_gru_resnet18", tiny=True, options=dict(readout="every")))
        | dict(task=dict(name="frame_classification", points=8)),
        frame_logits,
        1.0,
        SegmentsTarget((Segment(1.0, 2.0, 99),), 4.0),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def config_of(name, **changes):
    shared = dict(batch=8, steps=6, seed=1, log_every=1, report=False)
    shared |= dict(optimizer=dict(name="adamw", lr=3e-3), schedule=dict(name="constant"))
    shared |= dict(checkpoint=CASES[name].config.get("checkpoint", {}) | dict(every_epochs=0.0))
    return resolve({**CASES[name].config, **shared, **changes})


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def experiments():
    return {}


@pytest.fixture
def exp(case, experiments):
    if case not in experiments:
        experiments[case] = build(config_of(case))
    return experiments[case]


def test_every_task_is_tested():
    assert {*CASES} == {name for name, cls in tasks().items() if cls.__module__.startswith("vidjax.tasks.")}


def shapes(batch):
    return jax.tree.map(lambda x: (x.shape, x.dtype), batch)


def test_shapes_are_static(exp):
    """Of training and evaluation, for all records, padding rows and corrupt videos."""
    batches = exp.batches(0, 8)
    seen = [shapes(next(batches)) for _ in range(4)]
    batches.close()
    assert all(s == seen[0] for s in seen)
    records = [exp.eval_source[i] for i in range(5)]
    records[2] = dataclasses.replace(records[2], video=b"not a video")
    source = ListSource(tuple(records), exp.eval_source.class_names)
    data = exp.config.data.copy_and_resolve_references()
    data.bad_limit = 0.5
    evals = [shapes(b) for b in eval_batches(source, data, 4, 2, 1, **exp.task.reading)]
    assert len(evals) == 2 and evals[0] == evals[1]
    one_view = jax.tree.map(
        lambda s: (s[0][2:], s[1]), evals[0]["inputs"], is_leaf=lambda x: type(x) is tuple
    )
    clip = jax.tree.map(lambda s: (s[0][1:], s[1]), seen[0]["inputs"], is_leaf=lambda x: type(x) is tuple)
    assert one_view == clip


def test_loss_falls_to_near_zero_on_eight_samples(exp, case):
    batches = exp.batches(0, 8)
    batch = {k: v for k, v in next(batches).items() if k in ("inputs", "targets")}
    batches.close()
    placed, losses = exp.runner.place(initial_state(exp)), []
    for _ in range(800):
        placed, metrics = exp.runner.step(placed, batch)
        losses.append(float(metrics["loss"]))
        if np.mean(losses[-5:]) < CASES[case].fits * losses[0]:
            return
    raise AssertionError(f"the loss fell from {losses[0]} to {np.mean(losses[-5:])} only")


def predictions(exp, case, shuffled=False):
    """Returns the result of perfect predictions, or of those of other videos."""
    records = [exp.train_source[i] for i in range(len(exp.train_source))]
    owners = np.roll(records, 1) if shuffled else records
    views = exp.evals["val"]
    duration = 0.32 if case in ("classification", "masked_autoencoding") else 4.0
    times = duration * np.arange(8 * views.crops * 4).reshape(8, views.crops, 4) / (8 * views.crops * 4)
    outputs = (CASES[case].perfect(r, times, len(exp.train_source.class_names)) for r in owners)
    decoded = [exp.task.decode(out, r, Views(times)) for out, r in zip(outputs, records, strict=True)]
    return exp.task.evaluate(decoded, records)


def test_perfect_predictions_score_the_maximum(exp, case):
    assert predictions(exp, case).headline == pytest.approx(CASES[case].best, abs=1e-6)


def test_shuffled_predictions_score_about_chance(exp, case):
    if CASES[case].config["task"]["name"] == "masked_autoencoding":
        pytest.skip("the errors of a reconstruction belong to no other video")
    result = predictions(exp, case, shuffled=True)
    chance = result.metrics.get("chance_map", 0.1)
    assert result.headline < chance + 0.25 < 0.9


def test_malformed_target_counts_as_a_corrupt_video(exp, case):
    target = CASES[case].malformed
    if target is None:
        pytest.skip("the task has no target")
    clip = Clip({}, np.linspace(0, 1, exp.config.data.frames), Geometry.identity(16, 16))
    record = Record(b"", target, "odd")
    with pytest.raises(DecodeError, match="odd: ") as e:
        exp.task.example(record, clip, np.random.default_rng(0), True)
    assert "\n" not in str(e.value)


def test_corrupt_videos_are_not_evaluated(exp, case, tmp_path):
    """The metrics are those of the other videos, and the video is listed once."""
    records = [exp.eval_source[i] for i in range(len(exp.eval_source))]
    odd = [dataclasses.replace(r, video=b"") if i == 3 else r for i, r in enumerate(records)]
    names = exp.eval_source.class_names
    state = initial_state(exp)
    data = exp.config.data.copy_and_resolve_references()
    data.bad_limit = 0.5
    found = []
    for chosen, folder in ((odd, tmp_path), ([r for i, r in enumerate(records) if i != 3], None)):
        source = ListSource(tuple(chosen), names)
        engine = exp.engine("predict", lambda v, b: exp.task.predict(exp.model, v, b))
        batches = eval_batches(source, data, 8, 1, 1, report_dir=folder, **exp.task.reading)
        found.append(collect(engine.run(state.eval_variables, batches), exp.task, source, 1))
    (some, kept), (others, same) = found
    assert [r.id for r in kept] == [r.id for r in same]
    if case != "masked_autoencoding":  # whose masks depend on the index
        chex.assert_trees_all_close(
            exp.task.evaluate(some, kept).metrics, exp.task.evaluate(others, same).metrics, rtol=1e-5
        )
    rows = [json.loads(line) for line in (tmp_path / "bad_videos.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [records[3].id]


TESTS = pathlib.Path(__file__).parent.parent
KILLED = """
import json, os, signal, sys
import conftest
from vidjax.config import resolve
from vidjax.train import loop

def meta(self, step, meta=loop._Run.meta):
    if step > 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return meta(self, step)

loop._Run.meta = meta
loop.train(resolve(json.loads(sys.argv[1])), sys.argv[2])
"""


@pytest.mark.parametrize(
    "case",
    [
        n if n in ("classification", "masked_autoencoding") else pytest.param(n, marks=pytest.mark.slow)
        for n in CASES
    ],
)
def test_run_that_was_killed_continues_bit_for_bit(case, tmp_path):
    """A run is killed at its checkpoint of step 6, and resumed from that of step 3."""
    every = dict(checkpoint=CASES[case].config.get("checkpoint", {}) | dict(every_epochs=1.0))
    config = config_of(case, **every)
    train(config, tmp_path / "whole")
    line = [sys.executable, "-c", KILLED, json.dumps(config.to_dict()), str(tmp_path / "killed")]
    child = subprocess.run(line, cwd=TESTS, capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    train(config, tmp_path / "killed")
    timing = ("clips_per_s", "step_time", "data_wait", "decode_cpu")
    rows = [
        [{k: v for k, v in r.items() if k not in timing} for r in read_metrics(tmp_path / run)]
        for run in ("whole", "killed")
    ]
    assert rows[0] == rows[1] and len(rows[0]) > 6
    got, expected = (load_variables(tmp_path / run)[0] for run in ("killed", "whole"))
    chex.assert_trees_all_equal(got, expected)


def test_predict_prints_and_draws(case, tmp_path, capsys):
    from vidjax.cli import main

    config = config_of(case, steps=1)
    train(config, tmp_path / "run")
    record = load_source(config.data.name, "test", tasks()[case].target, **config.data.options)[0]
    data = record.encoded()
    (tmp_path / "a.mp4").write_bytes(data if isinstance(data, bytes) else pathlib.Path(data).read_bytes())
    capsys.readouterr()
    line = ["predict", str(tmp_path / "a.mp4"), "--checkpoint", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as e:
        main([*line, "--json", "--draw", str(tmp_path / "a.png")])
    out, err = capsys.readouterr()
    if case == "masked_autoencoding":
        assert e.value.code == 2 and "fine-tune it first" in err and err.count("\n") == 1
        return
    row = json.loads(out)
    assert e.value.code == 0 and row["error"] is None and len(row) > 2, err
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        main(line)
    assert len(capsys.readouterr().out.splitlines()) >= 2
