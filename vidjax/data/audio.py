"""Decodes the sound of a video, in sync with its frames, by time."""

import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Iterator

import av
import numpy as np
from av.stream import Disposition

from vidjax.data.decode import ERRORS, DecodeError, Video, name_of, open_container, reason

PREROLL = 0.5  # seconds decoded before a window, after which lossy decoders have forgotten where they started
PAD = 0.05  # seconds beyond either end of a window, more than the resampling filter reaches
GAP = 0.01  # seconds; frames further than this from the end of the previous one are moved to their timestamp


class NoTrack(DecodeError):
    """Raised if a file does not have the requested audio track."""


def read_audio(
    source: str | os.PathLike | bytes, start: float, end: float, rate: int, track: int | str | None = None
) -> np.ndarray:
    """Returns the sound between two times.

    Channels are averaged. Samples that encoders insert at the beginning, or that the container's edit list
    leaves out, are removed. `start` is rounded to a multiple of 1 / rate, so that windows of a file are
    slices of its whole sound.

    Args:
      source: path of the file, or its contents.
      start: seconds from the first video frame, as in `Video.times`; from the first sample if the file holds
        no video.
      end: seconds, at least `start`.
      rate: samples per second of the result.
      track: see `has_audio`.

    Returns:
      float32 [round((end - start) * rate)], full scale is ±1. Zeros before the beginning and after the end of
      the audio stream, in its gaps, and after the point where the file is truncated.

    Raises:
      NoTrack: the file does not have the track.
      DecodeError: the file cannot be read, or its audio is corrupt.
    """
    if end < start:
        raise ValueError(f"end={end} precedes start={start}")
    name = name_of(source)
    try:
        return _read(source, name, round(start * rate), round((end - start) * rate), rate, track)
    except ERRORS as error:
        raise DecodeError(f"{name}: cannot decode the audio ({reason(error)})") from error


def has_audio(source: str | os.PathLike | bytes, track: int | str | None = None) -> bool:
    """Returns whether a file has an audio track.

    Args:
      source: path of the file, or its contents.
      track: number of the track among the audio tracks, from 0; or its language as the container names it,
        such as "eng", of which the first is used; None is the best one (ffmpeg's rule).

    Raises:
      DecodeError: the file cannot be read.
    """
    name = name_of(source)
    try:
        with open_container(source) as container:
            _track(container, name, track)
    except NoTrack:
        return False
    except ERRORS as error:
        raise DecodeError(f"{name}: not a readable file ({reason(error)})") from error
    return True


def _track(container: av.container.InputContainer, name: str, track: int | str | None) -> av.AudioStream:
    """Returns an audio stream, see `has_audio`. Raises `NoTrack` if there is none."""
    tracks = [s for s in container.streams.audio if s.codec_context]
    languages = [s.metadata.get("language", "und") for s in tracks]
    if not tracks:
        raise NoTrack(f"{name}: no audio track")
    if track is None:
        best = container.streams.best("audio")
        return best if best in tracks else tracks[0]
    if isinstance(track, int):
        if track < len(tracks):
            return tracks[track]
        raise NoTrack(f"{name}: no audio track {track}, the last of {len(tracks)} is {len(tracks) - 1}")
    if track in languages:
        return tracks[languages.index(track)]
    raise NoTrack(f"{name}: no audio track in the language '{track}', only in {', '.join(languages)}")


def _read(
    source: str | os.PathLike | bytes, name: str, begin: int, count: int, rate: int, track: int | str | None
) -> np.ndarray:
    """Returns `count` samples from output sample `begin` on, both counted at `rate` from the origin."""
    head = _head_of(source, name, track)
    number, origin, native = head.number, head.origin, head.rate

    def place(frame: av.AudioFrame) -> int | None:
        """Returns the number of samples from the origin to a frame according to its timestamp."""
        return None if frame.pts is None else round((frame.time - origin) * native)

    # Resample from a sample whose time is a multiple of both sampling intervals, as in every other window.
    common = math.gcd(native, rate)
    up, down, pad = rate // common, native // common, math.ceil(PAD * common)
    low, high = begin // up - pad, -(-(begin + count) // up) + pad
    sound = np.zeros((high - low) * down, np.float32)
    low *= down

    frames, position = None, head.position
    wanted = low - PREROLL * native
    if wanted > position + native:  # seeking is cheaper than decoding one more second
        later = _frames(source, number, wanted / native + origin)
        next(later, None)  # Opus decoders shorten the first frame, with an inexact timestamp
        first = next(later, None)
        at = first and place(first)
        if at is not None and at <= low:
            position = _snap(at, position + head.samples, first)
            frames = itertools.chain([first], later)
    resamplers = {}
    for frame in frames or _frames(source, number):
        kind = frame.format.name, frame.layout.name, frame.sample_rate  # may change within a stream
        if kind not in resamplers:
            resamplers[kind] = av.AudioResampler("fltp", frame.layout, native)
        at = place(frame)
        # Timestamps may be rounded to milliseconds, so frames follow each other unless there is a gap.
        if at is not None and abs(at - position) > max(GAP, 2 * frame.time_base) * native:
            position = at
        for part in resamplers[kind].resample(frame):
            samples = part.to_ndarray().mean(0)
            here = slice(max(position - low, 0), max(position - low + len(samples), 0))
            sound[here] = samples[max(low - position, 0) :][: len(sound[here])]
            position += len(samples)
        if position >= low + len(sound):
            break
    skip = begin - low // down * up
    return _resample(sound, native, rate)[skip : skip + count]


@dataclasses.dataclass(frozen=True)
class _Head:
    """How the audio of a file begins.

    Attributes:
      number: of the stream.
      rate: samples per second.
      origin: seconds on the container's clock from which samples are counted.
      position: samples from the origin to the first frame.
      samples: of the first frame.
    """

    number: int
    rate: int
    origin: float
    position: int
    samples: int


def _head_of(source: str | os.PathLike | bytes, name: str, track: int | str | None) -> _Head:
    if isinstance(source, bytes):
        return _head(source, name, track)
    about = os.stat(source)
    return _cached_head(os.fspath(source), name, track, (about.st_mtime_ns, about.st_size))


@functools.lru_cache(maxsize=64)  # the windows of a video are read one after the other
def _cached_head(path: str, name: str, track: int | str | None, version: tuple[int, int]) -> _Head:
    return _head(path, name, track)


def _head(source: str | bytes, name: str, track: int | str | None) -> _Head:
    with open_container(source) as container:
        number = _track(container, name, track).index
        has_video = any(not s.disposition & Disposition.attached_pic for s in container.streams.video)
    frames = _frames(source, number)
    first = next(frames, None)
    frames.close()
    if first is None:
        raise DecodeError(f"{name}: no audio that can be decoded")
    origin = first.time or 0.0
    if has_video:
        with Video(source, indexed=False) as video:
            origin = video.origin
    position = 0 if first.pts is None else round((first.time - origin) * first.sample_rate)
    return _Head(number, first.sample_rate, origin, position, first.samples)


def _snap(position: int, anchor: int, frame: av.AudioFrame) -> int:
    """Undoes the rounding of a frame's timestamp to ticks of the container's clock.

    Frames have equal lengths and one starts at `anchor`, so `position` is a multiple of the length from it.
    """
    tick = float(frame.time_base * frame.sample_rate)
    exact = anchor + round((position - anchor) / frame.samples) * frame.samples
    return exact if tick != 1 and abs(exact - position) <= max(2, 2 * tick) else position


def _frames(
    source: str | os.PathLike | bytes, number: int, since: float | None = None
) -> Iterator[av.AudioFrame]:
    """Yields decoded frames of stream `number`, from about `since` seconds on the container's clock.

    Nothing is yielded if the container cannot seek. A truncated file ends early; only a packet that is
    followed by others counts as corrupt.
    """
    with open_container(source) as container:
        track = container.streams[number]
        if since is not None:
            try:
                container.seek(int(since / track.time_base), stream=track)
            except av.FFmpegError:
                return
        track.codec_context.thread_count = 1
        packets, broken = container.demux(track), None
        while True:
            try:
                packet = next(packets)
            except IndexError:  # raised by PyAV for a packet of a stream that is missing from the header
                packets = container.demux(track)
                continue
            except (StopIteration, *ERRORS):  # the end, or where the file is truncated
                return
            if broken and packet.size:
                raise broken
            try:
                yield from packet.decode()
            except av.FFmpegError as error:
                broken = error


def _resample(sound: np.ndarray, native: int, rate: int) -> np.ndarray:
    """Resamples mono sound float32 [n]; the first sample keeps its time."""
    if native == rate:
        return sound
    frame = av.AudioFrame.from_ndarray(sound[None], "flt", "mono")
    frame.sample_rate = native
    resampler = av.AudioResampler("flt", "mono", rate)
    parts = (*resampler.resample(frame), *resampler.resample(None))
    return np.concatenate([part.to_ndarray()[0] for part in parts])
