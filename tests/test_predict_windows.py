"""Predictions of windows of long videos: equal to those of the segments, and averaged for each second."""

import json

import av
import jax
import numpy as np
import pytest

from vidjax import create_model
from vidjax.checkpoint_io import save_variables
from vidjax.cli import main
from vidjax.data.record import Record
from vidjax.predict import Prediction, Predictor, per_second
from vidjax.tasks.classification import ClassPrediction
from vidjax.tasks.frame_classification import FramePrediction

NAMES = ["a", "b", "c"]


def encode(path, frames, fps=10):
    rng = np.random.default_rng(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(frames):
            image = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return str(path)


def checkpoint(folder, name="mc3_18", task="classification", **data):
    model = create_model(name, 3, tiny=True)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 4, 32, 32, 3), np.float32))
    data = dict(name="video_folder", frames=4, size=32, short_side=36, stride=2.0) | data
    config = dict(epochs=1.0, data=data, model=dict(name=name, tiny=True), task=dict(name=task))
    save_variables(folder, jax.device_get(variables), dict(config=config, class_names=NAMES))
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("ck") / "mc3")


@pytest.fixture(scope="module")
def frame_folder(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("ck") / "lrcn", "lrcn_resnet50", "frame_classification")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("video") / "long.mp4", 64)


def test_windows_are_predicted_like_segments(folder, video):
    predictor = Predictor.load(folder)
    windows = list(predictor.windows([video, video], 2.0, 0.7, batch=3))
    assert [w.path for w in windows] == [video] * 16
    assert [round(w.start, 3) for w in windows[:8]] == [0, 0.7, 1.4, 2.1, 2.8, 3.5, 4.2, 4.4]
    assert windows[7].end == pytest.approx(6.4)
    for a, b in zip(windows[:8], windows[8:], strict=True):  # the second video does not see the first
        np.testing.assert_array_equal(a.content.logits, b.content.logits)
    read = predictor._reader
    for w in windows[:8]:
        views = read.views(Record(video, None, "v", w.start, w.end), 3, 1)  # three clips of 0.8 s
        inputs = {"rgb": np.stack([view.inputs["rgb"] for view in views])[None]}
        logits = predictor.task.predict(predictor.model, predictor.variables, {"inputs": inputs})
        np.testing.assert_allclose(w.content.logits, logits[0][:, None], rtol=1e-4, atol=1e-5)


def window(start, end, scores, times=None):
    scores = np.array(scores, float)
    if times is None:
        content = ClassPrediction(np.log(scores)[None, None], np.array([[start, end]]), ("x", "y"))
    else:
        content = FramePrediction(np.array(times), scores, ("x", "y"), 0.5)
    return Prediction("v", content, start=start, end=end)


def test_seconds_are_means_weighted_by_overlap():
    windows = [window(0, 2, [0.2, 0.8]), window(0.5, 2.5, [0.6, 0.4])]
    rows = list(per_second(windows))
    assert [(p.start, p.end) for p in rows] == [(0, 1), (1, 2), (2, 2.5)]
    expected = [(1 * 0.2 + 0.5 * 0.6) / 1.5, 0.4, 0.6]
    np.testing.assert_allclose([p.content.scores for p in rows], [[e, 1 - e] for e in expected])


def test_seconds_of_frame_times():
    scores = [[0.0, 1.0], [1.0, 0.0]]
    rows = list(per_second([window(0, 2, scores, [0.5, 1.0]), window(2, 4, scores, [2.5, 3.7])]))
    # The scores change at 0.75, 2 and 3.1 s, halfway between the frames.
    np.testing.assert_allclose([p.content.scores[0] for p in rows], [0.25, 1, 0, 0.9])


def test_seconds_are_yielded_before_the_video_ends():
    def endless():
        for i in range(10**9):
            yield window(i, i + 2, [0.5, 0.5])

    rows = per_second(endless())
    assert [next(rows).start for _ in range(50)] == list(range(50))


def test_seconds_of_several_videos_and_errors():
    a, b = window(0, 1, [0.1, 0.9]), window(0, 1, [0.3, 0.7])
    error = Prediction("bad", error="cannot be read")
    rows = list(per_second([a, b, error, a]))
    assert [p.error for p in rows] == [None, None, "cannot be read", None]
    np.testing.assert_allclose([p.content.scores[0] for p in rows if not p.error], [0.1, 0.3, 0.1])


def run(capsys, *argv):
    with pytest.raises(SystemExit) as e:
        main(["predict", *argv])
    return e.value.code, *capsys.readouterr()


def test_the_command(capsys, tmp_path, folder, video):
    base = [video, "--checkpoint", folder]
    code, out, _ = run(capsys, *base, "--window", "2", "--step", "2", "--top", "1")
    lines = out.splitlines()
    assert code == 0 and lines[0] == video and len(lines) == 5
    assert lines[1].startswith("      0.00–2.00 s  ") and lines[4].startswith("      4.40–6.40 s  ")
    code, out, _ = run(capsys, *base, "--window", "clip", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(r["start"], r["end"]) for r in rows[:2]] == [(0, 0.8), (0.4, 1.2)] and rows[-1]["end"] == 6.4
    assert rows[0]["error"] is None and len(rows[0]["top"]) == 3 and len(rows[0]["clips"]) == 1
    code, out, _ = run(capsys, *base, "--per-second", "--json")
    seconds = [json.loads(line) for line in out.splitlines()]
    assert [r["start"] for r in seconds] == list(range(7)) and seconds[-1]["end"] == 6.4
    assert sum(c["probability"] for c in seconds[0]["top"]) == pytest.approx(1, abs=1e-4)
    for argv, message in (
        (["--window", "x"], "--window=x: use seconds"),
        (["--window", "0"], "length of windows must be positive, got 0"),
        (["--step", "-1"], "step of windows must be positive, got -1"),
        (["--window", "2", "--clips", "0"], "--clips must be at least 1"),
        (["--per-second", "--stream"], "leave out --clips, --window, --step and --per-second"),
        (["--per-second", "--draw", "x.png"], "--draw needs one prediction per video"),
    ):
        code, _, err = run(capsys, *base, *argv)
        assert code == 2 and message in err and "Traceback" not in err


def test_a_bad_video_does_not_end_the_command(capsys, tmp_path, folder, video):
    (tmp_path / "text.mp4").write_text("no video")
    paths = [str(tmp_path / "text.mp4"), video]
    code, out, err = run(capsys, *paths, "--checkpoint", folder, "--per-second", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 2 and "text.mp4" in err and "text.mp4" in rows[0]["error"] and len(rows) == 8


def test_frames_classified_over_time(capsys, frame_folder, video):
    code, out, _ = run(capsys, video, "--checkpoint", frame_folder, "--window", "2", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and rows[0]["end"] == 2 and "segments" in rows[0]
    code, out, _ = run(capsys, video, "--checkpoint", frame_folder, "--per-second", "--top", "2")
    assert code == 0 and len(out.splitlines()) == 8
