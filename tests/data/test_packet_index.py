"""Tests that an index restores the same frames, and that only valid cached indices are used."""

import dataclasses
import os
import pathlib
from fractions import Fraction

import av
import numpy as np
import pytest

from vidjax.data import packet_index
from vidjax.data.decode import Video
from vidjax.data.packet_index import PacketIndex


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "index"


def write(path, codec="libx264", count=30, pts=None, shade=0):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.max_b_frames = 2
        for i in range(count):
            image = np.full((48, 64, 3), 7 * i + shade, np.uint8)
            frame = av.VideoFrame.from_ndarray(image)
            frame.pts, frame.time_base = i if pts is None else int(pts[i]), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def packets_read(monkeypatch):
    """Lists the files whose packets are read to index them."""
    read, inner = [], Video._read_index

    def counting(self, *args):
        read.append(self.name)
        return inner(self, *args)

    monkeypatch.setattr(Video, "_read_index", counting)
    return read


FILES = {
    "reordered.mp4": {},
    "plain.mkv": {},
    "variable_rate.mkv": {"pts": np.cumsum(np.arange(30) % 3 + 1)},
    "counted.avi": {"codec": "mpeg4"},  # two frames in a packet: found by decoding
    "no_times.h264": {},
}


@pytest.mark.parametrize("name", FILES)
def test_video_is_the_same_with_its_index(tmp_path, name, packets_read):
    data = write(tmp_path / name, **FILES[name]).read_bytes()
    with Video(data) as first:
        stored = first.index.to_bytes()
        with Video(data, index=PacketIndex.from_bytes(stored)) as second:
            assert len(packets_read) == 1
            np.testing.assert_array_equal(second.times, first.times)
            for attribute in ("num_frames", "fps", "duration", "tolerance"):
                assert getattr(second, attribute) == getattr(first, attribute)
            indices = [29, 3, 3, 17]
            np.testing.assert_array_equal(second.frames(indices), first.frames(indices))
    assert second.index.to_bytes() == stored
    assert len(stored) < (300 if name == "reordered.mp4" else 400)


def test_index_of_another_file_is_ignored(tmp_path, packets_read):
    with Video(write(tmp_path / "long.mp4", count=30).read_bytes()) as video:
        index = video.index
    with Video(write(tmp_path / "short.mp4", count=20).read_bytes(), index=index) as video:
        assert video.num_frames == 20 and len(packets_read) == 2


def test_damaged_bytes_raise_value_error(tmp_path):
    with Video(write(tmp_path / "a.mp4").read_bytes()) as video:
        data = video.index.to_bytes()
    for place in range(len(data)):
        with pytest.raises(ValueError, match="not a packet index"):
            PacketIndex.from_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match="not a packet index"):
            PacketIndex.from_bytes(data[:place])


def test_packets_of_a_file_are_read_once(tmp_path, packets_read):
    path = write(tmp_path / "a.mp4")
    for source in (path, str(path), os.path.relpath(path)):
        with Video(source) as video:
            assert video.num_frames == 30
    assert len(packets_read) == 1


def test_changed_file_gets_a_new_index(tmp_path, packets_read):
    path = write(tmp_path / "a.mp4", count=30)
    Video(path).close()
    write(path, count=20)
    with Video(path) as video:
        assert video.num_frames == 20
    assert len(packets_read) == 2


def test_damaged_cache_is_rewritten(tmp_path, cache, packets_read):
    path = write(tmp_path / "a.mp4")
    Video(path).close()
    (entry,) = (p for p in cache.rglob("*") if p.is_file())
    intact = entry.read_bytes()
    for damaged in (b"", intact[:-1], b"\xff" * len(intact)):
        entry.write_bytes(damaged)
        with Video(path) as video:
            assert video.num_frames == 30
        assert entry.read_bytes() == intact
    assert len(packets_read) == 4


def test_cache_that_cannot_be_written_is_no_error(tmp_path, cache, monkeypatch):
    path = write(tmp_path / "a.mp4")

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packet_index.os, "replace", full)
        with Video(path) as video:
            assert video.num_frames == 30
    assert not [p for p in cache.rglob("*") if p.is_file()]
    monkeypatch.setenv("VIDJAX_CACHE", "/proc/nowhere")
    with Video(path) as video:
        assert video.num_frames == 30
    monkeypatch.delenv("VIDJAX_CACHE")
    monkeypatch.setattr(pathlib.Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError))
    with Video(path) as video:
        assert video.num_frames == 30


def test_frames_are_decoded_without_the_container(tmp_path, monkeypatch):
    """Counts the containers that are opened for the second epoch of a dataset."""
    path = write(tmp_path / "a.mp4")
    with Video(path) as video:
        expected = video.frames([3, 17])
    monkeypatch.setattr(Video, "_open", lambda self: pytest.fail("opened the container"))
    with Video(path) as video:
        np.testing.assert_array_equal(video.frames([3, 17]), expected)
        assert (video.height, video.width) == (48, 64)
    with Video(path.read_bytes(), index=video.index) as video:
        np.testing.assert_array_equal(video.frames([3, 17]), expected)


def test_restored_packets_equal_the_saved_ones(tmp_path):
    for name in ("a.mp4", "a.mkv"):
        with Video(write(tmp_path / name).read_bytes()) as video:
            saved = video.index.packets
            restored = PacketIndex.from_bytes(video.index.to_bytes()).packets
        for field in dataclasses.fields(saved):
            np.testing.assert_array_equal(
                getattr(restored, field.name), getattr(saved, field.name), field.name
            )
