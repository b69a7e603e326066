"""Streaming prediction equals prediction on the whole clip, in constant memory."""

import json
import pathlib
from fractions import Fraction

import av
import jax
import numpy as np
import pytest

from vidjax import create_model
from vidjax.checkpoint_io import save_variables
from vidjax.cli import main
from vidjax.config import resolve
from vidjax.data.clips import ClipReader
from vidjax.data.decode import Video
from vidjax.data.record import Record
from vidjax.data.transforms import test_views
from vidjax.errors import UserError
from vidjax.layers.preprocess import normalize
from vidjax.predict import Predictor

NAMES = [f"class {i}" for i in range(5)]


def predict(paths, folder, **options):
    return Predictor.load(folder).stream(paths, **options)


def encode(path, frames, size=(48, 64), fps=25):
    """Encodes a video of a square that moves over noise."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for t in range(frames):
            image = ground.copy()
            x = t * 3 % (size[1] - 16)
            image[8:24, x : x + 16] = t % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return str(path)


def checkpoint(folder, name, task="classification", **data):
    model = create_model(name, 5, tiny=True)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 4, 32, 32, 3), np.float32))
    data = dict(name="video_folder", frames=4, size=32, short_side=36, crop="center", **data)
    config = dict(epochs=1.0, data=data, model=dict(name=name, tiny=True), task=dict(name=task))
    save_variables(folder, jax.device_get(variables), dict(config=config, class_names=NAMES))
    return model, variables, str(folder)


@pytest.fixture(scope="module")
def movinet(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("ck") / "movinet", "movinet_a0_stream", stride=3.0)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("video") / "short.mp4", 80)


def whole_clip(model, variables, path, indices, data):
    with Video(path) as file:
        frames = test_views(file.frames(indices), data, 1)[0][0]
    clip = normalize(frames[None], (0, 0, 0), (1, 1, 1))
    logits, _ = jax.jit(model.apply)(variables, clip)
    return np.asarray(jax.nn.softmax(logits[0]))


class Data:
    size, short_side, resize, resize_to = 32, 36, "area", None


def test_running_predictions_equal_those_of_the_clip_so_far(movinet, video):
    model, variables, folder = movinet
    predictions = list(predict([video], folder, every=1.0))
    assert [a.processed for a in predictions] == [10, 18, 26, 27]  # at 1, 2 and 3 s, and at the end
    assert [a.final for a in predictions] == [False, False, False, True]
    assert predictions[0].end == pytest.approx(27 / 25)
    for a in (predictions[0], predictions[-1]):
        expected = whole_clip(model, variables, video, range(0, 3 * a.processed, 3), Data)
        assert [n for n, _ in a.content.top(5)] == [NAMES[i] for i in np.argsort(-expected)]
        np.testing.assert_allclose([p for _, p in a.content.top(5)], np.sort(expected)[::-1], rtol=1e-4)


def test_frames_are_resampled_to_the_target_fps(tmp_path, movinet):
    _, _, folder = checkpoint(tmp_path / "ck", "movinet_a0_stream", stride=2.0, target_fps=10.0)
    path = encode(tmp_path / "fast.mp4", 90, fps=30)  # three seconds, processed at five frames per second
    *running, last = predict([path], folder, every_frames=4)
    assert last.processed == 15 and [a.processed for a in running] == [4, 8, 12]
    assert last.end == pytest.approx(14 / 5, abs=0.02)


def test_variable_frame_rate_stream_equals_clip(tmp_path, monkeypatch):
    """With a variable frame rate, streaming processes the same frames as `eval_views`."""
    _, _, folder = checkpoint(tmp_path / "ck", "movinet_a0_stream", stride=1.0, target_fps=10.0)
    path, times = tmp_path / "pauses.mp4", np.cumsum([1, 1, 1, 9, 1, 1, 20, 1, 1, 1, 5, 1])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for t, pts in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * t, np.uint8), "rgb24")
            frame.pts, frame.time_base = int(pts), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    fed = []
    monkeypatch.setattr(
        "vidjax.predict.test_views", lambda *a: fed.append(test_views(*a)[0][0]) or [(fed[-1], None)]
    )
    last = list(predict([str(path)], folder))[-1]
    data = dict(
        name="video_folder", stride=1.0, target_fps=10.0, frames=last.processed, size=32, short_side=36
    )
    data = resolve(dict(epochs=1.0, data=data, model=dict(name="movinet_a0_stream"))).data
    (view,) = ClipReader(data).views(Record(str(path), None, "v"), 1, 1)
    clip = view.inputs["rgb"][None]
    assert (
        last.processed == 19 and len(np.unique(clip.mean((0, 2, 3, 4)))) < 12
    )  # some repeat, some are missing
    np.testing.assert_array_equal(np.concatenate(fed), clip[0])


def test_streaming_memory_is_constant(tmp_path, movinet):
    path = encode(tmp_path / "long.mp4", 500, size=(240, 320))  # 115 MB of pixels
    memory = []
    for _ in predict([path], movinet[2], every=2.0):
        status = pathlib.Path("/proc/self/status").read_text()
        memory.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
    # Allocators settle in the first half; the second is another 58 MB of pixels.
    assert len(memory) == 10 and max(memory[5:]) - max(memory[:5]) < 25


def test_model_without_streaming_is_rejected(tmp_path, video):
    _, _, folder = checkpoint(tmp_path / "ck", "mc3_18")
    with pytest.raises(UserError, match=r"mc3_18 does not support --stream: use .*movinet"):
        next(predict([video], folder))


def test_several_classes_at_a_time(tmp_path, video):
    model, variables, folder = checkpoint(tmp_path / "ck", "movinet_a0_stream", "multi_label", stride=3.0)
    last = list(predict([video], folder))[-1]
    with Video(video) as file:
        frames = test_views(file.frames(range(0, 80, 3)), Data, 1)[0][0]
    logits, _ = jax.jit(model.apply)(variables, normalize(frames[None], (0, 0, 0), (1, 1, 1)))
    np.testing.assert_allclose(last.content.scores, jax.nn.sigmoid(logits[0]), rtol=1e-4)


def test_task_of_moments_is_rejected(tmp_path, video):
    _, _, folder = checkpoint(tmp_path / "ck", "movinet_a0_stream", "frame_classification")
    with pytest.raises(UserError, match=r"task\.name=frame_classification does not"):
        next(predict([video], folder))


def test_bad_video_is_reported_and_state_is_reset(tmp_path, movinet, video):
    (tmp_path / "text.mp4").write_text("no video")
    paths = [str(tmp_path / "text.mp4"), str(tmp_path / "none.mp4"), video, video]
    predictions = list(predict(paths, movinet[2], every=9))
    assert all(a.final for a in predictions) and [a.path for a in predictions] == paths
    assert "text.mp4" in predictions[0].error and "No such file" in predictions[1].error
    np.testing.assert_array_equal(predictions[2].content.logits, predictions[3].content.logits)


def test_play_yields_every_frame_and_time(video):
    with Video(video) as indexed, Video(video, indexed=False) as playing:
        assert playing.tolerance == pytest.approx(indexed.tolerance)
        played = list(playing.play())
        np.testing.assert_allclose([t for t, _ in played], indexed.times, atol=1e-6)
        np.testing.assert_array_equal([x for _, x in played], indexed.frames(range(indexed.num_frames)))


def run(capsys, *argv):
    with pytest.raises(SystemExit) as e:
        main(["predict", *argv])
    return e.value.code, *capsys.readouterr()


def test_the_command(capsys, tmp_path, movinet, video):
    folder = movinet[2]
    code, out, _ = run(capsys, video, "--checkpoint", folder, "--stream", "--every", "2", "--top", "2")
    lines = out.splitlines()
    assert code == 0 and lines[0] == video and len(lines) == 3 and out.count("%") == 4
    assert lines[1].startswith("      0.00–2.04 s  class") and lines[2].startswith("      0.00–3.12 s  class")
    code, out, _ = run(capsys, video, "--checkpoint", folder, "--stream", "--json", "--every", "9f")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [r["frames"] for r in rows] == [9, 18, 27, 27] and rows[-1]["final"] and len(rows[0]["top"]) == 5
    for argv, message in (
        (["--every", "x", "--stream"], "--every=x: use seconds"),
        (["--every", "0", "--stream"], "must be positive, got 0"),
        (["--clips", "3", "--stream"], "leave out --clips"),
        (["--every", "0f", "--stream"], "must be positive, got 0"),
        (["--fps", "0", "--stream"], "must be positive, got 0"),
        (["--top", "0", "--stream"], "--top must be at least 1"),
        (["--fps", "3"], "--every and --fps require --stream"),
    ):
        code, _, err = run(capsys, video, "--checkpoint", folder, *argv)
        assert code == 2 and message in err and "Traceback" not in err
