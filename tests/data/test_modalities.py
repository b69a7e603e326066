"""Tests of clips of optical flow, of sound and of several streams: shapes, times and determinism."""

import dataclasses
import io
import json

import av
import cv2
import numpy as np
import pytest
from test_pipeline import broken, config, exact, frame_numbers, source

from vidjax.config import resolve
from vidjax.data import pipeline
from vidjax.data.clips import ClipReader
from vidjax.data.datasets.synthetic_motion import encode
from vidjax.data.decode import DecodeError
from vidjax.data.streams import clip_shapes
from vidjax.data.targets import ClassTarget, MomentsTarget, QuestionTarget
from vidjax.errors import UserError
from vidjax.features import _Windows as Windows
from vidjax.text import byte_tokens

FLOW, BOTH = ("flow",), ("rgb", "flow")


def flowing(**changes):
    return FLOW, config(**(dict(size=24, short_side=28) | changes))


def both(**changes):
    return BOTH, flowing(**(dict(frames=2, stride=3) | changes))[1]


def train_batches(source, setting, *args, **kwargs):
    streams, cfg = setting
    return pipeline.train_batches(source, cfg, *args, streams=streams, **kwargs)


def eval_batches(source, setting, *args, **kwargs):
    streams, cfg = setting
    return pipeline.eval_batches(source, cfg, *args, streams=streams, **kwargs)


def sliding(dx=2, frames=20, size=48):
    """Encodes a texture that slides right by dx pixels per frame."""
    noise = np.random.default_rng(0).random((size, size + dx * frames)).astype(np.float32)
    wide = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    starts = dx * np.arange(frames)[::-1]
    return encode(np.repeat(np.stack([wide[:, s : s + size] for s in starts])[..., None], 3, -1), 10)


@pytest.fixture(scope="module")
def good():
    return source([sliding(dx) for dx in (1, 2, 3, 1, 2, 3)])


def leaves(batch):
    """{"rgb": …, "flow": …, "index": …}."""
    return {k: v for k, v in batch.items() if k not in ("inputs", "targets")} | batch["inputs"]


def take(batches, n):
    try:
        rows = [leaves(next(batches)) for _ in range(n)]
    finally:
        batches.close()
    return {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_clip_shapes_and_dtypes(good):
    assert clip_shapes(config(grey=True), ("rgb",)) == {"rgb": (4, 16, 16, 1)}
    assert clip_shapes(flowing()[1], FLOW) == {"flow": (4, 24, 24, 2)}
    assert clip_shapes(both()[1], BOTH) == {"rgb": (2, 24, 24, 3), "flow": (3, 24, 24, 2)}
    for streams, cfg in (flowing(), both(), both(grey=True)):
        train = take(train_batches(good, (streams, cfg), 2, seed=0), 1)
        test = take(iter(eval_batches(good, (streams, cfg), 4, clips=2, crops=3)), 2)
        for key, shape in clip_shapes(cfg, streams).items():
            assert train[key].shape == (2, *shape) and train[key].dtype == np.uint8
            assert test[key].shape == (8, 6, *shape) and test[key].dtype == np.uint8


@pytest.mark.parametrize("crop", ["center", "multi_scale"])
def test_flow_of_a_sliding_texture_and_its_mirror(good, crop):
    """Resizing 48 to 32 pixels scales the flow by 2/3; mirroring reverses its direction."""
    cfg = flowing(crop=crop, flip=crop != "center", stride=1, size=32, short_side=32, color_jitter=0.0)
    batch = take(train_batches(good, cfg, 24, seed=0), 1)
    middle = np.median(batch["flow"][:, :, 8:-8, 8:-8].astype(float) - 128, axis=(1, 2, 3)) * 20 / 127
    slide = 1 + batch["index"] % 3
    if crop == "center":
        np.testing.assert_allclose(middle[:, 0], slide * 2 / 3, atol=0.2)
    else:
        assert {*np.sign(middle[:, 0])} == {-1, 1}
        assert (np.abs(middle[:, 0]) > 0.5 * slide).all()
    assert np.abs(middle[:, 1]).max() < 0.2


def test_stride_sets_the_distance_of_flow_frames(good):
    cfg = flowing(crop="center", flip=False, stride=2, size=32, short_side=32)
    video = next(iter(eval_batches(good, cfg, 6, 1, 1)))["inputs"]["flow"].astype(float) - 128
    middle = np.median(video[:, 0, :, 8:-8, 8:-8, 0], axis=(1, 2, 3)) * 20 / 127
    np.testing.assert_allclose(middle, np.array([1, 2, 3, 1, 2, 3]) * 4 / 3, atol=0.3)


def test_streams_have_the_same_center():
    """Gray levels encode frame numbers, which flow would not show. The longer stream starts the window."""
    clip = np.repeat((20 + 8 * np.arange(20, dtype=np.uint8)).reshape(-1, 1, 1, 1), 3, -1)
    videos = source([encode(np.broadcast_to(clip, (20, 48, 48, 3)), 10)])
    cfg = exact(frames=1, size=16, short_side=16)
    setting = BOTH, cfg
    cfg.flow.update(frames=6, stride=1.0)
    rgb = take(train_batches(videos, setting, 60, seed=0), 1)["rgb"]
    assert {*frame_numbers(rgb)[:, 0]} == {*range(3, 17)}  # the fourth frame of windows of 7 frames
    views = next(iter(eval_batches(videos, setting, 1, clips=2, crops=1)))["inputs"]["rgb"][0]
    assert frame_numbers(views)[:, 0].tolist() == [3, 16]
    cfg.update(frames=5, stride=4)  # now the RGB stream is longer than the flow stream
    numbers = frame_numbers(take(train_batches(videos, setting, 20, seed=0), 1)["rgb"])
    assert {*numbers[:, 0]} == {0, 1, 2, 3} and (np.diff(numbers) == 4).all()


@pytest.mark.parametrize("make", [flowing, both])
def test_samples_depend_only_on_their_number(good, make, tmp_path):
    cfg = make(bad_limit=0.5)
    some = broken(good, {4}, tmp_path)
    reference = take(train_batches(some, cfg, 4, seed=3), 4)
    same(reference, take(train_batches(some, make(bad_limit=0.5, threads=1, prefetch=0), 4, seed=3), 4))
    same({k: v[8:] for k, v in reference.items()}, take(train_batches(some, cfg, 4, 3, start_batch=2), 2))
    shares = [take(train_batches(some, cfg, 4, 3, host=h, hosts=2), 4) for h in range(2)]
    parts = {k: np.stack([s[k].reshape(4, 2, *s[k].shape[1:]) for s in shares], 1) for k in reference}
    same(reference, {k: v.reshape(-1, *v.shape[3:]) for k, v in parts.items()})
    workers = make(bad_limit=0.5, workers=2)
    same(reference, take(train_batches(some, workers, 4, seed=3), 4))
    other = take(train_batches(some, cfg, 4, seed=4), 4)
    assert any((reference[k] != other[k]).any() for k in reference)


def test_corrupt_videos_are_masked_in_every_stream(good, tmp_path):
    batch = take(iter(eval_batches(broken(good, {4}, tmp_path), both(bad_limit=0.5), 4, 1, 1)), 2)
    assert batch["mask"].tolist() == [True] * 4 + [False, True, False, False]
    for key in ("rgb", "flow"):
        assert (batch[key].max((1, 2, 3, 4, 5)) > 0).tolist() == batch["mask"].tolist()


def test_unavailable_flow_method_is_reported_before_the_first_batch(good):
    cfg = flowing()
    cfg[1].flow.method = "tvl2"
    for make in (lambda: train_batches(good, cfg, 2, 0), lambda: eval_batches(good, cfg, 2, 1, 1)):
        with pytest.raises(UserError, match="unknown flow method 'tvl2': did you mean tvl1"):
            make()


def test_streams_that_cannot_be_made_are_reported(good):
    for streams, cfg, message in (
        (("rgb", "features"), config(feature_width=8), "cached features cannot be combined"),
        (("features",), config(), "set data.name=features"),
        (("audio",), config(), "a clip needs a stream that is made from frames"),
        (("rgb", "flou"), config(), "unknown stream 'flou': did you mean flow"),
        (("flow",), config(sampling="uniform"), "set data.sampling=window"),
    ):
        with pytest.raises(UserError, match=message):
            train_batches(good, (streams, cfg), 2, 0)


CODECS = {"matroska": ("ffv1", "pcm_s16le"), "mp4": ("libx264", "aac")}


def beeping(container="matroska", seconds=2, rate=16000, fps=10):
    """Encodes a video whose frame t has gray level 20 + 8 t, with a tone of 500 + 100 s Hz in second s.

    The tone gets louder, so that no two windows are equal.
    """
    wave = np.concatenate(
        [0.5 * np.sin(2 * np.pi * (500 + 100 * s) * np.arange(rate) / rate) for s in range(seconds)]
    )
    wave *= np.linspace(0.5, 1, len(wave))
    file = io.BytesIO()
    codecs = CODECS[container]
    with av.open(file, "w", format=container) as container:
        video = container.add_stream(codecs[0], rate=fps)
        video.width = video.height = 48
        video.pix_fmt = "gray"
        audio = container.add_stream(codecs[1], rate=rate, layout="mono")
        for t in range(fps * seconds):
            image = np.full((48, 48), 20 + 8 * t, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, "gray")))
        for start in range(0, len(wave), 1000):
            part = (wave[start : start + 1000] * 32767).astype(np.int16)
            sound = av.AudioFrame.from_ndarray(part[None], "s16", "mono")
            sound.sample_rate, sound.pts = rate, start
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return file.getvalue()


def with_sound(**changes):
    cfg = exact(**(dict(frames=4, size=16, short_side=16, stride=1.0) | changes))
    cfg.audio.seconds = 0.2
    return ("rgb", "audio"), cfg


@pytest.mark.parametrize("container", CODECS)
def test_sound_is_centered_on_the_frames(container):
    videos, setting = source([beeping(container)]), with_sound()
    batch = take(train_batches(videos, setting, 12, seed=0), 1)
    assert batch["audio"].shape == (12, 3200) and batch["audio"].dtype == np.float32
    assert len({*frame_numbers(batch["rgb"])[:, 0]}) > 4
    for frames, wave in zip(frame_numbers(batch["rgb"]), batch["audio"]):
        middle = (frames[0] + frames[-1]) / 2 / 10  # seconds
        spectrum = np.abs(np.fft.rfft(wave))
        heard = spectrum.argmax() * 16000 / 3200
        if abs(middle - 1) > 0.11:  # the window is within one second
            assert heard == 500 + 100 * int(middle)
    view = next(iter(eval_batches(videos, setting, 1, clips=2, crops=1)))
    assert view["inputs"]["audio"].shape == (1, 2, 3200)
    heard = np.abs(np.fft.rfft(view["inputs"]["audio"][0])).argmax(1) * 16000 / 3200
    assert heard.tolist() == [500, 600]


def test_sound_of_a_hierarchical_clip_belongs_to_its_window():
    videos, (streams, cfg) = source([beeping()]), with_sound(sampling="hierarchical")
    (view,) = eval_batches(videos, (streams, cfg), 1, clips=2, crops=1)
    heard = np.abs(np.fft.rfft(view["inputs"]["audio"][0])).argmax(1) * 5
    assert heard.tolist() == [500, 600]  # of the first and the last second


def test_crops_and_repeats_share_their_sound():
    videos = source([beeping()])
    views = next(iter(eval_batches(videos, with_sound(), 1, clips=2, crops=3)))["inputs"]["audio"][0]
    assert (views[:3] == views[0]).all() and (views[3:] == views[3]).all() and (views[0] != views[3]).any()
    for apart in (False, True):
        setting = with_sound(repeats=3, repeats_apart=apart)
        batch = take(train_batches(videos, setting, 3, seed=0), 1)
        same_frames = np.equal.outer(*[frame_numbers(batch["rgb"])[:, 0]] * 2)
        same_sound = (batch["audio"][:, None] == batch["audio"][None]).all(-1)
        np.testing.assert_array_equal(same_sound, same_frames)
        assert same_frames.all() != apart


def test_sound_is_independent_of_workers_and_start():
    videos = source([beeping(), beeping("mp4")])
    reference = take(train_batches(videos, with_sound(threads=1), 4, seed=0), 3)
    same(reference, take(train_batches(videos, with_sound(workers=2), 4, seed=0), 3))
    late = take(train_batches(videos, with_sound(), 4, seed=0, start_batch=2), 1)
    same({k: v[8:] for k, v in reference.items()}, late)


def test_windows_of_features_have_sound():
    videos, (streams, cfg) = source([beeping()]), with_sound()
    rows = list(Windows(videos, cfg, streams, frames=False, overlap=0.0, limit=0.0).share(0, 1))
    assert len(rows) == 5 and rows[-1]["last"]
    heard = [np.abs(np.fft.rfft(row["inputs"]["audio"])).argmax() * 5 for row in rows]
    assert heard[:2] == [500, 500] and heard[3:] == [600, 600]
    assert [row["inputs"]["rgb"].shape for row in rows] == [(4, 16, 16, 1)] * 5


def test_video_without_sound_counts_as_corrupt(good, tmp_path):
    _, cfg = both()
    with pytest.raises(
        UserError, match=r"6 of 6 videos cannot be read, .*data\.bad_limit=1 .*bad_videos\.jsonl"
    ):
        setting = (("rgb", "audio"), cfg)
        cfg.bad_limit = 1.0
        take(train_batches(good, setting, 2, seed=0, report_dir=tmp_path), 1)
    rows = [json.loads(line) for line in (tmp_path / "bad_videos.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == 6 == len(rows)
    assert all(row["error"].endswith(": no audio track") for row in rows)


@pytest.mark.parametrize("workers", [0, 1])
def test_absent_sound_is_masked(good, workers):
    mixed = source([good[0].video, beeping(), good[1].video])
    streams, cfg = with_sound(workers=workers, grey=False)
    cfg.audio.absent = "mask"
    batch = take(train_batches(mixed, (streams, cfg), 3, seed=0), 2)
    assert batch["audio_mask"].dtype == bool
    np.testing.assert_array_equal(batch["audio_mask"], batch["index"] == 1)
    np.testing.assert_array_equal(batch["audio_mask"], batch["audio"].any(-1))
    assert batch["rgb"].any((1, 2, 3, 4)).all()
    (view,) = eval_batches(mixed, (streams, cfg), 4, clips=2, crops=1)
    assert view["inputs"]["audio_mask"].tolist() == [[False] * 2, [True] * 2, [False] * 2, [False] * 2]
    assert view["mask"].tolist() == [True] * 3 + [False]
    cfg.audio.absent = "error"  # a model that takes the mask can do without
    (view,) = eval_batches(source([beeping()]), ((*streams, "audio_mask"), cfg), 1, clips=1, crops=1)
    assert view["inputs"]["audio_mask"].all()


@pytest.mark.parametrize("track", [-1, True, 1.5])
def test_unusable_audio_track(track):
    given = dict(epochs=1.0, data=dict(name="video_folder"), model=dict(name="mc3_18"))
    assert resolve(given, ["data.audio.stream=eng"]).data.audio.stream == "eng"
    with pytest.raises(UserError, match=f"data.audio.stream={track}: use the number of an audio track"):
        resolve(given, [f"data.audio.stream={track}"])


def test_text_is_the_query_or_question_of_a_record():
    cfg = config()
    cfg.text.length = 12
    targets = (
        MomentsTarget("a dog", ((0.0, 0.2),), 0.4),
        QuestionTarget("who runs, ü", "b", ("a", "b")),
        ClassTarget(0),
    )
    records = tuple(dataclasses.replace(r, target=t) for r, t in zip(source([beeping()] * 3), targets))
    texts = [ClipReader(cfg, ("rgb", "text")).views(r, 1, 1)[0].inputs["text"] for r in records[:2]]
    assert [byte_tokens.decode(t) for t in texts] == ["a dog", "who runs, \N{REPLACEMENT CHARACTER}"]
    assert texts[0].tolist() == [100, 35, 103, 114, 106, 1, 0, 0, 0, 0, 0, 0]  # as by ByT5
    assert texts[1].dtype == np.int32 and len(texts[1]) == 12 and texts[1][-1] == byte_tokens.END
    with pytest.raises(DecodeError, match="has neither a query nor a question"):
        ClipReader(cfg, ("rgb", "text")).views(records[2], 1, 1)
