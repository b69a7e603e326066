"""Windows of a video are the clips of its segments, read in one pass with bounded memory."""

from fractions import Fraction

import av
import numpy as np
import pytest

from vidjax.config import resolve
from vidjax.data import windows
from vidjax.data.clips import ClipReader
from vidjax.data.datasets import ListSource
from vidjax.data.decode import DecodeError, Video
from vidjax.data.record import Record
from vidjax.data.targets import SegmentsTarget
from vidjax.data.windows import parts, read_windows
from vidjax.errors import UserError


def encode(path, pts, fps=10):
    """Encodes gray frames of increasing brightness, frame i shown from pts[i] / fps on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for i, at in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 2 * i % 256, np.uint8), "rgb24")
            frame.pts, frame.time_base = int(at), Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    gaps = np.random.default_rng(0).integers(1, 4, 60)
    return {
        "constant": encode(folder / "constant.mp4", range(103)),
        "variable": encode(folder / "variable.mp4", np.cumsum(gaps) - gaps[0]),
        "short": encode(folder / "short.mp4", range(7)),
    }


def reader(streams=("rgb",), **data):
    data = dict(name="video_folder", frames=4, stride=3.0, size=32, short_side=36, **data)
    return ClipReader(resolve(dict(epochs=1.0, data=data, model=dict(name="mc3_18"))).data, streams)


def spans(path, read, *args, **options):
    return [(round(w.start, 6), round(w.end, 6)) for w in read_windows(Record(path, None, "v"), read, *args)]


@pytest.mark.parametrize("name", ["constant", "variable", "short"])
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(target_fps=20.0),
        dict(target_fps=5.0, starts="left", short="hold"),
        dict(sampling="uniform"),
        dict(sampling="segments"),
        dict(sampling="hierarchical", target_fps=20.0),
        dict(grey=True),
    ],
)
def test_a_window_is_the_segment_of_its_start_and_end(videos, name, options):
    read = reader(**options)
    for w in read_windows(Record(videos[name], None, "v"), read, 1.7, 0.6, clips=3, crops=2):
        views = read.views(Record(videos[name], None, "v", w.start, w.end), 3, 2)
        assert len(w.clips) == len(views) == 6
        for a, b in zip(w.clips, views, strict=True):
            np.testing.assert_array_equal(a.inputs["rgb"], b.inputs["rgb"])
            np.testing.assert_allclose(a.times, b.times, atol=1e-9)
            np.testing.assert_array_equal(a.geometry.to_array(), b.geometry.to_array())


def test_flow_of_windows(videos):
    read = reader(("rgb", "flow"))
    *_, w = read_windows(Record(videos["constant"], None, "v"), read, 2.0, clips=1)
    (view,) = read.views(Record(videos["constant"], None, "v", w.start, w.end), 1, 1)
    for name in ("rgb", "flow"):
        np.testing.assert_array_equal(w.clips[0].inputs[name], view.inputs[name])


def test_sound_of_windows(tmp_path):
    """Each clip has the sound around its frames, read without the rest of the file."""
    path, rate, seconds = tmp_path / "sound.mkv", 16000, 4
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, rate * seconds)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for _ in range(10 * seconds):
            container.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(video.encode())
        sound = av.AudioFrame.from_ndarray((wave[None] * 32767).astype(np.int16), "s16", "mono")
        sound.sample_rate = rate
        container.mux(audio.encode(sound))
    read = reader(("rgb", "audio"))
    read.cfg.audio.seconds = 0.5
    found = list(read_windows(Record(str(path), None, "v"), read, clips=1))
    assert len(found) == 6  # 0, 0.6, ... 2.4 s, and the last 1.2 s
    for w in found:
        (clip,) = w.clips
        start = round(((clip.times[0] + clip.times[-1]) / 2 - 0.25) * rate)
        np.testing.assert_allclose(clip.inputs["audio"], wave[start : start + rate // 2], atol=1e-4)


def test_windows_cover_the_video_and_the_last_ends_with_it(videos):
    read = reader()
    assert spans(videos["constant"], read, 4.0, 3.0) == [(0, 4), (3, 7), (6, 10), (6.3, 10.3)]
    assert spans(videos["constant"], read, 10.3, 1.0) == [(0, 10.3)]
    assert spans(videos["constant"], read, 5.15, 5.15) == [(0, 5.15), (5.15, 10.3)]
    assert spans(videos["short"], read, 4.0, 1.0) == [(0, 0.7)]
    default = spans(videos["constant"], read)  # 4 frames at a stride of 3 of 10 fps
    assert default[:3] == [(0, 1.2), (0.6, 1.8), (1.2, 2.4)] and default[-1] == (9.1, 10.3)


def test_every_frame_is_seen(videos):
    read = reader(target_fps=10.0)
    read.cfg.stride = 1.0
    for length, step, clips in ((0.4, None, None), (0.4, 0.4, None), (1.3, 1.3, None)):
        found = read_windows(Record(videos["constant"], None, "v"), read, length, step, clips)
        seen = np.concatenate([clip.times for w in found for clip in w.clips])
        np.testing.assert_allclose(np.unique(seen.round(3)), np.arange(103) / 10)


def test_each_frame_is_decoded_once_and_few_are_held(videos, monkeypatch):
    played, held, play, add = [], [], Video.play, windows._Held.add

    def counted(self, grey=False):
        for each in play(self, grey):
            played.append(each[0])
            yield each

    monkeypatch.setattr(Video, "play", counted)
    monkeypatch.setattr(windows._Held, "add", lambda self, *x: (add(self, *x), held.append(self.num_frames)))
    list(read_windows(Record(videos["constant"], None, "v"), reader(), 1.0, 0.1))
    assert len(played) == 103 and max(held) <= 13  # of the last second


def test_parts_of_a_source_cover_its_videos():
    def record(id, duration, start=None, end=None):
        return Record("x.mp4", SegmentsTarget((), duration), id, start, end)

    videos = (record("a", 10.0), record("b", 1.5), record("c", 9.0, 1.0, 7.5), record("d", 6.0))
    split, index = parts(ListSource(videos, ("k",)), 3.0)
    found = [(r.id, r.start, r.end) for r in split.records]
    thirds = [("a", pytest.approx(7 / 3 * i), pytest.approx(7 / 3 * i + 3)) for i in range(4)]
    assert found[:5] == [*thirds, ("b", 0, 1.5)]
    assert found[5:] == [("c", 1, 4), ("c", 2.75, 5.75), ("c", 4.5, 7.5), ("d", 0, 3), ("d", 3, 6)]
    assert index == [0] * 4 + [1] + [2] * 3 + [3] * 2 and split.class_names == ("k",)


def test_windows_that_cannot_be_read(videos, tmp_path):
    with pytest.raises(UserError, match=r"data\.sampling=uniform span a whole video"):
        next(read_windows(Record(videos["constant"], None, "v"), reader(sampling="uniform")))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DecodeError, match=r"text\.mp4"):
        next(read_windows(Record(str(tmp_path / "text.mp4"), None, "v"), reader()))
