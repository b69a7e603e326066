"""Reads a video of any length as a sequence of windows, in one pass with memory bounded by a window."""

import bisect
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from vidjax.data import streams, transforms
from vidjax.data.clips import Clip, ClipReader
from vidjax.data.datasets import ListSource, Source
from vidjax.data.decode import Video
from vidjax.data.geometry import Geometry
from vidjax.data.record import Record
from vidjax.errors import UserError

Crops = list[tuple[np.ndarray, Geometry]]


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of a video.

    Attributes:
      start, end: seconds from the first frame of the video.
      clips: its test views, clip by clip.
    """

    start: float
    end: float
    clips: list[Clip]


def read_windows(
    record: Record,
    reader: ClipReader,
    length: float | None = None,
    step: float | None = None,
    clips: int | None = None,
    crops: int = 1,
) -> Iterator[Window]:
    """Yields the windows of a video in order.

    Window k covers the `length` seconds from k * step; its clips are those of `ClipReader.views` for a record
    with this start and end. The last window ends with the video, so that every frame is within a window if
    `step` is at most `length`. A video shorter than `length` is a single window.

    The video is decoded once, and the crops of the frames of one window are held in memory.

    Args:
      record: the video; its start and end are ignored.
      reader: reads clips of frames, not of cached features.
      length: seconds per window; None uses `clip_length`.
      step: seconds from one window to the next; None uses half of `length`.
      clips: clips per window; None uses as many as cover the window.
      crops: spatial crops per clip.

    Raises:
      DecodeError: the video cannot be read, or not beyond the windows that were yielded before.
      UserError: the clips have no length of their own, see `clip_length`.
    """
    cfg = reader.cfg
    with Video(record.encoded(), indexed=False) as video:
        length = length or clip_length(cfg, reader.streams, video.fps)
        step = step or length / 2
        clips = clips or covering(length, cfg, reader.streams, video.fps)
        held = _Held([], [], video.fps, video.tolerance)
        near = min(0.001, 0.4 / video.fps)  # seconds, for rounding
        number, covered, played, now = 0, 0.0, 0, 0.0

        def complete(end: float) -> Iterator[Window]:
            """Yields the windows that end by `end`."""
            nonlocal number, covered
            while number * step + length <= end + near:
                covered = number * step + length
                yield window(number * step, covered)
                number += 1

        def window(start: float, end: float) -> Window:
            return Window(start, end, held.views(record, reader, start, end, clips, crops))

        for now, image in video.play(grey=reader.grey):
            held.add(now, transforms.test_views(image[None], cfg, crops))
            yield from complete(now)
            held.drop(min(number * step, now - length) - near)
            played += 1
        if played > 1:
            held.fps = (played - 1) / now  # as that of `Video`, now that all frames are known
        end = now + 1 / held.fps
        yield from complete(end)
        if covered < end - near:
            yield window(max(0.0, end - length), end)


def parts(source: Source, length: float) -> tuple[ListSource, list[int]]:
    """Divides the videos of a source into parts of equal length, which cover them.

    The parts of a video are spread evenly from its start to its end, and as few as cover it; they overlap
    unless its duration is a multiple of the length. A video shorter than `length` is one part.

    Args:
      source: videos whose targets have a duration.
      length: seconds per part.

    Returns:
      A record for each part, in the order of the videos and of time, and the index of its video.
    """
    records, videos = [], []
    for i in range(len(source)):
        record = source[i]
        start = record.start or 0.0
        end = record.target.duration if record.end is None else record.end
        count = max(1, math.ceil((end - start) / length - 1e-6))
        for first in np.linspace(start, max(start, end - length), count).tolist():
            records.append(dataclasses.replace(record, start=first, end=min(first + length, end)))
            videos.append(i)
    return ListSource(tuple(records), tuple(source.class_names), source.directional), videos


def clip_length(cfg: Any, names: tuple[str, ...], fps: float) -> float:
    """Returns the seconds from the first frame of a clip to one stride after its last.

    Args:
      cfg: the config's data section.
      names: the streams of a clip.
      fps: frames per second of the video.

    Raises:
      UserError: clips span whole videos of any length.
    """
    if cfg.sampling != "window":
        raise UserError(
            f"clips with data.sampling={cfg.sampling} span a whole video and have no length: set the length "
            "of the windows"
        )
    stride = cfg.stride / cfg.target_fps if cfg.target_fps else cfg.stride
    return float(streams.clip_moments(cfg, names).max() + stride) / (1 if cfg.target_fps else fps)


def covering(length: float, cfg: Any, names: tuple[str, ...], fps: float) -> int:
    """Returns the number of clips that cover a window; one if each clip spans the window by itself."""
    if cfg.sampling != "window":
        return 1
    return max(1, math.ceil(length / clip_length(cfg, names, fps) - 1e-3))


@dataclasses.dataclass
class _Held:
    """The latest frames of a video, cropped; in the place of a `Video` where only times are used."""

    seconds: list[float]
    crops: list[Crops]
    fps: float
    tolerance: float

    @property
    def times(self) -> np.ndarray:
        return np.array(self.seconds)

    @property
    def num_frames(self) -> int:
        return len(self.seconds)

    def add(self, seconds: float, crops: Crops) -> None:
        self.seconds.append(seconds)
        self.crops.append(crops)

    def drop(self, before: float) -> None:
        """Drops the frames that are no longer shown at a time."""
        gone = max(0, bisect.bisect_right(self.seconds, before) - 1)
        del self.seconds[:gone], self.crops[:gone]

    def views(
        self, record: Record, reader: ClipReader, start: float, end: float, clips: int, crops: int
    ) -> list[Clip]:
        views = []
        part = dataclasses.replace(record, start=start, end=end)
        for index in reader.view_frames(self, part, clips):
            times = self.times[index]
            beside = reader.beside(record, times)
            for crop in range(crops):
                frames = np.concatenate([self.crops[i][crop][0] for i in index])
                geometry = self.crops[index[0]][crop][1]
                views.append(reader.clip(frames, times, geometry, beside))
        return views
