"""Exact frames of a video file, by index or by time, in memory bounded by what is asked for."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from types import TracebackType

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

ERRORS = (av.FFmpegError, OSError, ValueError)
NEAR = 8  # frames; a keyframe closer ahead than this is decoded up to, not sought
MAX_REORDER = 32  # frames; no codec displays a frame further than this from its place in the file


class DecodeError(Exception):
    """A video that cannot be read, or a frame that it does not have. The message names the file."""


class _Lost(Exception):
    """The decoder's timestamps are not those of the packets."""


class Video:
    """A video file that gives frames by their index in display order.

    Opening reads the packets' headers, not their pictures, so that `num_frames` and `times` are those of the
    stream whatever the container's header says. Where timestamps can be trusted, frames are found by seeking
    to the keyframe before them; elsewhere (B-frames in AVI, raw streams) by counting from the start.
    Either way `frames([k])` is the k-th picture that a decoder gives for the whole file; only where data is
    damaged or missing may a decoder fill the hole with what it saw before, which then depends on the clip.

    The best video stream is read (ffmpeg's rule). Pixels are as stored: a non-square pixel is not stretched.
    Rotation told by the container is undone. Decoding runs in the caller's thread; a Video belongs to one
    thread at a time.

    Attributes:
      name: path of the file, for messages.
      num_frames: number of frames in display order.
      fps: frames per second on average.
      times: float64 [num_frames], seconds from the first frame to each frame.
      duration: seconds from the first frame to the end of the last.

    With `indexed=False` nothing is read ahead: only `play` is to be used, and the memory taken does not grow
    with the video.

    Raises:
      DecodeError: where the source cannot be opened as a video with at least one frame.
    """

    def __init__(self, source: str | os.PathLike | bytes, indexed: bool = True):
        self._source = source if isinstance(source, bytes) else os.fspath(source)
        self.name = f"<{len(source)} bytes>" if isinstance(source, bytes) else self._source
        self._container = None
        self._reformatter = VideoReformatter()
        try:
            self._open()
            if indexed:
                self._index()
        except ERRORS as error:
            self.close()
            raise DecodeError(f"{self.name}: not a readable video ({_reason(error)})") from error
        except DecodeError:
            self.close()
            raise

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()

    @property
    def height(self) -> int:
        """Pixels, upright."""
        return self._size[0]

    @property
    def width(self) -> int:
        """Pixels, upright."""
        return self._size[1]

    def frames(self, indices: Sequence[int] | np.ndarray, grey: bool = False) -> np.ndarray:
        """Frames by index in display order; indices may repeat and come in any order.

        Args:
          indices: integers [n] in [0, num_frames).
          grey: luma alone.

        Returns:
          uint8 [n, height, width, 3], or [n, height, width, 1] where `grey`, full range.

        Raises:
          DecodeError: where there is no such frame or it cannot be decoded.
        """
        indices = np.asarray(indices, np.int64).reshape(-1)
        outside = indices[(indices < 0) | (indices >= self.num_frames)]
        if outside.size:
            raise DecodeError(f"{self.name}: no frame {outside[0]}, the video has {self.num_frames}")
        if not indices.size:
            return np.empty((0, self.height, self.width, 1 if grey else 3), np.uint8)
        if self._seekable:
            try:
                return self._collect(self._seek_frames(np.unique(indices)), indices, grey)
            except (*ERRORS, _Lost):
                clip = self._collect(self._count_frames(np.unique(indices)), indices, grey)
                self._seekable = False  # counting from the start works where seeking did not
                return clip
        return self._collect(self._count_frames(np.unique(indices)), indices, grey)

    def frames_at(self, seconds: Sequence[float] | np.ndarray, grey: bool = False) -> np.ndarray:
        """Frames shown at the given times from the first frame; like `frames`.

        Before the first frame that is the first, and after the last the last. A time within half a tick of
        the container's clock before a frame counts as that frame's.
        """
        return self.frames(self.indices_at(seconds), grey)

    def indices_at(self, seconds: Sequence[float] | np.ndarray) -> np.ndarray:
        """Indices int64 [n] of the frames shown at `seconds` [n]."""
        return indices_at(self.times, seconds, self.tolerance)

    @property
    def tolerance(self) -> float:
        """Seconds before a frame that count as that frame's: half a tick of the container's clock."""
        return min(0.5 * float(self._stream.time_base), 0.1 / self.fps)

    def play(self, grey: bool = False) -> Iterator[tuple[float, np.ndarray]]:
        """Every frame in turn, decoded when it is asked for: seconds from the first, and uint8 [H, W, C].

        Raises:
          DecodeError: where there is no frame or one cannot be decoded.
        """
        number, first, seconds = 0, None, 0.0
        try:
            for frame in self._decode(None):
                rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
                if frame.pts is not None:
                    first = frame.pts if first is None else first
                    seconds = max(seconds, float((frame.pts - first) * self._stream.time_base))
                elif number:
                    seconds += 1 / rate
                yield seconds, self._image(frame, grey)
                number += 1
        except ERRORS as error:
            raise DecodeError(f"{self.name}: cannot decode frame {number} ({_reason(error)})") from error
        if not number:
            raise DecodeError(f"{self.name}: no frames")

    def _open(self) -> None:
        self.close()
        # "file:" keeps a colon in a path from being read as a protocol
        file = io.BytesIO(self._source) if isinstance(self._source, bytes) else f"file:{self._source}"
        self._container = av.open(file, metadata_errors="ignore")
        self._stream = self._container.streams.best("video")
        if self._container.format.name == "tty":  # ffmpeg would draw a text file as video
            raise DecodeError(f"{self.name}: a text file, not a video")
        context = self._stream and self._stream.codec_context
        if not (context and context.width and context.height):
            raise DecodeError(f"{self.name}: no video stream that can be decoded")
        self._stored = {"width": context.width, "height": context.height}
        context.thread_count = 1

    def _packets(self) -> Iterator[av.Packet]:
        """The stream's packets from here to the end, or to where the file breaks off."""
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
                return  # without a broken packet that ends the file: it was cut off there
            except IndexError:
                continue  # PyAV met a packet of a stream that the file's head did not announce
            except ERRORS:
                return

    def _index(self) -> None:
        """Reads every packet's header: what is shown when, and where decoding can start."""
        context = self._stream.codec_context
        pictures_in = _picture_counter(context)
        packets = [(p.pts, p.is_keyframe, pictures_in(p)) for p in self._packets()]
        pts, key, pictures = ([p[i] for p in packets] for i in range(3))
        # of two pictures in one packet the second comes out with the next packet
        shown = [here > 0 or before > 1 for here, before in zip(pictures, [0, *pictures])]
        self.num_frames = sum(shown)
        self._first = pts[0] if pts else None
        self._seekable = self.num_frames > 0 and None not in pts
        if self._seekable:
            pts, key, shown = np.array(pts, np.int64), np.array(key), np.array(shown)
            before = np.maximum.accumulate(np.concatenate([pts[:1] - 1, pts[:-1]]))
            starts = pts[key & (pts > before)]  # a start is displayed after all that was sent before it
            sent, self._pts = pts[shown], np.sort(pts[shown])
            moved = np.abs(np.searchsorted(self._pts, sent) - np.arange(len(sent)))
            self._seekable = bool(
                key[0]
                and pts[0] == pts.min()
                and (np.diff(self._pts) > 0).all()
                and moved.max() < MAX_REORDER
                # a decoder that reorders, and no timestamp that does: they were made up by the demuxer
                and not (context.has_b_frames and len(sent) > 1 and not moved.any())
            )
            self._starts = starts

        rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        if self._seekable:
            self.times = (self._pts - self._pts[0]) * float(self._stream.time_base)
            self.fps = (self.num_frames - 1) / self.times[-1] if self.num_frames > 1 else rate
        else:
            # what is shown first has to be tried where that is not the first packet, a keyframe
            if self.num_frames and (not key[0] or (None not in pts and min(pts) < pts[0])):
                self.num_frames = sum(1 for _ in self._decode(None))
            if not self.num_frames:
                raise DecodeError(f"{self.name}: no frames")
            self.times = np.arange(self.num_frames) / rate
            self.fps = rate
        self.duration = float(self.times[-1] + 1 / self.fps)

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Height and width upright: only a decoded frame tells the rotation."""
        try:
            return self._image(next(self._decode(self._first)), grey=True).shape[:2]
        except (*ERRORS, StopIteration) as error:
            raise DecodeError(f"{self.name}: cannot decode frame 0 ({_reason(error)})") from error

    def _collect(
        self, frames: Iterator[tuple[int, VideoFrame]], indices: np.ndarray, grey: bool
    ) -> np.ndarray:
        clip = None
        for index, frame in frames:
            image = self._image(frame, grey)
            if clip is None:
                clip = np.empty((len(indices), *image.shape), np.uint8)
            elif image.shape != clip.shape[1:]:
                raise DecodeError(f"{self.name}: frame {index} is turned unlike those before it")
            clip[indices == index] = image
        return clip

    def _image(self, frame: VideoFrame, grey: bool) -> np.ndarray:
        """uint8 [H, W, C] upright, of one size also where the stream changes its own."""
        kind = "gray" if grey else "rgb24"
        try:  # one reformatter for all frames: setting one up costs more than its use
            image = self._reformatter.reformat(frame, **self._stored, format=kind, threads=1).to_ndarray()
        except ERRORS as error:
            raise DecodeError(f"{self.name}: cannot convert a frame ({_reason(error)})") from error
        image = image.reshape(*image.shape[:2], -1)
        return np.rot90(image, round(frame.rotation / 90)) if frame.rotation else image

    def _seek_frames(self, wanted: np.ndarray) -> Iterator[tuple[int, VideoFrame]]:
        """The frames at `wanted` (ascending), each decoded from the nearest start before it."""
        frames, last = None, -1
        for index in wanted:
            start = self._starts[np.searchsorted(self._starts, self._pts[index], "right") - 1]
            if frames is None or np.searchsorted(self._pts, start) > last + NEAR:
                frames = self._decode(start, set(self._pts[wanted].tolist()))
            for frame in frames:
                now = -1 if frame.pts is None else int(np.searchsorted(self._pts, frame.pts))
                if not last < now < self.num_frames or self._pts[now] != frame.pts:
                    raise _Lost
                last = now
                if now >= index:
                    break
            if last != index:
                raise _Lost
            yield index, frame

    def _count_frames(self, wanted: np.ndarray) -> Iterator[tuple[int, VideoFrame]]:
        """The frames at `wanted` (ascending), counted from the start of the file."""
        number, place = 0, 0
        try:
            for frame in self._decode(self._first):
                if number == wanted[place]:
                    yield number, frame
                    place += 1
                    if place == len(wanted):
                        return
                number += 1
        except ERRORS as error:
            raise DecodeError(
                f"{self.name}: cannot decode frame {number} of {self.num_frames} ({_reason(error)})"
            ) from error
        raise DecodeError(f"{self.name}: ends after {number} frames of {self.num_frames}")

    def _decode(self, start: int | None, wanted: set[int] | None = None) -> Iterator[VideoFrame]:
        """Frames as the decoder gives them from the packet with pts `start`, or the file's first, to the end.

        Where `wanted` tells the pts of the frames that matter, an H.264 picture that is neither one of them
        nor a reference for others is not decoded.
        """
        for packet in self._packets_from(start):
            context = self._stream.codec_context
            if context.name == "h264":
                needed = wanted is None or packet.pts in wanted
                context.skip_frame = "DEFAULT" if needed else "NONREF"
            yield from context.decode(packet)
        yield from self._stream.codec_context.decode(None)

    def _packets_from(self, start: int | None) -> Iterator[av.Packet]:
        """Packets from the one with pts `start`, or from the file's first where that is None."""
        if start is not None:
            try:
                self._container.seek(int(start), stream=self._stream)
                for packet in self._packets():
                    if packet.pts == start:
                        yield packet
                        yield from self._packets()
                        return
                    if packet.pts is None or packet.pts > start:
                        break  # sought too far
            except av.FFmpegError:
                pass  # a container that cannot seek
        self._open()
        started = start is None
        for packet in self._packets():
            started = started or packet.pts == start
            if started:
                yield packet


def indices_at(times: np.ndarray, seconds: Sequence[float] | np.ndarray, tolerance: float) -> np.ndarray:
    """Indices int64 [n] of the frames shown at `seconds` [n], of frames that appear at `times`."""
    shown = np.searchsorted(times, np.asarray(seconds, np.float64).reshape(-1) + tolerance, "right")
    return np.clip(shown - 1, 0, len(times) - 1)


def _picture_counter(context: av.VideoCodecContext) -> Callable[[av.Packet], int]:
    """A function that tells how many pictures of a packet are to be shown."""
    codec, packs = context.name, context.has_b_frames
    # An MPEG-4 picture that is coded has a bit or more for each 16x16 block after its header.
    header = min(19, 6 + context.width * context.height // 2048)

    def count(packet: av.Packet) -> int:
        if packet.is_discard:  # outside the container's edit list
            return 0
        if codec == "vp8":
            return bytes(packet)[0] >> 4 & 1  # RFC 6386, section 9.1: show_frame
        if codec == "mpeg4":
            if packet.size <= header:  # AVI pads with headers alone
                return 0
            if packs:  # and may put a picture and the B-frame before it into one packet
                return bytes(packet).count(b"\0\0\1\xb6")
        return 1

    return count


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
