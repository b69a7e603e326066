"""Prepared datasets: the same records and frames as their source, resumable, on any storage."""

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction

import av
import fsspec
import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from etils.epath import backend
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from vidjax.config_schema import ConfigDict, schema
from vidjax.data.audio import read_audio
from vidjax.data.clips import ClipReader
from vidjax.data.datasets import ListSource, load_source
from vidjax.data.decode import DecodeError, Video
from vidjax.data.pipeline import train_batches
from vidjax.data.prepare import read, write
from vidjax.data.prepare.encode import Settings, encode, shifted
from vidjax.data.record import Record
from vidjax.data.targets import (
    BoxesTarget,
    ClassTarget,
    FlowTarget,
    MomentsTarget,
    QuestionTarget,
    Segment,
    SegmentsTarget,
    TextTarget,
)
from vidjax.errors import UserError

CSV = "path,label,group,start,end\n"


def write_video(path, frames=20, fps=10, size=(48, 64), sound=False, seed=0, times=None):
    """Writes smooth moving blobs, so that encoding changes pixels by little."""
    y, x = np.mgrid[: size[0], : size[1]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"
        stream.options = {"crf": "5", "bf": "2"}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if sound:
            track = container.add_stream("aac", rate=16000, layout="mono")
            wave = np.sin(np.arange(1600 * frames) * (0.1 + 1e-6 * np.arange(1600 * frames)))
            for i in range(0, len(wave), 1024):
                part = av.AudioFrame.from_ndarray(wave[None, i : i + 1024].astype("f4"), "fltp", "mono")
                part.sample_rate, part.pts, part.time_base = 16000, i, Fraction(1, 16000)
                container.mux(track.encode(part))
        for t in range(frames):
            wave = np.sin((x + 3 * t + 7 * seed) / 9) + np.cos((y - 2 * t) / 7)
            image = np.stack([128 + 50 * wave, 128 - 40 * wave, 90 + t + 0 * wave], -1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[t] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            container.mux(track.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder of eight videos; one has two segments, one has one, one has a variable frame rate."""
    root = tmp_path_factory.mktemp("videos")
    rows = []
    for i in range(6):
        write_video(root / f"{i}.mp4", frames=14 + i, seed=i, sound=i == 0)
        rows.append(f"{i}.mp4,{'ab'[i % 2]},g{i},,\n")
    write_video(root / "two.mp4", frames=30, seed=7)
    write_video(root / "part.mp4", frames=40, seed=8, times=np.cumsum(np.tile([0.04, 0.1, 0.05, 0.2], 10)))
    rows += ["two.mp4,a,g7,0.5,1.5\n", "part.mp4,b,g8,1.0,2.2\n", "two.mp4,b,g7,1.2,\n"]
    (root / "list.csv").write_text(CSV + "".join(rows))
    return root


def options(path):
    return {"path": str(path), "csv": "list.csv"}


def prepare(folder, out, workers=0, progress=lambda done, total: None, bad_limit=0.05, **settings):
    dataset = write.Dataset("video_folder", options(folder), Settings(**settings))
    source = load_source("video_folder", "all", **options(folder))
    run = write.local(workers)
    return write.prepare_split(out, dataset, "all", source, run, bad_limit, progress)


def opened(out):
    return load_source("video_folder", "all", path=str(out), csv="list.csv")


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(folder, out, short_side=0)
    return out


@pytest.fixture(scope="module")
def images(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("images") / "out"
    prepare(folder, out, short_side=0, storage="jpeg", audio=True)
    return out


def cfg(**settings):
    small = dict(cache=None, frames=4, stride=2.0, size=32, short_side=40, crop="center")
    return ConfigDict(schema().data.to_dict() | small | settings)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_prepared_records_agree_with_the_source(folder, prepared):
    source, stored = load_source("video_folder", "all", **options(folder)), opened(prepared)
    assert len(stored) == len(source) == 9
    for name in ("class_names", "directional", "mirror"):
        assert getattr(stored, name) == getattr(source, name)
    assert (stored.fingerprint, stored.target) == (source.fingerprint, ClassTarget)
    for a, b in zip(source, (stored[i] for i in range(9))):
        assert (a.id, a.target, a.group) == (b.id, b.target, b.group)
    with pytest.raises(IndexError):
        stored[9]


def test_training_batches_are_those_of_the_source(folder, prepared):
    """Up to the loss of encoding, with their flips."""
    batches = []
    for source in (load_source("video_folder", "all", **options(folder)), opened(prepared)):
        loader = train_batches(source, cfg(threads=1), 6, seed=0)
        batches.append([next(loader) for _ in range(3)])
        loader.close()
    for a, b in zip(*batches, strict=True):
        np.testing.assert_array_equal(a["index"], b["index"])
        assert psnr(a["inputs"]["rgb"], b["inputs"]["rgb"]) > 33


@pytest.mark.parametrize("target_fps", [None, 7.0])
@pytest.mark.parametrize("storage", ["prepared", "images"])
def test_views_of_prepared_videos_are_those_of_the_source(folder, storage, target_fps, request):
    reader = ClipReader(cfg(target_fps=target_fps, short_side=48, size=48))
    source = load_source("video_folder", "all", **options(folder))
    stored = opened(request.getfixturevalue(storage))
    for i in range(len(source)):
        for a, b in zip(reader.views(source[i], 2, 1), reader.views(stored[i], 2, 1), strict=True):
            shift = a.times[0] - b.times[0]  # of a video that was cut to its segment
            np.testing.assert_allclose(a.times - shift, b.times, atol=1e-6)
            assert (shift > 0) == (source[i].id.startswith("part") and i == 7)
            assert psnr(a.inputs["rgb"], b.inputs["rgb"]) > 33


def test_pixels_are_those_of_the_stored_video(prepared):
    record = opened(prepared)[2]
    with Video(record.video.read()) as whole, record.video.open() as video:
        np.testing.assert_array_equal(video.frames([9, 0, 4]), whole.frames([9, 0, 4]))
        assert video.index.packets is not None
        keys = whole.index.starts
    assert len(keys) == 2  # of 16 frames


def test_a_shared_video_is_stored_once_and_a_segment_is_cut(prepared):
    stored = opened(prepared)
    first, part, second = stored[6], stored[7], stored[8]
    assert first.video == second.video
    assert (first.start, first.end, second.start, second.end) == (0.5, 1.5, 1.2, None)
    assert part.start is part.end is None
    with part.video.open() as video:
        assert 8 < video.num_frames < 16
        assert np.unique(np.diff(video.times).round(3)).tolist() == [0.04, 0.05, 0.1, 0.2]
    meta = json.loads((prepared / read.META).read_text())
    assert (meta["splits"]["all"]["videos"], meta["splits"]["all"]["records"]) == (8, 9)


def test_resizing_keeps_the_aspect_ratio_and_never_enlarges(folder, tmp_path):
    prepare(folder, tmp_path / "a", short_side=24, gop=5)
    with opened(tmp_path / "a")[5].video.open() as video:
        assert (video.height, video.width) == (24, 32)
        assert len(video.index.starts) == 4  # 19 frames
    write_video(tmp_path / "odd.mp4", size=(37, 51), frames=3)
    record = Record(str(tmp_path / "odd.mp4"), None, "odd")
    for short_side in (0, 64):
        with Video(encode([record], Settings(short_side=short_side)).video) as video:
            assert (video.height, video.width) == (37, 51)


def test_jpeg_storage_reads_only_the_requested_frames(images, monkeypatch):
    asked = []
    original = read.Folder.images
    monkeypatch.setattr(
        read.Folder, "images", lambda self, s, n, rows: asked.extend(rows) or original(self, s, n, rows)
    )
    with opened(images)[3].video.open() as video:
        clip = video.frames([5, 2, 5])
        assert video.frames([5], grey=True).shape == (1, 48, 64, 1)
    assert len(asked) == 3 and clip.shape == (3, 48, 64, 3)
    np.testing.assert_array_equal(clip[0], clip[2])
    assert (clip[0] != clip[1]).any()


def test_sound_stays_in_sync(folder, tmp_path):
    path = str(folder / "0.mp4")
    expected = read_audio(path, 0.2, 1.0, 16000)
    for storage in ("video", "jpeg"):
        encoded = encode([Record(path, None, "0")], Settings(storage, audio=True))
        heard = read_audio(encoded.video, 0.2, 1.0, 16000)
        assert np.corrcoef(expected, heard)[0, 1] > 0.99
        cut = encode([Record(path, None, "0", 0.5, 1.2)], Settings(storage, audio=True))
        heard = read_audio(cut.video, 0.1, 0.6, 16000)
        assert np.corrcoef(read_audio(path, 0.6, 1.1, 16000), heard)[0, 1] > 0.99


def test_images_without_sound_name_the_remedy(images):
    assert read_audio(opened(images)[0].encoded(), 0, 0.5, 8000).any()
    with pytest.raises(DecodeError, match="--audio"):
        opened(images)[1].encoded()


@pytest.mark.parametrize(
    "target",
    [
        SegmentsTarget((Segment(2.0, 3.0, 1),), 9.0),
        MomentsTarget("x", ((2.0, 3.0),), 9.0),
        BoxesTarget(2.0, ()),
    ],
)
def test_times_of_targets_follow_a_cut(target):
    moved = shifted(target, 1.5, 2.0)
    text = repr(moved)
    assert "0.5" in text and "9.0" not in text
    assert shifted(target, 2.5, 2.0) is None
    assert shifted(ClassTarget(1), 2.5, 2.0) == ClassTarget(1)


def test_a_video_is_kept_whole_where_its_target_needs_it(folder):
    path = str(folder / "two.mp4")
    for target, count in ((SegmentsTarget((Segment(0.0, 2.0, 0),), 3.0), 30), (TextTarget(("a",)), 10)):
        encoded = encode([Record(path, target, "x", 1.0, 2.0)], Settings())
        with Video(encoded.video) as video:
            assert video.num_frames == count


def test_unreadable_videos_are_listed_and_left_out(folder, tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    for name in ("0.mp4", "1.mp4"):
        (root / name).write_bytes((folder / name).read_bytes())
    (root / "bad.mp4").write_bytes((folder / "2.mp4").read_bytes()[:700])
    (root / "list.csv").write_text("path,label\n0.mp4,a\nbad.mp4,b\n1.mp4,b\n")
    with pytest.raises(UserError, match=r"1 of the 3 records .* --bad-limit 0.05 .*bad_videos.jsonl"):
        prepare(root, tmp_path / "out")
    done = prepare(root, tmp_path / "out", bad_limit=0.5)  # continues
    assert (done.records, done.bad) == (2, 1)
    (row,) = map(json.loads, (tmp_path / "out" / "bad_videos.jsonl").read_text().splitlines())
    assert (row["id"], row["split"]) == ("bad.mp4", "all") and row["error"]
    stored = opened(tmp_path / "out")
    assert [stored[i].id for i in range(2)] == ["0.mp4", "1.mp4"]
    assert stored.fingerprint != load_source("video_folder", "all", **options(root)).fingerprint


def test_resumes_after_sigkill_without_repeating_shards(folder, prepared, tmp_path):
    out = tmp_path / "out"
    code = (
        "from vidjax.cli import main\n"
        f"main(['data', 'prepare', 'video_folder', '--source', {str(folder)!r}, '--option', 'csv=list.csv', "
        f"'--split', 'all', '--short-side', '0', '--workers', '2', '--out', {str(out)!r}])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    deadline = time.time() + 60
    while len(list(out.glob("progress/all/*.json"))) < 3 and time.time() < deadline:  # a plan, two shards
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / read.META).exists()
    before = {f: f.stat().st_mtime_ns for f in out.glob("video_folder-all*")}
    reports = len(list(out.glob("progress/all/0*.json")))
    assert 2 <= reports < 8
    seen = []
    prepare(folder, out, short_side=0, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (reports, 8) and seen[-1] == (8, 8)
    kept = [f for f in before if f.stat().st_mtime_ns == before[f]]
    assert len(kept) >= reports
    assert not (out / "progress").exists()
    assert_same(out, prepared)


def assert_same(a, b):
    x, y = opened(a), opened(b)
    assert x.fingerprint == y.fingerprint
    for i in range(len(x)):
        one, other = x[i], y[i]
        assert (one.id, one.start, one.end, one.video.number) == (
            other.id,
            other.start,
            other.end,
            other.video.number,
        )
        one, other = (read.open_folder(r.video.folder).example("all", r.video.number) for r in (one, other))
        assert one == other
    for file in b.glob("*.array_record*"):
        assert (epath.Path(a) / file.name).read_bytes() == file.read_bytes(), file.name


def test_workers_write_the_same_records_as_one_process(folder, prepared, tmp_path):
    prepare(folder, tmp_path / "out", workers=2, short_side=0)
    assert_same(tmp_path / "out", prepared)


def test_beam_writes_the_same_records(folder, prepared, tmp_path):
    pytest.importorskip("apache_beam")
    dataset = write.Dataset("video_folder", options(folder), Settings(short_side=0))
    source = load_source("video_folder", "all", **options(folder))
    write.prepare_split(tmp_path / "out", dataset, "all", source, write.beam("DirectRunner", ()))
    assert_same(tmp_path / "out", prepared)


def test_shards_that_workers_wrote_elsewhere_are_missed(folder, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")
    monkeypatch.setattr(write, "_write_shard_of", lambda shard, out, split: shard)
    dataset = write.Dataset("video_folder", options(folder), Settings())
    source = load_source("video_folder", "all", **options(folder))
    with pytest.raises(
        UserError, match=r"without 8 of 8 shards in .*/out: use a folder that all workers share"
    ):
        write.prepare_split(tmp_path / "out", dataset, "all", source, write.beam("DirectRunner", ()))


@pytest.mark.parametrize(
    "text, line",
    [
        ("<RPC:\n\tstatus = UNAVAILABLE\n>", "<RPC: status = UNAVAILABLE >"),
        (
            "Traceback:\n  File 'x'\nOSError: full [while running 'Write']\n",
            "OSError: full [while running 'Write']",
        ),
        ("An error\n: java.X\nKeyError: 1\n\tat a.B(C.java:9)\n\t... 1 more\n", "KeyError: 1"),
        ("", "ValueError"),
    ],
)
def test_the_error_of_a_runner_is_one_line(text, line):
    assert write._reason(ValueError(text)) == line


def test_beam_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"install .*protobuf<7"):
        write.beam("DirectRunner", ())


def test_tensorflow_datasets_reads_the_folder(folder, tmp_path):
    split = options(folder) | {"test_groups": ["g1"]}
    source = load_source("video_folder", "train", **split)
    dataset = write.Dataset("video_folder", split, Settings())
    write.prepare_split(tmp_path / "out", dataset, "train", source, write.local(0))
    examples = tfds.builder_from_directory(tmp_path / "out").as_data_source("train")
    assert len(examples) == 7
    assert json.loads(examples[5]["records"])[1]["start"] == 1.2
    with Video(examples[5]["video"]) as video:
        assert video.num_frames == 30


@pytest.mark.parametrize(
    "name, changed, message",
    [
        ("kinetics", {}, "was prepared from video_folder, not kinetics"),
        ("video_folder", {"csv": "list.csv", "seed": 3}, "was prepared with seed=None, not 3"),
        ("video_folder", {"csv": "list.csv", "split": "test"}, "unknown split"),
        ("video_folder", {"csv": "list.csv", "target": QuestionTarget}, "--target QuestionTarget"),
    ],
)
def test_a_prepared_folder_is_only_used_as_it_was_prepared(prepared, name, changed, message):
    with pytest.raises(UserError, match=message):
        load_source(name, **({"split": "all", "path": str(prepared)} | changed))


def test_a_folder_holds_one_preparation(folder, prepared):
    with pytest.raises(UserError, match="short_side=0, not 32"):
        prepare(folder, prepared, short_side=32)


def test_targets_that_a_file_cannot_hold_are_an_error(tmp_path):
    source = ListSource((Record("a.mp4", FlowTarget(None), "a"),), ())
    dataset = write.Dataset("video_folder", {}, Settings())
    with pytest.raises(UserError, match="FlowTarget cannot be stored"):
        write.prepare_split(tmp_path / "out", dataset, "all", source, write.local(0))


def test_damaged_data_is_a_decode_error(folder, tmp_path):
    prepare(folder, tmp_path / "out", short_side=0)
    record = opened(tmp_path / "out")[0]
    (file,) = tmp_path.glob("out/video_folder-all*-00000-of-*")
    file.write_bytes(os.urandom(file.stat().st_size))
    with pytest.raises(DecodeError, match="cannot read record 0"):
        record.video.open()


class Bucket(DirFileSystem):
    """An object store in a folder, which counts how often files are read."""

    def __init__(self, root):
        super().__init__(str(root), LocalFileSystem(auto_mkdir=True))
        self.read = []

    def _join(self, path):
        if isinstance(path, str):
            path = path.removeprefix("s3://")
        return super()._join(path)

    def get(self, rpath, lpath, **kwargs):
        self.read.append(rpath)
        return super().get(rpath, lpath, **kwargs)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    store = Bucket(tmp_path / "store")
    local = fsspec.filesystem("file")
    monkeypatch.setattr(
        type(backend.fsspec_backend),
        "_get_filesystem",
        lambda self, name: store if name == "s3" else local,
    )
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    return store


def test_reads_and_writes_object_stores(folder, prepared, bucket, tmp_path):
    for file in folder.iterdir():
        epath.Path(f"s3://b/videos/{file.name}").parent.mkdir(parents=True, exist_ok=True)
        epath.Path(f"s3://b/videos/{file.name}").write_bytes(file.read_bytes())
    prepare("s3://b/videos", "s3://b/out", short_side=0)
    assert not list((tmp_path / "store").rglob("*.part"))
    bucket.read.clear()
    for _ in range(2):
        assert_same("s3://b/out", prepared)
        read._open_folder.cache_clear()
    copied = [str(path) for path in (tmp_path / "cache" / "prepared").rglob("*.array_record*")]
    assert len([c for c in copied if not c.endswith(".lock")]) == 9


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """Returns the client of an emulated S3, which has the bucket "videos"."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for key, value in dict(
        AWS_ENDPOINT_URL=address,
        AWS_ACCESS_KEY_ID="x",
        AWS_SECRET_ACCESS_KEY="x",
        AWS_DEFAULT_REGION="us-east-1",
        VIDJAX_CACHE=str(tmp_path / "cache"),
    ).items():
        monkeypatch.setenv(key, value)
    s3fs.S3FileSystem.clear_instance_cache()
    backend.fsspec_backend._get_filesystem.cache_clear()
    client = s3fs.S3FileSystem(skip_instance_cache=True)  # vidjax shares neither it nor its listings
    client.makedirs("videos", exist_ok=True)
    yield client
    backend.fsspec_backend._get_filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_an_interrupted_preparation_on_s3_continues(folder, prepared, s3):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    def written():
        s3.invalidate_cache()
        return {name: about["LastModified"] for name, about in s3.find("videos/out", detail=True).items()}

    s3.put(str(folder), "videos/raw", recursive=True)
    with pytest.raises(KeyboardInterrupt):
        prepare("s3://videos/raw", "s3://videos/out", progress=stop, short_side=0)
    shards = {name: when for name, when in written().items() if "array_record" in name}
    assert len(shards) == 3
    time.sleep(1.1)  # times are in whole seconds
    prepare("s3://videos/raw", "s3://videos/out", short_side=0)
    after = written()
    assert shards == {name: after[name] for name in shards}
    assert not any("progress" in name for name in after)
    assert_same("s3://videos/out", prepared)


def test_a_missing_bucket_is_not_created(folder, s3):
    with pytest.raises(
        UserError, match=r"cannot write to s3://typo/out \(The specified bucket does not exist"
    ):
        prepare(folder, "s3://typo/out")
    assert s3.ls("") == ["videos"]
