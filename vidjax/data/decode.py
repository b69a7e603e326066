"""Frame-exact video decoding, by index or by time, with memory bounded by the requested frames."""

import dataclasses
import io
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from types import TracebackType

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from vidjax.data import packet_index, sampling
from vidjax.data.packet_decoder import PacketCollector, PacketDecoder
from vidjax.data.packet_index import PacketIndex, Packets
from vidjax.data.stages import stage

ERRORS = (av.FFmpegError, OSError, ValueError)
NEAR = 8  # frames; up to this distance ahead, decoding on is cheaper than seeking
MAX_REORDER = 32  # frames; bound of all codecs on the distance between decoding and display order
# Codecs whose packets show how many frames they hold and whose decoders keep no state after a flush. The same
# holds for intra-only codecs, except those with a palette.
SEEKABLE = {"h264", "hevc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "ffv1", "png"}
MPEG4_HEADER = 19  # bytes; a packet of at most this size may hold no coded frame (ffmpeg's MAX_NVOP_SIZE)
MPEG4_B = 2  # vop_coding_type of a B-frame


class DecodeError(Exception):
    """Raised if a video cannot be read or a frame does not exist; the message names the file."""


class _Lost(Exception):
    """Raised if the decoded frames do not match the packets."""


def name_of(source: str | os.PathLike | bytes) -> str:
    """Returns the name of a file in messages."""
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else os.fspath(source)


def open_container(source: str | os.PathLike | bytes) -> av.container.InputContainer:
    """Opens a file, given by its path or its contents."""
    # "file:" prevents ffmpeg from interpreting a colon in a path as a protocol.
    file = io.BytesIO(source) if isinstance(source, bytes) else f"file:{os.fspath(source)}"
    return av.open(file, metadata_errors="ignore")


class Video:
    """A video file with random access to frames by their index in display order.

    If every packet holds exactly one frame, opening a file reads the packets without decoding them, so that
    `num_frames` and `times` are those of the stream, even if the container's header is wrong. Otherwise
    (MPEG-4 with B-frames, of which AVI may pack two into a packet; H.264 with B-frames in AVI; raw streams;
    GIF) the frames are counted by decoding them. If the timestamps are reliable, frames are found by seeking
    to the preceding keyframe, otherwise by decoding from the start.
    In both cases `frames([k])` returns the k-th frame of a full decode of the file. Exceptions are damaged or
    missing data, which a decoder may conceal with earlier frames, so that the result depends on the frames
    decoded before. If the stream ends a few frames early, its last frame replaces the missing ones.

    The best video stream is read (ffmpeg's rule), never an attached picture such as an album cover. Pixels
    are as stored: non-square pixels are not rescaled. The container's rotation and mirroring are applied.
    Decoding runs in the caller's thread; a Video is not thread-safe.

    The index of a file is cached on disk (see `packet_index`), so that its packets are read once.

    Attributes:
      name: path of the file, for messages.
      index: where the frames are; pass it to the next `Video` of the same file to open it faster.
      num_frames: number of frames in display order.
      fps: average frames per second.
      times: float64 [num_frames], seconds from the first frame to each frame.
      duration: seconds from the first frame to the end of the last.
    """

    def __init__(
        self, source: str | os.PathLike | bytes, indexed: bool = True, index: PacketIndex | None = None
    ):
        """Opens a video.

        Args:
          source: path of the file, or its contents.
          indexed: whether to index the frames. If False, only `play` can be used, memory does not grow with
            the length of the video, and `fps` is that of the container's header.
          index: the `index` of an earlier `Video` of the same file; ignored if it is that of another file.

        Raises:
          DecodeError: the source is not a video with at least one frame.
        """
        self._source = source if isinstance(source, bytes) else os.fspath(source)
        self.name = name_of(source)
        self._container = None
        self._file = None
        self._decoder = None
        self._failed = False  # whether the system failed to read the file, such as a network file system
        self._reformatter = VideoReformatter()
        self._rotation = None  # degrees, of the frame that `_orientation` was read from
        try:
            if indexed:
                self._use(self._index(index))
            else:
                self._open()
                self.fps, self._tick = self._rate, float(self._stream.time_base)
        except ERRORS as error:
            self.close()
            raise DecodeError(f"{self.name}: not a readable video ({reason(error)})") from error
        except DecodeError:
            self.close()
            raise

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for opened in (self._container, self._file):
            if opened is not None:
                opened.close()

    @property
    def height(self) -> int:
        """Height in pixels, after rotation."""
        return self._size[0]

    @property
    def width(self) -> int:
        """Width in pixels, after rotation."""
        return self._size[1]

    def frames(self, indices: Sequence[int] | np.ndarray, grey: bool = False) -> np.ndarray:
        """Returns frames by their indices in display order.

        Args:
          indices: integers [n] in [0, num_frames), in any order, possibly repeated.
          grey: whether to return one channel, the ITU-R BT.601 luma (0.299 R + 0.587 G + 0.114 B),
            independently of the stream's color space.

        Returns:
          uint8 [n, height, width, 3], full range; [n, height, width, 1] if `grey`.

        Raises:
          DecodeError: a frame does not exist or cannot be decoded.
        """
        indices = np.asarray(indices, np.int64).reshape(-1)
        outside = indices[(indices < 0) | (indices >= self.num_frames)]
        if outside.size:
            raise DecodeError(f"{self.name}: no frame {outside[0]}, the video has {self.num_frames}")
        if not indices.size:
            return np.empty((0, self.height, self.width, 1 if grey else 3), np.uint8)
        wanted = np.unique(indices)
        for tried, read in enumerate(self._readers):
            try:
                clip = self._collect(read(self, wanted), indices, grey)
            except (*ERRORS, _Lost):
                continue
            del self._readers[:tried]  # they failed where a slower one did not
            return clip
        raise AssertionError("the last reader raises DecodeError")

    def iterate(self, indices: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """Yields the frames at ascending `indices` one at a time, uint8 [height, width, 3]; see `frames`."""
        wanted, done = np.asarray(indices, np.int64), 0
        for read in self._readers:
            try:
                for _, frame in read(self, wanted[done:]):
                    yield self._image(frame, False)
                    done += 1
                return
            except (*ERRORS, _Lost):
                continue

    def frames_at(self, seconds: Sequence[float] | np.ndarray, grey: bool = False) -> np.ndarray:
        """Returns the frames shown at the given times, in seconds from the first frame; see `frames`.

        Times before the first frame return the first, times after the last return the last. A time at most
        `tolerance` before a frame returns that frame.
        """
        return self.frames(self.indices_at(seconds), grey)

    def indices_at(self, seconds: Sequence[float] | np.ndarray) -> np.ndarray:
        """Returns the indices int64 [n] of the frames shown at `seconds` [n]."""
        moments = np.asarray(seconds, np.float64).reshape(-1)
        return sampling.shown(self.times, moments, self.tolerance)

    @property
    def tolerance(self) -> float:
        """Seconds by which a time may precede its frame: half a tick of the container's clock."""
        return min(0.5 * self._tick, 0.1 / self.fps)

    @cached_property
    def origin(self) -> float:
        """Seconds on the container's clock at which the first frame is shown."""
        try:
            return self._seconds(next(self._decode(None))) or 0.0
        except (*ERRORS, StopIteration) as error:
            raise DecodeError(f"{self.name}: cannot decode frame 0 ({reason(error)})") from error

    def play(self, grey: bool = False) -> Iterator[tuple[float, np.ndarray]]:
        """Yields every frame in order, as (seconds from the first frame, uint8 [H, W, C]).

        Raises:
          DecodeError: there are no frames, or one cannot be decoded.
        """
        number = 0
        try:
            for seconds, frame in self._timed_frames():
                yield seconds, self._image(frame, grey)
                number += 1
        except ERRORS as error:
            raise DecodeError(f"{self.name}: cannot decode frame {number} ({reason(error)})") from error
        if not number:
            raise DecodeError(f"{self.name}: no frames")

    def _open(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container = open_container(self._source)
        best = self._container.streams.best("video")
        if best and best.disposition & Disposition.attached_pic:  # a cover
            moving = [
                s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic
            ]
            best = moving[0] if moving else None
        self._stream = best
        if self._container.format.name == "tty":  # ffmpeg renders text files as video
            raise DecodeError(f"{self.name}: a text file, not a video")
        context = self._stream and self._stream.codec_context
        if not (context and context.width and context.height):
            raise DecodeError(f"{self.name}: no video stream that can be decoded")
        self._stored = {"width": context.width, "height": context.height}
        context.thread_count = 1

    @property
    def _rate(self) -> float:
        """Frames per second according to the container."""
        return float(self._stream.average_rate or self._stream.guessed_rate or 25)

    def _packets(self) -> Iterator[av.Packet]:
        """Yields the stream's remaining packets, up to the end or to where the file is truncated."""
        broken = None
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    if not packet.size:
                        continue
                    if broken is not None:
                        yield broken
                    broken = packet if packet.is_corrupt else None
                    if broken is None:
                        yield packet
                return  # without a corrupt last packet, where the file was truncated
            except IndexError:
                continue  # raised by PyAV for a packet of a stream that is missing from the header
            except ERRORS as error:
                self._failed = isinstance(error, OSError)
                return

    def _index(self, known: PacketIndex | None) -> PacketIndex:
        """Returns `known` if it fits the file, else its cached index, else a new one."""
        stored = isinstance(self._source, bytes)
        if not stored:
            self._file = open(self._source, "rb")  # noqa: SIM115
        size = len(self._source) if stored else os.fstat(self._file.fileno()).st_size
        first = self._read(0, packet_index.PROBE)
        if known and known.fits(size, first):
            return known
        entry = None if stored else packet_index.entry(self._source)
        known = packet_index.load(entry) if entry else None
        if known and known.fits(size, first):
            return known
        self._open()
        index = self._read_index(size, packet_index.probe(first))
        if entry and not self._failed:
            packet_index.save(entry, index)
        return index

    def _use(self, index: PacketIndex) -> None:
        self.index, self._tick = index, float(index.time_base)
        self.times, self._pts, self._starts, self.fps = index.times, index.pts, index.starts, index.fps
        self.num_frames = len(self.times)
        self.duration = float(self.times[-1] + 1 / self.fps)
        # The fastest first. Bound methods would be reference cycles, and decoders be freed late.
        self._readers = [Video._count_frames]
        if index.pts is not None:
            self._readers.insert(0, Video._seek_frames)
        if (packets := index.packets) is not None:
            self._readers.insert(0, Video._bare_frames)
            self._stored = {"width": packets.width, "height": packets.height}
            self._size = packets.height, packets.width

    def _read(self, offset: int, size: int) -> bytes:
        """Returns bytes of the file."""
        if self._file is None:
            return self._source[offset : offset + size]
        with stage("read"):
            self._file.seek(offset)
            return self._file.read(size)

    def _read_index(self, size: int, probe: int) -> PacketIndex:
        """Finds the time of each frame and where decoding can start, from the packets or by decoding."""
        context = self._stream.codec_context
        collector = PacketCollector(self._read, context)
        packets = [(p.pts, p.is_keyframe, _shown(p, context), collector.add(p)) for p in self._packets()]
        stamps, key, shown = ([p[i] for p in packets] for i in range(3))
        intra = context.codec.intra_only and context.pix_fmt != "pal8"
        can_seek = bool(packets) and (intra or context.codec.canonical_name in SEEKABLE)
        seekable = can_seek and None not in stamps and None not in shown and any(shown)
        if seekable:
            sent = np.array(stamps, np.int64)[np.array(shown)]
            pts = np.sort(sent)
            moved = np.abs(np.searchsorted(pts, sent) - np.arange(len(sent)))
            seekable = bool(
                key[0]
                and stamps[0] == min(stamps)
                and (np.diff(pts) > 0).all()
                and moved.max() < MAX_REORDER
                # If the decoder reorders frames but the timestamps do not, the demuxer invented them.
                and not (context.has_b_frames and len(sent) > 1 and not moved.any())
            )
        bare = seekable
        if seekable:
            times = (pts - pts[0]) * float(self._stream.time_base)
        else:
            times, counted = self._count(sum(x is not False for x in shown))
            seekable = can_seek and None not in counted and bool((np.diff(counted) > 0).all())
            pts = np.array(counted, np.int64) if seekable else None
        fps = float((len(times) - 1) / times[-1]) if len(times) > 1 else self._rate
        index = PacketIndex(size, probe, self._stream.time_base, fps, times)
        if not seekable:
            return index
        # Decoding can start at keyframes that follow all earlier packets in display order.
        known = [(p, k) for p, k in zip(stamps, key) if p is not None]
        sent, key = np.array([p for p, _ in known], np.int64), np.array([k for _, k in known])
        before = np.maximum.accumulate(np.concatenate([sent[:1] - 1, sent[:-1]]))
        starts = sent[key & (sent > before)]
        if not (starts.size and starts[0] <= pts[0]):
            return index
        index = dataclasses.replace(index, pts=pts, starts=starts)
        if bare and (packets := collector.packets(stamps)) and self._first_is_same(packets, int(pts[0])):
            return dataclasses.replace(index, packets=packets)
        return index

    def _first_is_same(self, packets: Packets, pts: int) -> bool:
        """Returns whether the first frame, at `pts`, is the same when decoded without the container."""
        end = int(np.flatnonzero(packets.pts == pts)[0]) + 1
        try:
            frames = [next(self._decode(None))]
            frames += [f for f in PacketDecoder(packets).frames(self._read, 0, end, {pts}) if f.pts == pts]
        except (*ERRORS, StopIteration):
            return False
        upright = all(_orientation(frame) == (1, 1, False) for frame in frames)
        return len(frames) == 2 and upright and _content(frames[0]) == _content(frames[1])

    def _count(self, announced: int) -> tuple[np.ndarray, list[int | None]]:
        """Returns the frames' times and pts, found by decoding the whole file.

        If decoding fails, the remaining frames are counted by their packets, so that requesting one of them
        raises an error.
        """
        times, stamps = [], []
        try:
            for seconds, frame in self._timed_frames():
                times.append(seconds)
                stamps.append(frame.pts)
        except ERRORS:
            after = times[-1] + 1 / self._rate if times else 0.0
            times += list(after + np.arange(announced - len(times)) / self._rate)
            stamps.append(None)
        if not times:
            raise DecodeError(f"{self.name}: no frames")
        return np.array(times), stamps

    def _timed_frames(self) -> Iterator[tuple[float, VideoFrame]]:
        """Yields every frame with its time in seconds from the first, strictly increasing."""
        origin, seconds = None, None
        for frame in self._decode(None):
            stamped = self._seconds(frame)
            now = 0.0 if seconds is None else seconds + 1 / self._rate
            if stamped is not None:
                origin = stamped - now if origin is None else origin
                if seconds is None or stamped - origin > seconds:
                    now = stamped - origin
            seconds = now
            yield seconds, frame

    def _seconds(self, frame: VideoFrame) -> float | None:
        """Returns the time at which a frame is shown on the container's clock."""
        # AVI numbers its chunks in decoding order: a frame is shown when the decoder returns it.
        stamp = frame.dts if self._container.format.name == "avi" else frame.pts
        return None if stamp is None else float(stamp * self._stream.time_base)

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Height and width after rotation, which is known only from a decoded frame."""
        try:
            return self._image(next(self._decode(None)), grey=True).shape[:2]
        except (*ERRORS, StopIteration) as error:
            raise DecodeError(f"{self.name}: cannot decode frame 0 ({reason(error)})") from error

    def _collect(
        self, frames: Iterator[tuple[int, VideoFrame]], indices: np.ndarray, grey: bool
    ) -> np.ndarray:
        clip = None
        for index, frame in frames:
            image = self._image(frame, grey)
            if clip is None:
                clip = np.empty((len(indices), *image.shape), np.uint8)
            elif image.shape != clip.shape[1:]:
                raise DecodeError(
                    f"{self.name}: frame {index} has another orientation than the frames before it"
                )
            for place in np.flatnonzero(indices == index):
                clip[place] = image
        return clip

    def _image(self, frame: VideoFrame, grey: bool) -> np.ndarray:
        """Converts a frame to uint8 [H, W, C], upright and of the stream's initial size."""
        kind = "gray" if grey else "rgb24"
        try:  # reuse the reformatter, whose setup takes longer than a conversion
            with stage("convert"):
                converted = self._reformatter.reformat(frame, **self._stored, format=kind, threads=1)
        except ERRORS as error:
            raise DecodeError(f"{self.name}: cannot convert a frame ({reason(error)})") from error
        if frame.rotation != self._rotation:
            self._rotation, self._orientation = frame.rotation, _orientation(frame)
        rows, columns, transposed = self._orientation
        plane, channels = converted.planes[0], 1 if grey else 3
        lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        image = lines[:, : plane.width * channels].reshape(plane.height, plane.width, channels)
        return (image.swapaxes(0, 1) if transposed else image)[::rows, ::columns]

    def _bare_frames(self, wanted: np.ndarray) -> Iterator[tuple[int, VideoFrame]]:
        """Yields the frames at `wanted` (ascending), decoded without the container.

        Each is decoded from the nearest start before it, up to the last packet that is needed.
        """
        packets = self.index.packets
        if self._decoder is None:
            self._decoder = PacketDecoder(packets)
        order = np.argsort(packets.pts)
        group = np.searchsorted(self._starts, self._pts[wanted], "right") - 1
        for run in np.split(wanted, np.flatnonzero(np.diff(group)) + 1):
            start = int(self._starts[np.searchsorted(self._starts, self._pts[run[0]], "right") - 1])
            needed = order[np.searchsorted(packets.pts, [start, *self._pts[run]], sorter=order)]
            left = dict(zip(self._pts[run].tolist(), run.tolist()))
            shown = bool(self._pts[np.searchsorted(self._pts, start)] == start)
            for frame in self._decoder.frames(self._read, needed[0], needed.max() + 1, left.keys()):
                if shown:  # the first frame must be the keyframe, unless that one is hidden
                    if frame.pts < start:
                        continue
                    if frame.pts > start or not frame.key_frame:
                        raise _Lost
                    shown = False
                if frame.pts in left:
                    yield left.pop(frame.pts), frame
            if left:
                raise _Lost

    def _seek_frames(self, wanted: np.ndarray) -> Iterator[tuple[int, VideoFrame]]:
        """Yields the frames at `wanted` (ascending), each decoded from the nearest start before it."""
        frames, last = None, -1
        for index in wanted:
            start = self._starts[np.searchsorted(self._starts, self._pts[index], "right") - 1]
            first = int(np.searchsorted(self._pts, start))
            if frames is None or first > last + NEAR:
                frames, entered = self._decode(start, set(self._pts[wanted].tolist())), False
            for frame in frames:
                now = -1 if frame.pts is None else int(np.searchsorted(self._pts, frame.pts))
                if not last < now < self.num_frames or self._pts[now] != frame.pts:
                    raise _Lost
                last = now
                if not entered and now >= first:
                    entered = True  # the first frame must be the keyframe, unless that one is hidden
                    if self._pts[first] == start and (now > first or not frame.key_frame):
                        raise _Lost
                if now >= index:
                    break
            if last != index:
                raise _Lost
            yield index, frame

    def _count_frames(self, wanted: np.ndarray) -> Iterator[tuple[int, VideoFrame]]:
        """Yields the frames at `wanted` (ascending), counted from the start of the file."""
        number, place, frame = 0, 0, None
        try:
            for frame in self._decode(None):
                if number == wanted[place]:
                    yield number, frame
                    place += 1
                    if place == len(wanted):
                        return
                number += 1
        except ERRORS as error:
            raise DecodeError(
                f"{self.name}: cannot decode frame {number} of {self.num_frames} ({reason(error)})"
            ) from error
        if frame is None or self.num_frames - number > MAX_REORDER:
            raise DecodeError(f"{self.name}: ends after {number} frames of {self.num_frames}")
        for index in wanted[place:]:  # a decoder may not return the last frames
            yield index, frame

    def _decode(self, start: int | None, wanted: set[int] | None = None) -> Iterator[VideoFrame]:
        """Yields decoded frames from the packet with pts `start`, or the first packet, to the end.

        If the pts of the required frames are given as `wanted`, H.264 pictures that are neither required nor
        used as a reference are not decoded.
        """
        broken = None
        for packet in self._packets_from(start):
            context = self._stream.codec_context
            if context.name == "h264":
                needed = wanted is None or packet.pts in wanted
                context.skip_frame = "DEFAULT" if needed else "NONREF"
            if broken:
                raise broken
            try:
                frames = context.decode(packet)
            except av.FFmpegError as error:  # raised only if another packet follows
                frames, broken = [], error
            yield from frames
        yield from self._stream.codec_context.decode(None)

    def _packets_from(self, start: int | None) -> Iterator[av.Packet]:
        """Yields packets from the one with pts `start`, or from the first one if that is None."""
        if start is not None:
            try:
                if self._container is None:
                    self._open()
                self._container.seek(int(start), stream=self._stream)
                for packet in self._packets():
                    if packet.pts == start:
                        yield packet
                        yield from self._packets()
                        return
                    if packet.pts is None or packet.pts > start:
                        break  # seeked too far
            except av.FFmpegError:
                pass  # a container that cannot seek
        self._open()
        started = start is None
        for packet in self._packets():
            started = started or packet.pts == start
            if started:
                yield packet


def _content(frame: VideoFrame) -> tuple:
    """Returns all that determines the pixels of a converted frame."""
    kind = frame.format.name, frame.width, frame.height, frame.color_range, frame.colorspace
    return *kind, frame.pts, [bytes(plane) for plane in frame.planes]


def _shown(packet: av.Packet, context: av.VideoCodecContext) -> bool | None:
    """Returns True if a packet holds exactly one shown frame, False if it holds none, None if unknown."""
    if packet.is_discard:  # outside the container's edit list
        return False
    codec = context.codec.canonical_name
    data = bytes(packet) if codec in ("vp8", "vp9", "mpeg4") else b""
    if codec == "vp8":
        return bool(data[0] >> 4 & 1)  # RFC 6386, section 9.1: show_frame
    if codec == "vp9":  # VP9 bitstream specification, section 6.2 and annex B
        frames = 1 + (data[-1] & 7)
        size = 2 + frames * (1 + (data[-1] >> 3 & 3))
        if data[-1] >> 5 == 0b110 and len(data) >= size and data[-size] == data[-1]:
            return True  # a superframe shows its last frame
        head = data[0] if data[0] >> 4 & 3 == 3 else data[0] >> 1
        return bool(head & 0b101)  # show_existing_frame, show_frame
    if codec == "mpeg4":  # AVI may pack two frames into one packet and only headers into the next
        start = data.find(b"\0\0\1\xb6")
        alone = start >= 0 and data.find(b"\0\0\1\xb6", start + 4) < 0
        coded = len(data) > MPEG4_HEADER and data[start + 4] >> 6 != MPEG4_B
        return True if alone and coded and not context.has_b_frames else None
    return True


def _orientation(frame: VideoFrame) -> tuple[int, int, bool]:
    """Returns the row and column steps (1 or -1), and whether to transpose first, to make a frame upright."""
    # PyAV's side data and frame form a reference cycle, so read it from a tiny copy to free the frame early.
    tiny = VideoReformatter().reformat(frame, 16, 16, "gray", interpolation="POINT", threads=1)
    data = tiny.side_data.get(SideData.DISPLAYMATRIX)
    if data is None:
        return 1, 1, False
    # Column j, row i maps to x = a j + c i, y = b j + d i, up to a shift (ISO/IEC 14496-12, section 6.2.2).
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    transposed = abs(b) > abs(a)
    x, y = (c, b) if transposed else (a, d)
    return -1 if y < 0 else 1, -1 if x < 0 else 1, transposed


def reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
