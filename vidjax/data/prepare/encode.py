"""Re-encodes a video for training: small, quick to seek in, and cut to the segment that is used."""

import dataclasses
import io
import types
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np

from vidjax.data.audio import NoTrack, read_audio
from vidjax.data.clips import Opened, span
from vidjax.data.decode import DecodeError, Video, open_container
from vidjax.data.frame_folder import FrameFolder
from vidjax.data.packet_index import PacketIndex
from vidjax.data.prepare.read import PreparedFrames
from vidjax.data.record import Record
from vidjax.data.targets import (
    BoxesTarget,
    DenseTextTarget,
    MomentsTarget,
    Segment,
    SegmentsTarget,
    Target,
    problem,
)

_TOGETHER = 30.0  # seconds of sound held in memory
_RATES = 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000  # Hz, which AAC has
_FRAME = 1024  # samples of an AAC frame
_JPEG_QUALITY = 95
# Keyframes bound what precedes a frame. B-frames that no frame refers to are decoded only if they are
# requested. Without deblocking and arithmetic coding, decoding takes about half the time. With mbtree, x264
# does not write the same bytes each time.
_FAST = (
    "keyint={gop}:min-keyint={gop}:scenecut=0:bframes=3:b-adapt=0:b-pyramid=none:ref=1:weightp=0:weightb=0:"
    "cabac=0:no-deblock=1:mbtree=0"
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How videos are stored.

    Attributes:
      storage: "video" (H.264 in MP4) or "jpeg" (an image for each frame).
      short_side: pixels that the short side is reduced to; 0 keeps the size.
      gop: frames from one keyframe to the next.
      crf: constant rate factor of H.264; lower is better and larger.
      audio: whether to keep the sound, as AAC with one channel.
    """

    storage: str = "video"
    short_side: int = 320
    gop: int = 8
    crf: int = 23
    audio: bool = False


@dataclasses.dataclass
class Encoded:
    """An encoded video.

    Attributes:
      video: an MP4 file: the video, or only its sound if the frames are images; may be empty.
      index: the serialized `PacketIndex` of the frames.
      images: JPEG files of the frames, in order.
      records: the records of the video with the times of the encoded one; `video` is None.
      bad: records of segments that cannot be read, and why.
    """

    video: bytes
    index: bytes
    images: list[bytes]
    records: list[Record]
    bad: list[tuple[Record, str]]


def encode(records: Sequence[Record], settings: Settings) -> Encoded:
    """Encodes the video that all `records` share.

    It is cut to the segment of a record that it does not share with others, if the target lies within.

    Raises:
      DecodeError: the video cannot be read.
    """
    first, last, kept, bad = 0, 0, [], []
    reference = records[0].video
    source = None if isinstance(reference, FrameFolder | PreparedFrames) else records[0].encoded()
    with reference.open() if source is None else Video(source) as video:
        for record in records:
            try:
                if wrong := problem(record.target):
                    raise DecodeError(f"{record.id}: {wrong}")
                first, total = span_of(video, record)
                last = first + total
                kept.append(dataclasses.replace(record, video=None))
            except DecodeError as error:
                bad.append((record, str(error)))
        if not kept:
            return Encoded(b"", b"", [], [], bad)
        if len(records) == 1 and last - first < video.num_frames:
            cut = _cut(kept[0], video.times, first, last, video.fps)
            kept = [cut] if cut else kept
        if len(records) > 1 or kept[0].start is not None or kept[0].end is not None:
            first, last = 0, video.num_frames
        base = video.index.time_base if isinstance(video, Video) else Fraction(1 / video.fps)
        base = base.limit_denominator(1_000_000)
        times = video.times[first:last] - video.times[first]
        fps = (len(times) - 1) / times[-1] if len(times) > 1 else video.fps
        sound = None
        if settings.audio and source is not None:
            start = video.times[first]
            sound = _sound(source, start, start + times[-1] + 1 / fps)
        images = _resized(_images(video, first, last), settings.short_side)
        if settings.storage == "jpeg":
            jpegs = [_jpeg(image) for image in images]
            index = PacketIndex(0, 0, base, float(fps), times)
            return Encoded(_mp4(None, sound) if sound else b"", index.to_bytes(), jpegs, kept, bad)
        encoded = _mp4(_Frames(images, times, base, fps, settings), sound)
    with Video(encoded) as stored:
        if stored.num_frames != len(times):
            raise DecodeError(f"{video.name}: {stored.num_frames} of {len(times)} frames were encoded")
        return Encoded(encoded, stored.index.to_bytes(), [], kept, bad)


def span_of(video: Opened, record: Record) -> tuple[int, int]:
    """Returns the first frame of a record and their number. Raises `DecodeError` if there is none."""
    return span(video, record, types.SimpleNamespace(target_fps=None))[:2]


def _cut(record: Record, times: np.ndarray, first: int, last: int, fps: float) -> Record | None:
    """Returns the record of frames `first` to `last` alone; None if its target reaches beyond them."""
    start = float(times[first])
    end = float(times[last]) if last < len(times) else float(times[-1] + 1 / fps)
    target = shifted(record.target, start, end - start)
    if target is None and record.target is not None:
        return None
    return dataclasses.replace(record, target=target, start=None, end=None)


def shifted(target: Target, start: float, duration: float) -> Target | None:
    """Returns a target for the part of its video from `start`, in seconds; None if it is not within."""

    def inside(begin: float, end: float) -> bool:
        return start <= begin and end <= start + duration

    match target:
        case SegmentsTarget(segments) if all(inside(s.start, s.end) for s in segments):
            moved = tuple(Segment(s.start - start, s.end - start, s.label) for s in segments)
            return SegmentsTarget(moved, duration)
        case DenseTextTarget(rows) if all(inside(a, b) for a, b, _ in rows):
            return DenseTextTarget(tuple((a - start, b - start, texts) for a, b, texts in rows), duration)
        case MomentsTarget(query, moments) if all(inside(*moment) for moment in moments):
            return MomentsTarget(query, tuple((a - start, b - start) for a, b in moments), duration)
        case BoxesTarget(time, boxes) if inside(time, time):
            return BoxesTarget(time - start, boxes)
        case SegmentsTarget() | DenseTextTarget() | MomentsTarget() | BoxesTarget():
            return None
    return target


def _images(video: Any, first: int, last: int) -> Iterator[np.ndarray]:
    """Yields frames one at a time, uint8 [H, W, 3]."""
    if isinstance(video, Video):
        yield from video.iterate(np.arange(first, last))
    else:
        for i in range(first, last):
            yield video.frames(np.array([i]))[0]


def _resized(images: Iterator[np.ndarray], short_side: int) -> Iterator[np.ndarray]:
    """Yields frames reduced to a short side; both sides are then even, which H.264 stores best."""
    for image in images:
        height, width = image.shape[:2]
        short = min(height, width)
        if short_side and short > short_side:
            size = [2 * max(1, round(side * short_side / short / 2)) for side in (width, height)]
            image = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
        yield image


def _jpeg(image: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


@dataclasses.dataclass(frozen=True)
class _Frames:
    """Frames to encode, and their times in seconds, which are multiples of `base`."""

    images: Iterator[np.ndarray]
    times: np.ndarray
    base: Fraction
    fps: float
    settings: Settings


class _Sound:
    """Mono sound, read and encoded part by part."""

    def __init__(self, source: str | bytes, start: float, end: float, rate: int):
        self.rate = rate
        self._source, self._start, self._end = source, start, end

    def frames(self) -> Iterator[av.AudioFrame]:
        sent, length = 0, round(_TOGETHER * self.rate / _FRAME) * _FRAME
        total = round((self._end - self._start) * self.rate)
        while sent < total:
            count = min(length, total - sent)
            start = self._start + sent / self.rate
            wave = read_audio(self._source, start, start + count / self.rate, self.rate)
            for i in range(0, count, _FRAME):
                part = av.AudioFrame.from_ndarray(wave[None, i : i + _FRAME], "fltp", "mono")
                part.sample_rate, part.pts, part.time_base = self.rate, sent + i, Fraction(1, self.rate)
                yield part
            sent += count


def _sound(source: str | bytes, start: float, end: float) -> _Sound | None:
    """Returns the sound of a part of a video; None if it has none."""
    with open_container(source) as container:
        track = container.streams.best("audio")
        native = track.codec_context.sample_rate if track and track.codec_context else 0
    if not native:
        return None
    rate = next((rate for rate in _RATES if rate <= native), _RATES[-1])
    try:
        read_audio(source, start, start + 0.01, rate)
    except NoTrack:
        return None
    return _Sound(source, start, end, rate)


def _mp4(video: _Frames | None, sound: _Sound | None) -> bytes:
    """Encodes frames, sound or both to an MP4 file."""
    file = io.BytesIO()
    clock = video.base.denominator if video else 0
    with av.open(file, "w", format="mp4", options={"video_track_timescale": str(clock)}) as container:
        picture = None
        if video:
            head = next(video.images)
            picture = _picture_stream(container, video, *head.shape[:2])
        if sound:
            track = container.add_stream("aac", rate=sound.rate, layout="mono")
            track.bit_rate = min(96_000, 3 * sound.rate)
            waiting = sound.frames()
            part = next(waiting, None)
        if video:
            ticks = _ticks(video.times, video.base)
            images = _and_rest(head, video.images)
            for tick, seconds, image in zip(ticks, video.times, images, strict=True):
                while sound and part and part.pts / sound.rate <= seconds:
                    container.mux(track.encode(part))
                    part = next(waiting, None)
                if image.shape != head.shape:
                    raise DecodeError(f"frames of {head.shape[:2]} and {image.shape[:2]} in one video")
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts, frame.time_base = tick * video.base.numerator, Fraction(1, clock)
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        if sound:
            while part:
                container.mux(track.encode(part))
                part = next(waiting, None)
            container.mux(track.encode(None))
    return file.getvalue()


def _picture_stream(
    container: av.container.OutputContainer, video: _Frames, height: int, width: int
) -> av.VideoStream:
    stream = container.add_stream("libx264", rate=Fraction(video.fps).limit_denominator(10_000) or 1)
    stream.width, stream.height = width, height
    # With halved chroma, both sides must be even.
    stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
    stream.thread_count = 1
    stream.codec_context.time_base = Fraction(1, video.base.denominator)
    stream.options = {
        "preset": "fast",
        "crf": str(video.settings.crf),
        "x264-params": _FAST.format(gop=video.settings.gop),
    }
    return stream


def _ticks(times: np.ndarray, base: Fraction) -> list[int]:
    """Returns strictly increasing numbers of ticks."""
    ticks = np.round(times / float(base)).astype(np.int64)
    step = np.arange(len(ticks))
    return (np.maximum.accumulate(ticks - step) + step).tolist()


def _and_rest(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest
