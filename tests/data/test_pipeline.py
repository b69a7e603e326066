"""Tests of the input pipeline: determinism, corrupt videos, test views, caching and device transfer."""

import dataclasses
import functools
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import chex
import jax
import ml_collections
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vidjax.config_schema import schema
from vidjax.data import pipeline
from vidjax.data.clips import ClipReader, span
from vidjax.data.datasets import ListSource, load_source, mirror_by_name
from vidjax.data.datasets.synthetic_motion import encode
from vidjax.data.decode import DecodeError, Video
from vidjax.data.frame_cache import CachedVideo, CachePlan
from vidjax.data.pipeline import prefetch_to_device
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError

H, W, T = 40, 56, 20


def label(record, clip, rng, train):
    return {"label": np.int32(record.target.label)}


train_batches = functools.partial(pipeline.train_batches, example=label)
eval_batches = functools.partial(pipeline.eval_batches, example=label)


def config(**changes):
    small = {
        "frames": 4, "size": 16, "short_side": 20, "short_side_range": (16, 24), "color_jitter": 0.2,
        "threads": 3, "flow": {"method": "dis", "bound": 20.0, "frames": 3, "stride": 1.0},
    }  # fmt: skip
    return ml_collections.ConfigDict(schema().data.to_dict() | small | changes)


def exact(**changes):
    """Returns a config without augmentation, so that pixels show the frame numbers."""
    return config(**({"crop": "center", "flip": False, "color_jitter": 0.0, "grey": True} | changes))


def clip(frames=T, fps=10):
    """Encodes a clip whose frame t has gray level 20 + 8 t on the left and 255 in the rightmost eighth."""
    video = np.empty((frames, H, W, 3), np.uint8)
    video[:] = (20 + 8 * np.arange(frames))[:, None, None, None]
    video[:, :, -W // 8 :] = 255
    return encode(video, fps)


def frame_numbers(video):
    """Reads frame numbers [..., T] from clips [..., T, S, S, 1] of `clip`."""
    return np.round((video[..., 8, 2, 0].astype(float) - 20) / 8).astype(int)


@pytest.fixture(scope="module")
def good():
    """Returns ten different videos of noise."""
    rng = np.random.default_rng(0)
    videos = [encode(rng.integers(0, 255, (T, H, W, 3), np.uint8), 10) for _ in range(10)]
    return source(videos)


def source(videos, **fields):
    records = tuple(Record(v, ClassTarget(i % 3), f"v{i}", **fields) for i, v in enumerate(videos))
    return ListSource(records, ("a", "b", "c"))


def broken(good, which, tmp_path):
    """Returns `good` with some videos replaced by corrupt files."""
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    records = [
        Record(str(tmp_path / "broken.mp4"), r.target, r.id) if i in which else r for i, r in enumerate(good)
    ]
    return ListSource(tuple(records), good.class_names)


def take(batches, n):
    """Concatenates the first n batches."""
    try:
        return join([next(batches) for _ in range(n)])
    finally:
        batches.close()


def join(batches):
    return jax.tree.map(lambda *x: np.concatenate(x), *batches)


def select(batch, which):
    return jax.tree.map(lambda x: x[which], batch)


def same(a, b):
    chex.assert_trees_all_equal(a, b)


def test_epochs_are_permutations(good):
    batch = take(train_batches(good, config(), 4, seed=0), 25)
    assert batch["inputs"]["rgb"].shape == (100, 4, 16, 16, 3) and batch["inputs"]["rgb"].dtype == np.uint8
    assert batch["targets"]["label"].dtype == np.int32 and batch["index"].dtype == np.int64
    order = batch["index"].reshape(10, 10)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(10), (10, 1)))
    assert len({tuple(epoch) for epoch in order}) == 10
    np.testing.assert_array_equal(batch["targets"]["label"], batch["index"] % 3)


def test_clips_of_a_record_differ_between_epochs_and_seeds(good):
    def of_record_0(seed):
        batch = take(train_batches(good, config(), 10, seed), 3)
        return [v.tobytes() for v in batch["inputs"]["rgb"][batch["index"] == 0]]

    assert len({*of_record_0(0), *of_record_0(1)}) == 6


def test_stream_is_independent_of_threads_and_start(good):
    reference = take(train_batches(good, config(), 4, seed=5), 8)
    same(reference, take(train_batches(good, config(threads=1, prefetch=0), 4, seed=5), 8))
    late = take(train_batches(good, config(), 4, seed=5, start_batch=3), 5)
    same(select(reference, slice(12, None)), late)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_each_batch(good, hosts):
    reference = take(train_batches(good, config(), 8, seed=1), 4)
    shares = [train_batches(good, config(), 8, seed=1, host=h, hosts=hosts) for h in range(hosts)]
    rounds = [join([next(share) for share in shares]) for _ in range(4)]
    same(reference, join(rounds))


def test_worker_processes_produce_the_same_stream(good, tmp_path):
    some = broken(good, {2, 7}, tmp_path)
    reference = take(train_batches(some, config(bad_limit=0.2), 4, seed=5, report_dir=tmp_path / "a"), 9)
    batches = train_batches(some, config(bad_limit=0.2, workers=2), 4, seed=5, report_dir=tmp_path / "b")
    first = join([next(batches) for _ in range(6)])
    state = batches.get_state()
    same(reference, join([first, take(batches, 3)]))
    assert state == {"next_batch": 6, "bad": ["v2", "v7"]}
    a, b = ((tmp_path / run / "bad_videos.jsonl").read_text() for run in "ab")
    assert a == b


def test_user_error_in_a_worker_process_is_raised(good):
    batches = train_batches(good, config(workers=1, crop="centre"), 4, seed=0)
    with pytest.raises(UserError, match="centre"):
        next(batches)


def test_workers_do_not_import_jax():
    code = (
        "import sys; import vidjax.data.pipeline, vidjax.data.datasets.video_folder;"
        "assert not {'jax', 'grain', 'flax', 'optax', 'tensorflow', 'torch'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_restored_state_continues_the_stream(good):
    batches = train_batches(good, config(), 4, seed=2)
    next(batches), next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    expected = [next(batches) for _ in range(3)]
    batches.set_state(state)
    same(join(expected), take(batches, 3))


def test_hosts_read_every_record_of_an_epoch_once(good):
    shares = [train_batches(good, config(), 10, seed=1, host=h, hosts=5) for h in range(5)]
    for _ in range(3):
        index = np.concatenate([next(share)["index"] for share in shares])
        assert sorted(index) == [*range(10)]
    views = [eval_batches(good, config(), 5, 1, 1, host=h, hosts=5) for h in range(5)]
    assert sorted(i for view in views for batch in view for i in batch["index"]) == [*range(10)]


def test_hosts_read_only_their_own_shards(good, tmp_path):
    """Each record is used once in a pass of its host, a corrupt one is replaced by one of the same host."""
    some, cfg = broken(good, {2, 7}, tmp_path), config(bad_limit=0.5, host_shards=True)
    own = [{0, 1, 2}, {3, 4, 5}, {6, 7, 8, 9}]
    for h, part in enumerate(own):
        index = take(train_batches(some, cfg, 6, seed=1, host=h, hosts=3), 18)["index"]
        passes = index.reshape(-1, len(part))
        bad = part & {2, 7}
        assert all(set(p) == part - bad and len(set(p)) >= len(p) - len(bad) for p in passes)
        assert len({tuple(p) for p in passes}) > 1
        # Workers produce the same stream, from any batch.
        late = train_batches(some, config(bad_limit=0.5, host_shards=True, workers=1), 6, 1, 5, h, 3)
        np.testing.assert_array_equal(take(late, 2)["index"], index[10:14])
    views = [list(eval_batches(some, cfg, 6, 1, 1, host=h, hosts=3)) for h in range(3)]
    assert [len(v) for v in views] == [2, 2, 2]
    read = [{int(i) for batch in v for i in batch["index"]} - {-1} for v in views]
    assert read == own
    with pytest.raises(UserError, match="10 videos are too few for 12 hosts"):
        train_batches(good, cfg, 12, 0, host=0, hosts=12)


@pytest.mark.parametrize("before, after", [((0, 1), (0, 2)), ((0, 2), (1, 1)), ((1, 1), (0, 4))])
def test_state_restores_in_mid_epoch_with_other_hosts_and_workers(good, tmp_path, before, after):
    some = broken(good, {2, 7}, tmp_path)

    def hosts(workers, hosts):
        cfg = config(repeats=2, bad_limit=0.2, workers=workers)
        return [train_batches(some, cfg, 8, seed=4, host=h, hosts=hosts) for h in range(hosts)]

    def run(shares, n):
        return join([join([next(share) for share in shares]) for _ in range(n)])

    expected = run(hosts(0, 1), 7)
    first = hosts(*before)
    start = run(first, 3)  # ends in the second epoch
    state = json.loads(json.dumps(first[0].get_state()))
    second = hosts(*after)
    for share in second:
        share.set_state(state)
    same(expected, join([start, run(second, 4)]))
    for share in (*first, *second):
        share.close()


def test_corrupt_videos_are_replaced_and_reported_once(good, tmp_path, caplog):
    some = broken(good, {2, 7}, tmp_path)
    reference = take(train_batches(good, config(), 4, seed=0), 25)

    def run(start=0, n=25):
        return take(train_batches(some, config(bad_limit=0.2), 4, 0, start, report_dir=tmp_path), n)

    batch = run()
    kept = ~np.isin(reference["index"], (2, 7))
    same(select(reference, kept), select(batch, kept))
    assert not np.isin(batch["index"], (2, 7)).any()
    assert len(set(batch["index"][~kept])) > 3  # replacements are different records
    np.testing.assert_array_equal(batch["targets"]["label"], batch["index"] % 3)
    same(select(batch, slice(60, None)), run(15, 10))

    rows = [json.loads(line) for line in (tmp_path / "bad_videos.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == ["v2", "v7"]
    assert all(row["path"].endswith("broken.mp4") and "not a readable video" in row["error"] for row in rows)
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [f"bad video {r['id']}" for r in rows]


@pytest.mark.parametrize("which, limit", [({2, 7}, 0.1), (set(range(10)), 1.0)])
def test_too_many_corrupt_videos_raise_an_error(good, tmp_path, which, limit):
    some = broken(good, which, tmp_path)
    with pytest.raises(UserError, match=r"videos cannot be read, more than data.bad_limit.*bad_videos.jsonl"):
        take(train_batches(some, config(bad_limit=limit), 5, seed=0, report_dir=tmp_path), 2)
    assert len((tmp_path / "bad_videos.jsonl").read_text().splitlines()) == len(which)
    with pytest.raises(UserError, match="videos cannot be read"):
        list(eval_batches(some, config(bad_limit=limit), 5, clips=1, crops=1))


def test_eval_returns_every_record_once(good, tmp_path):
    some = broken(good, {4}, tmp_path)
    cfg = config(bad_limit=0.1, flip=True)
    whole = eval_batches(some, cfg, 4, clips=2, crops=3, report_dir=tmp_path)
    assert len(whole) == 3
    batches = list(whole)
    assert [b["inputs"]["rgb"].shape for b in batches] == [(4, 6, 4, 16, 16, 3)] * 3
    batch = join(batches)
    np.testing.assert_array_equal(batch["index"], [*range(10), -1, -1])
    np.testing.assert_array_equal(
        batch["targets"]["label"], [*(np.arange(4) % 3), 0, *(np.arange(5, 10) % 3), 0, 0]
    )
    np.testing.assert_array_equal(batch["mask"], [i < 10 and i != 4 for i in range(12)])
    assert (batch["inputs"]["rgb"].max((1, 2, 3, 4, 5)) > 0).tolist() == batch["mask"].tolist()
    same(batch, join(list(whole)))  # a second pass
    assert len((tmp_path / "bad_videos.jsonl").read_text().splitlines()) == 1

    shares = [list(eval_batches(some, cfg, 4, 2, 3, host=h, hosts=4)) for h in range(4)]
    same(batch, join([join(row) for row in zip(*shares)]))


def test_eval_views_are_ordered_clip_by_clip():
    cfg = exact()
    video = next(iter(eval_batches(source([clip()]), cfg, 1, clips=3, crops=2)))["inputs"]["rgb"][0]
    left, right = video[0::2], video[1::2]
    np.testing.assert_array_equal(frame_numbers(left), [[0, 2, 4, 6], [6, 8, 10, 12], [13, 15, 17, 19]])
    assert (right[:, :, :, -1] > 240).all() and (left[:, :, :, -1] < 240).all()


@pytest.mark.parametrize("sampling", ["uniform", "segments"])
def test_eval_clips_over_the_whole_video_are_interleaved(sampling):
    batches = eval_batches(source([clip()]), exact(sampling=sampling), 1, clips=2, crops=1)
    np.testing.assert_array_equal(
        frame_numbers(next(iter(batches))["inputs"]["rgb"][0]), [[1, 6, 11, 16], [3, 8, 13, 18]]
    )


def train_frames(videos, cfg, n=12, **fields):
    batch = take(train_batches(source(videos, **fields), cfg, n, seed=0), 1)
    return frame_numbers(batch["inputs"]["rgb"])


def test_training_windows_cover_the_video():
    numbers = train_frames([clip()], exact(), n=60)
    assert (np.diff(numbers) == 2).all()
    assert {*numbers[:, 0]} == {*range(14)}


def test_start_and_end_bound_the_frames():
    numbers = train_frames([clip()], exact(frames=3), n=40, start=0.5, end=1.2)
    assert numbers.min() == 5 and numbers.max() == 11
    batch = next(iter(eval_batches(source([clip()], start=1.5), exact(), 1, clips=1, crops=1)))
    np.testing.assert_array_equal(frame_numbers(batch["inputs"]["rgb"][0, 0]), [15, 17, 19, 16])


def test_segment_without_frames_counts_as_a_corrupt_video():
    with pytest.raises(UserError, match="cannot be read"):
        train_frames([clip()], exact(), start=1.0, end=0.9)


def test_target_fps_sets_the_stride_of_each_video():
    videos = [clip(fps=10), clip(fps=20)]
    batch = take(train_batches(source(videos), exact(target_fps=10, stride=1), 8, seed=0), 1)
    steps = np.diff(frame_numbers(batch["inputs"]["rgb"]))
    assert (steps == (1 + batch["index"])[:, None]).all()


def irregular_clip(durations):
    """Encodes a clip as `clip` does, with frame t shown for `durations[t]` seconds."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = H, W, "gray"
        for t, start in enumerate(np.cumsum([0, *durations[:-1]])):
            frame = av.VideoFrame.from_ndarray(np.full((H, W), 20 + 8 * t, np.uint8), "gray")
            frame.pts, frame.time_base = round(start * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


IRREGULAR = [0.04] * 10 + [0.4] * 5 + [0.04] * 10  # seconds


def test_target_fps_uses_frame_times():
    times = np.cumsum([0, *IRREGULAR])
    cfg = exact(target_fps=5, stride=1)  # clips of 0.6 s
    numbers = train_frames([irregular_clip(IRREGULAR)], cfg, n=60)
    assert len(np.unique(numbers[:, 0])) > 5
    for first, *rest in numbers:  # the clip starts while its first frame is shown
        starts = np.linspace(times[first], times[first + 1] - 1e-3, 200)[:, None] + [0.2, 0.4, 0.6]
        assert (np.searchsorted(times, starts, "right") - 1 == rest).all(1).any()
    batch = next(iter(eval_batches(source([irregular_clip(IRREGULAR)]), cfg, 1, clips=3, crops=1)))
    views = frame_numbers(batch["inputs"]["rgb"][0])
    assert views[0].tolist() == [0, 5, 10, 10] and views[2].tolist() == [14, 14, 19, 24]


@pytest.mark.parametrize("segment", [dict(start=100.0, end=110.0), dict(start=2.0), dict(end=0.0)])
def test_segment_outside_the_video_counts_as_a_corrupt_video(segment):
    with pytest.raises(UserError, match="cannot be read"):
        train_frames([clip()], exact(), **segment)


def test_times_that_are_not_finite_are_rejected():
    for name, value in (("start", np.nan), ("end", np.inf), ("start", -np.inf)):
        with pytest.raises(UserError, match=f"v: {name}={value} is not a time"):
            Record(b"", ClassTarget(0), "v", **{name: value})


@pytest.mark.parametrize("rate", [30, Fraction(30000, 1001), 240])
def test_segment_times_rounded_to_three_decimals_are_exact(rate):
    with Video(clip(50, rate)) as video:
        for k in range(49):
            start, end = round(float(k / rate), 3), round(float((k + 1) / rate), 3)
            assert span(video, Record(b"", ClassTarget(0), "v", start, end), exact())[:2] == (k, 1)


def test_looped_clip_holds_each_frame_once_in_memory():
    rng = np.random.default_rng(0)
    video = encode(rng.integers(0, 255, (1, 1024, 1024, 3), np.uint8).repeat(3, 0), 10)
    for cfg in (config(frames=16), config(frames=16, sampling="uniform"), config(frames=16, repeats=2)):
        tracemalloc.start()
        reader = ClipReader(cfg)
        reader.train(Record(video, ClassTarget(0), "v"), rng)
        reader.views(Record(video, ClassTarget(0), "v"), clips=2, crops=1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 9 * 1024**2 * 3  # bytes; the 16 frames of a clip alone are 50e6


@pytest.mark.parametrize("short, expected", [("loop", [0, 2, 1, 0]), ("hold", [0, 2, 2, 2])])
def test_short_videos_are_looped_or_held(short, expected):
    assert (train_frames([clip(frames=3)], exact(short=short)) == expected).all()


def test_segments_and_uniform_sampling():
    spread = train_frames([clip()], exact(sampling="segments"), n=40)
    assert (spread // 5 == np.arange(4)).all() and len({*spread[:, 0]}) == 5
    assert (train_frames([clip()], exact(sampling="uniform")) == [2, 7, 12, 17]).all()


def test_hierarchical_sampling():
    cfg = exact(sampling="hierarchical", frames=4, stride=2)
    cfg.dense_frames = 3
    found = train_frames([clip()], cfg, 40)
    np.testing.assert_array_equal(found[:, 1:] - found[:, 1:2], [[0, 2, 4]] * len(found))
    assert len(set(found[:, 0])) > 10 and len(set(found[:, 1])) > 10
    (view,) = eval_batches(source([clip()]), cfg, 1, clips=3, crops=1)
    seen = frame_numbers(view["inputs"]["rgb"])[0]
    assert seen[:, 0].tolist() == [10] * 3 and seen[:, 1].tolist() == [0, 7, 15]
    np.testing.assert_allclose(view["times"][0], seen / 10)


@pytest.mark.parametrize("directional", [False, True])
def test_directional_data_is_not_flipped(directional):
    one = ListSource((Record(clip(), ClassTarget(0), "v"),), ("a",), directional)
    cfg = exact(flip=True, crop="multi_scale", size=40)
    video = take(train_batches(one, cfg, 32, seed=0), 1)["inputs"]["rgb"]
    mirrored = (video[:, 0, :, 0, 0] > 240).any(1)
    assert mirrored.any() != directional


@pytest.mark.parametrize("flip", [False, True])
def test_flipped_clips_of_directional_data_have_the_mirrored_label(flip):
    names = ("swipe left", "swipe right", "wave")
    records = tuple(Record(clip(), ClassTarget(k), name) for k, name in enumerate(names))
    three = ListSource(records, names, directional=True, mirror=mirror_by_name(names))
    cfg = exact(flip=flip, crop="random_resized", scale=(1.0, 1.0), ratio=(1.4, 1.4))  # the whole frame
    batch = take(train_batches(three, cfg, 60, seed=0), 1)
    mirrored = (batch["inputs"]["rgb"][:, 0, :, 0, 0] > 240).any(1)
    assert mirrored.any() == flip
    expected = np.where(mirrored, np.array([1, 0, 2])[batch["index"]], batch["index"])
    np.testing.assert_array_equal(batch["targets"]["label"], expected)
    with pytest.raises(UserError, match="not a permutation"):
        train_batches(dataclasses.replace(three, mirror=(0, 1)), cfg, 4, seed=0)


def test_indivisible_batch_size_is_rejected(good):
    for make in (
        lambda: train_batches(good, config(), 6, 0, hosts=4),
        lambda: eval_batches(good, config(), 6, 1, 1, hosts=4),
    ):
        with pytest.raises(UserError, match="batch size 6 is not divisible by 4 hosts"):
            make()
    with pytest.raises(UserError, match="seed must be 0 or more"):
        train_batches(good, config(), 4, seed=-1)


@pytest.mark.parametrize(
    "axes, spec", [((4,), ("data",)), ((2, 2), ("data",)), ((2, 2), (("data", "fsdp"),))]
)
def test_prefetch_to_device(good, axes, spec):
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(axes), ("data", "fsdp")[: len(axes)])
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    taken = []

    def counted():
        for batch in eval_batches(good, config(), 4, clips=1, crops=1):
            taken.append(batch)
            yield batch

    on_device = prefetch_to_device(counted(), sharding, size=2)
    first = next(on_device)
    assert len(taken) == 2
    result = [first, *on_device]
    assert len(result) == len(taken) == 3
    for batch, host in zip(result, taken):
        for x, expected in zip(jax.tree.leaves(batch), jax.tree.leaves(host), strict=True):
            assert x.sharding.is_equivalent_to(sharding, x.ndim)
            np.testing.assert_array_equal(x, expected.astype(x.dtype))  # times are float64 on the host
    assert first["inputs"]["rgb"].addressable_shards[0].data.shape[0] == (
        1 if spec != ("data",) or axes == (4,) else 2
    )


def test_real_videos():
    data = os.environ.get("VIDJAX_DATA")
    if not data or not Path(data, "weizmann10").is_dir():
        pytest.skip("VIDJAX_DATA holds no weizmann10")
    options = {"path": "weizmann10", "csv": "clips.csv", "test_groups": ["shahar", "moshe", "lyova"]}
    train, test = (load_source("video_folder", split, **options) for split in ("train", "test"))
    assert (len(train), len(test), len(train.class_names)) == (60, 30, 10)
    cfg = config(frames=16, size=64, short_side=72, grey=True)
    batch = take(train_batches(train, cfg, 20, seed=0), 3)
    assert {*batch["index"]} == {*range(60)} and batch["inputs"]["rgb"].shape == (60, 16, 64, 64, 1)
    assert (batch["inputs"]["rgb"].std((1, 2, 3, 4)) > 5).all()
    views = join(list(eval_batches(test, cfg, 16, clips=2, crops=1)))
    assert views["mask"].sum() == 30 and views["inputs"]["rgb"].shape == (32, 2, 16, 64, 64, 1)
    moved = np.abs(np.diff(views["inputs"]["rgb"][:30].astype(int), axis=2)).mean((1, 2, 3, 4, 5))
    assert (moved > 0.2).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_repeats_augment_the_same_frames_separately(good, workers):
    cfg = config(repeats=2, auto_augment="rand-m7-n4-mstd0.5-inc1", workers=workers)
    batches = train_batches(good, cfg, 6, seed=0)
    seen = [next(batches) for _ in range(4)]
    batches.close()
    for batch in seen:
        assert batch["inputs"]["rgb"].shape == (6, 4, 16, 16, 3)
        assert (batch["index"][0::2] == batch["index"][1::2]).all()
        assert (batch["inputs"]["rgb"][0::2] != batch["inputs"]["rgb"][1::2]).any((1, 2, 3, 4)).all()
    # An epoch uses every video once: ten videos are three batches of three, and one video of the fourth.
    assert len({int(i) for b in seen for i in b["index"][::2]}) == 10
    still = next(train_batches(source([clip()]), exact(repeats=3), 3, seed=0))["inputs"]["rgb"]
    assert (still == still[:1]).all()


def test_repeats_apart_start_at_separate_times():
    cfg = exact(repeats=4, stride=1.0, repeats_apart=True)
    video = next(train_batches(source([clip()] * 3), cfg, 12, seed=0))["inputs"]["rgb"]
    starts = frame_numbers(video)[:, 0].reshape(3, 4)
    assert (np.diff(frame_numbers(video)) == 1).all()  # each repeat is a contiguous clip
    assert all(len({*row}) > 1 for row in starts)
    same = next(train_batches(source([clip()] * 3), exact(repeats=4, stride=1.0), 12, seed=0))["inputs"][
        "rgb"
    ]
    assert (frame_numbers(same)[:, 0].reshape(3, 4)[:, :1] == starts[:, :1]).all()


def test_batch_size_must_be_divisible_by_repeats(good):
    with pytest.raises(UserError, match=r"batch size 5 is not divisible by data.repeats=2"):
        train_batches(good, config(repeats=2), 5, seed=0)


@pytest.mark.parametrize("grey", [False, True])
def test_cached_frames_equal_decoded_frames(good, tmp_path, monkeypatch, grey):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path))
    decoded = next(train_batches(good, config(grey=grey), 8, seed=1))
    for _ in range(2):
        kept = take(train_batches(good, config(grey=grey, cache=True), 8, seed=1), 1)
        np.testing.assert_array_equal(kept["inputs"]["rgb"], decoded["inputs"]["rgb"])
        # The second pass decodes nothing.
        monkeypatch.setattr("vidjax.data.frame_cache.Video", None)


def test_cache_is_invalidated_when_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "clip.mp4"
    for frames in (20, 9):
        path.write_bytes(clip(frames))
        with CachedVideo(path) as kept, Video(path) as video:
            assert kept.num_frames == frames
            np.testing.assert_array_equal(kept.frames([3, 1]), video.frames([3, 1]))
            np.testing.assert_array_equal(kept.times, video.times)
            np.testing.assert_array_equal(kept.indices_at([0.1, 0.449]), video.indices_at([0.1, 0.449]))


def test_cached_frames_have_the_times_of_the_video(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path))
    record = Record(irregular_clip(IRREGULAR), ClassTarget(0), "v", start=0.2)
    decoded, kept, kept_again = (
        ClipReader(exact(target_fps=5, stride=1), cache=CachePlan(use)).views(record, clips=5, crops=1)
        for use in (False, True, True)
    )
    for views in (kept, kept_again):
        for view, expected in zip(views, decoded, strict=True):
            np.testing.assert_array_equal(view.inputs["rgb"], expected.inputs["rgb"])
            np.testing.assert_array_equal(view.times, expected.times)


def test_unwritable_cache_is_reported(good, tmp_path, monkeypatch):
    (tmp_path / "frames").write_text("in the way")
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot keep decoded frames in .*set data.cache"):
        take(train_batches(good, config(cache=True), 8, seed=1), 1)


@pytest.fixture
def files(good, tmp_path):
    """Writes `good` to files without seeking, MPEG-4 with B-frames in AVI."""
    records = []
    for r in good:
        with Video(r.video) as video, av.open(str(tmp_path / f"{r.id}.avi"), "w") as out:
            stream = out.add_stream("mpeg4", rate=10, options={"bf": "2"})
            stream.width, stream.height = W, H
            for frame in video.frames(range(T)):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            out.mux(stream.encode(None))
        records.append(Record(str(tmp_path / f"{r.id}.avi"), r.target, r.id))
    return ListSource(tuple(records), good.class_names)


@dataclasses.dataclass(frozen=True)
class Reference:
    path: str

    def read(self):
        return Path(self.path).read_bytes()


def references(files):
    records = (dataclasses.replace(r, video=Reference(r.video)) for r in files)
    return ListSource(tuple(records), files.class_names)


def cached(folder):
    return len([*folder.glob("frames/*.frames")])


@pytest.mark.parametrize("workers, kind", [(0, list), (1, list), (0, references)])
def test_small_datasets_are_cached_with_identical_clips(files, tmp_path, monkeypatch, workers, kind):
    files = files if kind is list else kind(files)
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    gigabytes = 10 * T * H * W * 3 / 1e9
    small = config(cache_gb=0.99 * gigabytes, workers=workers)
    reference = take(train_batches(files, small, 5, seed=1), 4)
    assert cached(tmp_path / "cache") == 0
    fitting = config(cache_gb=1.01 * gigabytes, workers=workers)
    for _ in range(2):
        batches = train_batches(files, fitting, 5, seed=1)
        assert f"{tmp_path}/cache, about {gigabytes:.2g} GB (data.cache=auto)" in batches.note
        same(reference, take(batches, 4))
        assert cached(tmp_path / "cache") == 10
    views = [join([*eval_batches(files, cfg, 5, clips=2, crops=1)]) for cfg in (small, fitting)]
    same(*views)
    gray = config(cache_gb=0.5 * gigabytes, grey=True)  # a third of the bytes
    assert train_batches(files, gray, 5, seed=1).note
    off = train_batches(files, config(cache=False), 5, seed=1)
    same(reference, take(off, 4))
    assert off.note is None


def test_partial_files_of_killed_processes_are_removed(files, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache/frames").mkdir(parents=True)
    dead = subprocess.Popen(["true"])
    dead.wait()
    kept, left = (
        tmp_path / f"cache/frames/.x.frames.{host}.{pid}.1.part"
        for host, pid in ((platform.node(), os.getpid()), (platform.node(), dead.pid))
    )
    kept.touch(), left.touch()
    CachedVideo(files[0].video)
    assert kept.exists() and not left.exists() and cached(tmp_path / "cache") == 1


def test_generated_videos_and_bytes_are_not_cached_automatically(good, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path))
    motions = load_source("synthetic_motion", "train", size=32, frames=8, train=24, val=1, test=1)
    for videos in (good, motions):
        take(train_batches(videos, config(), 5, seed=1), 1)
        assert cached(tmp_path) == 0
    take(train_batches(motions, config(cache=True), 5, seed=1), 1)
    assert cached(tmp_path) > 0


def test_videos_are_decoded_if_the_disk_is_full(files, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    reference = take(train_batches(files, config(cache=False), 5, seed=1), 2)
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    same(reference, take(train_batches(files, config(), 5, seed=1), 2))
    assert cached(tmp_path / "cache") == 0
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == ["frames are not cached"]


def test_partly_corrupt_video_returns_its_readable_clips(files, tmp_path, monkeypatch):
    def refuse(*_):
        raise DecodeError("damaged at the end")

    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    reference = take(train_batches(files, config(cache=False), 5, seed=1), 2)
    monkeypatch.setattr("vidjax.data.frame_cache._write", refuse)
    same(reference, take(train_batches(files, config(cache=True), 5, seed=1), 2))


@pytest.mark.parametrize("workers", [0, 1])
def test_cpu_time_is_measured_with_advice_to_lower_it(files, tmp_path, monkeypatch, workers):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    spent = {}
    for name, changes in {
        "off": {"cache": False}, "large": {"cache_gb": 1e-6}, "fits": {}
    }.items():  # fmt: skip
        batches = train_batches(files, config(workers=workers, **changes), 5, seed=1)
        first = time.perf_counter()
        for _ in range(2):
            next(batches)
        spent[name] = batches.cpu_seconds, batches.advice()
        elapsed = time.perf_counter() - first
        assert 0 < batches.cpu_seconds < 3 * elapsed
        batches.close()
    assert spent["off"][1] == f"data.cache=True caches decoded frames in {tmp_path}/cache"
    assert "frames, about 0.0013 GB, in" in spent["large"][1]
    assert "data.short_side=20" in spent["fits"][1]
