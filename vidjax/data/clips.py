"""Reads the clips of a record: sampled in time, transformed, and split into streams."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vidjax.data import sampling, streams, transforms
from vidjax.data.decode import DecodeError, Video
from vidjax.data.feature_file import FeatureSequence
from vidjax.data.frame_cache import NO_CACHE, CachedVideo, CachePlan
from vidjax.data.frame_folder import Frames
from vidjax.data.geometry import Geometry
from vidjax.data.prepare.read import JpegFrames, PreparedVideo
from vidjax.data.record import Opens, Record
from vidjax.data.stages import stage
from vidjax.data.targets import problem

Opened = Video | CachedVideo | FeatureSequence | Frames | JpegFrames


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip, and where it is from in its video.

    Attributes:
      inputs: an array for each stream, see `vidjax.data.streams`.
      times: times of the frames of the first stream in seconds from the start of the video, float64 [T].
      geometry: maps pixels of the video to those of the clip; None for cached features.
    """

    inputs: dict[str, np.ndarray]
    times: np.ndarray
    geometry: Geometry | None


@dataclasses.dataclass(frozen=True)
class Views:
    """Where the views of a video are from.

    Attributes:
      times: times of the frames in seconds, float64 [clips, crops, T].
      geometry: of each view, in the order of the clips; None for cached features.
    """

    times: np.ndarray
    geometry: tuple[Geometry | None, ...] = ()

    @property
    def spans(self) -> np.ndarray:
        """The earliest and the latest time of each clip, [clips, 2]; a looped clip may end first."""
        return np.stack([self.times.min((1, 2)), self.times.max((1, 2))], 1)

    @classmethod
    def of(cls, clips: Sequence[Clip], crops: int) -> "Views":
        """Returns the views made by `ClipReader.views`."""
        times = np.stack([clip.times for clip in clips])
        return cls(times.reshape(-1, crops, times.shape[-1]), tuple(clip.geometry for clip in clips))

    @classmethod
    def join(cls, parts: Sequence["Views"]) -> "Views":
        """Returns the views of all parts of a video, one after the other."""
        geometry = tuple(g for part in parts for g in part.geometry)
        return cls(np.concatenate([part.times for part in parts]), geometry)


@dataclasses.dataclass(frozen=True)
class ClipReader:
    """Reads clips.

    Attributes:
      cfg: the config's data section.
      streams: names of the modalities, see `vidjax.data.streams`.
      cache: whether decoded frames are cached.
    """

    cfg: Any
    streams: tuple[str, ...] = ("rgb",)
    cache: CachePlan = NO_CACHE

    @property
    def grey(self) -> bool:
        return streams.grey(self.cfg, self.streams)

    @property
    def carried(self) -> tuple[str, ...]:
        """Names of the inputs of a clip: the streams, and the mask of audio that may be absent."""
        return streams.carried(self.cfg, self.streams)

    @property
    def steps(self) -> int:
        """Number of `Clip.times`."""
        first = next(s for s in self.streams if streams.stream(s).moments)
        shapes = streams.clip_shapes(self.cfg, self.streams)
        return self.cfg.frames if first == "features" else shapes[first][0]

    def open(self, record: Record) -> Opened:
        """Opens a video. Raises `DecodeError` if it cannot be read, or its target is malformed."""
        if wrong := problem(record.target):
            raise DecodeError(f"{record.id}: {wrong}")
        cached = self.cache.use and isinstance(record.video, PreparedVideo)
        with stage("open"):
            if isinstance(record.video, Opens) and not cached:
                return record.video.open()
            with stage("read"):
                source = record.encoded()
            return self.cache.open(source, self.grey)

    def train(self, record: Record, rng: np.random.Generator, flip_ok: bool = True) -> list[Clip]:
        """Returns `cfg.repeats` separately augmented random clips of a video.

        They are of the same frames, or start at separately drawn times if `cfg.repeats_apart`.

        Raises:
          DecodeError: the video cannot be read.
        """
        cfg = self.cfg
        with self.open(record) as video:
            first, total, _ = span(video, record, cfg)
            times = clock(video, first, total, cfg)
            count = cfg.repeats if cfg.repeats_apart else 1
            index = np.stack([self._random_frames(total, times, rng) for _ in range(count)])
            unique, index_in = np.unique(index, return_inverse=True)
            with stage("decode"):
                frames = video.frames(first + unique, grey=self.grey)
            at = video.times[first + index]
        index_in = index_in.reshape(index.shape)
        beside = [self.beside(record, times) for times in at]
        clips = []
        for i in range(cfg.repeats):
            n = i % count
            clip, inverse = _without_repeats(frames, index_in[n])
            if "features" in self.streams:
                moved, geometry = clip, None
            else:
                with stage("transform"):
                    moved, geometry = transforms.train_transform(clip, cfg, rng, flip_ok)
            clips.append(self.clip(moved[inverse], at[n], geometry, beside[n]))
        return clips

    def views(self, record: Record, clips: int, crops: int) -> list[Clip]:
        """Returns the `clips` x `crops` test views of a video, clip by clip.

        Raises:
          DecodeError: the video cannot be read.
        """
        cfg = self.cfg
        with self.open(record) as video:
            index = self.view_frames(video, record, clips)
            unique, index_in = np.unique(index, return_inverse=True)
            with stage("decode"):
                frames = video.frames(unique, grey=self.grey)
            at = video.times[index]
        views = []
        for each, times in zip(index_in.reshape(index.shape), at):
            clip, inverse = _without_repeats(frames, each)
            beside = self.beside(record, times)
            if "features" in self.streams:
                views += [self.clip(clip[inverse], times, None, beside)]
            else:
                with stage("transform"):
                    crops_of = transforms.test_views(clip, cfg, crops)
                views += [self.clip(view[inverse], times, place, beside) for view, place in crops_of]
        return views

    def view_frames(self, video: Opened, record: Record, clips: int) -> np.ndarray:
        """Returns the frames of the test clips of a record, as indices int64 [clips, T] into its video.

        Only `times`, `num_frames`, `fps` and `tolerance` of the video are used.
        """
        cfg = self.cfg
        first, total, _ = span(video, record, cfg)
        if cfg.sampling in ("window", "hierarchical"):
            times = clock(video, first, total, cfg) | {"short": cfg.short, "where": cfg.starts}
            moments = streams.clip_moments(cfg, self.streams)
            if cfg.sampling == "window":
                return first + sampling.spread(total, moments, clips, **times)
            return first + sampling.hierarchical(total, *self._levels(moments), clips, **times)
        # Each clip spans the whole video; neighboring clips take neighboring frames.
        spread = sampling.segments if cfg.sampling == "segments" else sampling.uniform
        return first + spread(total, cfg.frames * clips).reshape(cfg.frames, clips).T

    def blank(self) -> Clip:
        """Returns a clip of zeros, in the place of one that cannot be read."""
        size = 1 if "features" in self.streams else self.cfg.size
        geometry = None if "features" in self.streams else Geometry.identity(size, size)
        return Clip(streams.zeros(self.cfg, self.carried), np.zeros(self.steps), geometry)

    def beside(self, record: Record, times: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the streams that are not made from frames, for a clip with frames at `times`.

        Those of a hierarchical clip belong to its dense window.

        Raises:
          DecodeError: the record lacks one of them, or it cannot be decoded.
        """
        if self.cfg.sampling == "hierarchical":
            times = times[self._levels(times)[0] :]
        return streams.read(record, times, self.cfg, self.carried)

    def clip(
        self, frames: np.ndarray, times: np.ndarray, geometry: Geometry | None, beside: dict[str, np.ndarray]
    ) -> Clip:
        """Makes a clip of transformed frames at the `times` of `clip_moments` and what is `beside` them."""
        inputs = streams.split(frames, self.cfg, self.streams) | beside
        return Clip({name: inputs[name] for name in self.carried}, times[: self.steps], geometry)

    def _random_frames(self, total: int, times: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
        """Samples the frame indices of a random clip from `total` frames with the `times` of `clock`."""
        cfg, moments = self.cfg, streams.clip_moments(self.cfg, self.streams)
        if cfg.sampling == "window":
            return sampling.place(total, moments, rng, cfg.short, **times)
        if cfg.sampling == "hierarchical":
            levels = self._levels(moments)
            return sampling.hierarchical(total, *levels, rng=rng, short=cfg.short, **times)[0]
        if cfg.sampling == "segments":
            return sampling.segments(total, cfg.frames, rng)
        return sampling.uniform(total, cfg.frames)

    def _levels(self, moments: np.ndarray) -> tuple[int, np.ndarray]:
        """Returns the number of coarse frames of a hierarchical clip, and the times of its dense frames."""
        dense = self.cfg.dense_frames or self.cfg.frames // 2
        return self.cfg.frames - dense, moments[:dense]


def _without_repeats(frames: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct frames at `index` [T], and the inverse indices [T] that restore the clip.

    The clip of a short video repeats frames, which are cheaper to transform once and to repeat afterwards.
    """
    unique, inverse = np.unique(index, return_inverse=True)
    return frames if len(unique) == len(frames) else frames[unique], inverse


def clock(video: Opened, first: int, total: int, cfg: Any) -> dict[str, Any]:
    """Returns the arguments `times` and `slack` of `sampling`, in the unit of `streams.clip_moments`."""
    if not cfg.target_fps:
        return {"times": np.arange(total + 1.0), "slack": sampling.SLACK}
    times = np.append(video.times, video.times[-1] + 1 / video.fps)[first : first + total + 1]
    # The slack allows for the difference of two times, each off by up to half a tick.
    return {"times": times, "slack": max(sampling.SLACK, 2 * video.tolerance)}


def span(video: Opened, record: Record, cfg: Any) -> tuple[int, int, float]:
    """Returns a record's first frame, its number of frames, and the ratio of its to the target frame rate.

    Raises:
      DecodeError: no frame is shown between the record's start and end.
    """
    first, last, end = 0, video.num_frames, video.times[-1] + 1 / video.fps
    frame = np.median(np.diff(video.times, append=end))
    near = np.clip(0.001, 0.1 * frame, 0.4 * frame)  # seconds, tolerance for rounded times in a CSV file
    if record.start is not None:
        if record.start > end - near:
            raise DecodeError(f"the segment starts at {record.start} s, after the video's end at {end:.3f} s")
        first = int(sampling.shown(video.times, record.start, near))
    if record.end is not None:
        last = int(np.searchsorted(video.times, record.end - near))
    if last <= first:
        raise DecodeError(f"no frame between {record.start} and {record.end} s")
    return first, last - first, video.fps / cfg.target_fps if cfg.target_fps else 1.0
