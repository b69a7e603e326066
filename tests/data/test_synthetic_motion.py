"""Tests that only motion identifies a class of synthetic_motion, and that its files are written once."""

import io
import subprocess
import sys
import tempfile

import av
import numpy as np
import pytest

from vidjax.data import generated
from vidjax.data.datasets import load_source
from vidjax.data.datasets import synthetic_motion as sm
from vidjax.data.decode import Video
from vidjax.errors import UserError

SMALL = {"size": 32, "frames": 24, "train": 480, "val": 12, "test": 240}
K = len(sm.CLASSES)


def decode(video):
    with Video(video) as v:
        return v.frames(range(v.num_frames))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def clips(cache):
    """Returns {split: (uint8 [N, T, H, W, 3], labels [N])}, decoded from the written files."""
    result = {}
    for split in ("train", "test"):
        records = list(load_source("synthetic_motion", split, path=cache, **SMALL))
        result[split] = (
            np.stack([decode(r.encoded()) for r in records]),
            np.array([r.target.label for r in records]),
        )
    return result


def accuracy(clips, features):
    """Returns the test accuracy of kernel ridge regression (Gaussian kernel at the median distance)."""
    (x, y), (test_x, test_y) = ((features(v), labels) for v, labels in clips.values())
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, test_x = (x - mean) / std, (test_x - mean) / std
    distance = _squared_distance(x, x)
    width = np.median(distance)
    weights = np.linalg.solve(np.exp(-distance / width) + 0.1 * np.eye(len(x)), np.eye(K)[y] - 1 / K)
    return ((np.exp(-_squared_distance(test_x, x) / width) @ weights).argmax(-1) == test_y).mean()


def _squared_distance(a, b):
    return (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T


@pytest.mark.parametrize("frame", [0, 12])
def test_single_frames_are_at_chance(clips, frame):
    n = SMALL["test"]
    bound = 1 / K + 4 * np.sqrt((1 / K) * (1 - 1 / K) / n)
    pixels = accuracy(clips, lambda v: v[:, frame, ::2, ::2].reshape(len(v), -1).astype(float))
    statistics = accuracy(
        clips, lambda v: np.sort(v[:, frame].reshape(len(v), -1, 3), 1)[:, ::32].reshape(len(v), -1)
    )
    assert max(pixels, statistics) < bound


def test_frame_differences_are_far_above_chance(clips):
    def change(v):
        v = v.astype(float)
        difference = np.diff(v, axis=1)
        energy = np.sort(np.abs(difference).mean((2, 3)), axis=1)  # [N, T-1, 3]
        color = np.sort(difference.mean((2, 3)), axis=1)
        return np.concatenate([energy.reshape(len(v), -1), color.reshape(len(v), -1)], 1)

    assert accuracy(clips, change) > 0.4


def test_first_frame_does_not_depend_on_the_class():
    videos = [sm.render(label, np.random.default_rng(3), 64, 8) for label in range(K)]
    assert len({video[0].tobytes() for video in videos}) == 1
    assert len({video[7].tobytes() for video in videos}) == K


def test_states_stay_uniform_over_time():
    n, t = 4000, 17
    for label in range(K):
        rng = np.random.default_rng(label)
        late = np.stack([sm.states(label, rng.random(5), rng, t + 1)[t] for _ in range(n)])
        gap = np.abs(np.sort(late, axis=0) - (np.arange(n)[:, None] + 0.5) / n).max(0)
        assert gap.max() < 2.2 / np.sqrt(n), label  # Kolmogorov-Smirnov, p = 1e-4
        assert np.abs(np.corrcoef(late.T) - np.eye(5)).max() < 5 / np.sqrt(n)


def test_velocity_matches_the_class():
    start = np.full(5, 0.5)
    rng = np.random.default_rng(0)
    step = {name: sm.states(i, start, rng, 2)[1] - start for i, name in enumerate(sm.CLASSES)}
    assert step["move_left"][0] < 0 < step["move_right"][0] and step["move_up"][1] < 0 < step["move_down"][1]
    assert np.hypot(*step["speed_fast"][:2]) > 5 * np.hypot(*step["speed_slow"][:2])
    for pair, axis in [("spin_clockwise spin_counterclockwise", 2), ("colours_forward colours_backward", 3)]:
        a, b = (step[name] for name in pair.split())
        np.testing.assert_allclose(a, -b, atol=1e-12)
        assert a[axis] > 0 and np.count_nonzero(a) == 1


def test_rendering_follows_the_state(monkeypatch):
    """Center, size, rotation and color of the rendered shape match the state, also across an edge."""
    blank = np.full((64, 64, 3), 100, np.uint16)
    monkeypatch.setattr(sm, "_background", lambda rng, size: blank)

    def draw(**at):
        state = {"x": 0.5, "y": 0.5, "angle": 0.0, "hue": 0.1, "scale": 0.5} | at
        monkeypatch.setattr(sm, "states", lambda *_: np.array([list(state.values())]))
        return sm.render(0, np.random.default_rng(1), 64, 1)[0].astype(int)

    center = draw()
    np.testing.assert_array_equal(draw(x=0.75), np.roll(center, 16, axis=1))
    np.testing.assert_array_equal(draw(x=0.0, y=0.0), np.roll(center, (32, 32), axis=(0, 1)))
    turned = np.rot90(center, -1)  # a quarter turn clockwise
    assert np.abs(draw(angle=0.25) - turned).mean() < 0.5 < 5 < np.abs(draw(angle=0.75) - turned).mean()
    area = [(draw(scale=s) != 100).any(-1).sum() for s in (0.0, 0.5, 0.99)]
    assert 1.8 < area[1] / area[0] < 3 and 1.5 < area[2] / area[1] < 2.5
    strongest = [(draw(hue=h) - 100).reshape(-1, 3).max(0).argmax() for h in (0.1, 0.4, 0.9)]
    assert strongest == [0, 1, 2]


def test_compressed_frames_are_independent_of_their_neighbors():
    rng = np.random.default_rng(0)
    a, b, c = (sm.render(i, rng, 64, 2)[:1] for i in range(3))
    first, second = (
        decode(sm.encode(np.concatenate([a, b, a]), 25)),
        decode(sm.encode(np.concatenate([c, b, c]), 25)),
    )
    np.testing.assert_array_equal(first[1], second[1])
    assert np.abs(first[1].astype(int) - b[0]).mean() < 4


def test_written_clips_round_trip(cache, clips):
    videos, labels = clips["train"]
    assert videos.shape == (480, 24, 32, 32, 3)
    assert (np.bincount(labels) == 480 // K).all()
    source = load_source("synthetic_motion", "train", path=cache, **SMALL)
    assert source.directional and source.class_names == tuple(sm.CLASSES)
    assert source[17].id == "train-000017" and source[17].target.label == 17 % K
    error = np.abs(videos[17].astype(int) - sm.make_clip(17 % K, "train", 17, 32, 24)).mean()
    assert error < 5  # H.264 with halved color resolution
    assert len(load_source("synthetic_motion", "val", path=cache, **SMALL)) == 12
    with av.open(io.BytesIO(source[0].encoded())) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.average_rate == 25
        assert all(packet.is_keyframe for packet in container.demux(stream) if packet.size)


def test_each_configuration_is_a_separate_dataset(tmp_path, capfd, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    tiny = {"size": 32, "frames": 4, "train": 3, "val": 1, "test": 3}
    sources = [
        load_source("synthetic_motion", split, path=tmp_path / where, **tiny, **other)
        for split, where, other in [
            ("train", "a", {}),
            ("train", "b", {}),
            ("test", "a", {}),
            ("train", "a", {"seed": 1}),
        ]
    ]
    videos = [[r.encoded() for r in source] for source in sources]
    assert videos[0] == videos[1]
    assert len({video for chosen in (videos[0], *videos[2:]) for video in chosen}) == 9
    assert sources[0].fingerprint == sources[1].fingerprint
    assert len({source.fingerprint for source in sources}) == 3
    assert capfd.readouterr() == ("", "")
    assert not [*(tmp_path / "temporary").iterdir()]


def test_concurrent_writers_ignore_leftovers_of_a_killed_process(tmp_path):
    left = tmp_path / "synthetic_motion/32px_4f_25fps_24-1-1_seed0/incomplete.ABC_1.0.0"
    left.mkdir(parents=True)
    (left / "part").write_bytes(b"x")
    options = {"path": str(tmp_path), "size": 32, "frames": 4, "train": 24, "val": 1, "test": 1}
    code = (
        "from vidjax.data.datasets import load_source;"
        f"s = load_source('synthetic_motion', 'train', **{options});"
        "print(len(s), sum(len(r.encoded()) for r in s))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = [process.communicate()[0] for process in both]
    assert answers[0] == answers[1] and answers[0].startswith("24 ")
    assert [f.name for f in left.parent.iterdir()] == ["1.0.0"]


def test_labels_and_ids_are_known_without_reading_videos(tmp_path, monkeypatch):
    few = {"size": 32, "frames": 4, "train": 1, "val": 1, "test": 14}
    source = load_source("synthetic_motion", "test", path=tmp_path, **few)
    stored = generated.open_split(source.folder, "test")
    assert [(r.target.label, r.id) for r in source] == [(int(e["label"]), e["id"].decode()) for e in stored]
    monkeypatch.setattr(generated, "open_split", None)
    assert [r.target.label for r in source] == [*range(12), 0, 1]


def test_invalid_options_are_one_line_errors(tmp_path):
    for split, options, message in [
        ("trian", {}, "unknown split .* did you mean train"),
        ("train", {"size": 33}, "even"),
        ("train", {"frames": 1}, "frames >= 2"),
        ("train", {"path": "/dev/null/x"}, "cannot write to /dev/null/x"),
    ]:
        with pytest.raises(UserError, match=message):
            load_source("synthetic_motion", split, **({"path": tmp_path} | options))


def test_a_relative_folder_is_found_from_other_working_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = sm.load("val", "data", size=32, frames=2, train=1, val=1, test=1)[0]
    monkeypatch.chdir("/")
    assert record.encoded()
