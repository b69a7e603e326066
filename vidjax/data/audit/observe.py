"""Reads clips as a run does, and records where they are from.

Clips are read by `TrainSample` and `EvalSample`, so whatever the sampler, the pipeline or the dataset does to
them is in the result. `_Watching` records which frames they request from a video.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from vidjax.data.clips import Clip, ClipReader, Opened
from vidjax.data.datasets import ListSource, Source
from vidjax.data.decode import ERRORS, DecodeError, open_container
from vidjax.data.geometry import Geometry
from vidjax.data.order import Shuffled
from vidjax.data.pipeline import EvalSample, TrainSample, no_targets
from vidjax.data.record import Opens, Record
from vidjax.data.windows import parts

SHIFTS = (-2, -1, 0, 1, 2)  # frames by which a clip is compared with its video
_SIDE = 16  # pixels, of frames that are compared
_COMPARED = 4  # frames per clip
_KEPT = 4  # clips whose streams are kept
_FLAT = 8.0  # gray levels; a frame with a smaller standard deviation shows too little to be compared
_THUMBS, _THUMB = 8, 96  # frames of a clip that are kept, and their side


@dataclasses.dataclass(frozen=True)
class Part:
    """A split, and how a run reads it.

    Attributes:
      name: "train", or the name of an evaluation.
      source: the records.
      cfg: the data section of the config, with the sizes of this part.
      clips, crops: test views; unused for training.
      cover: seconds per clip of an evaluation that covers whole videos; None for a fixed number of clips.
    """

    name: str
    source: Source
    cfg: Any
    clips: int = 1
    crops: int = 1
    cover: float | None = None


@dataclasses.dataclass(frozen=True)
class Facts:
    """A video, and the part of it that a record covers.

    Attributes:
      times: float64 [n + 1], when each frame appears, and the end of the video, in seconds.
      fps: average frames per second.
      tolerance: see `Video`.
      first, last: the first and the last frame that the record covers.
      pixel_aspect: width of a pixel relative to its height.
    """

    times: np.ndarray
    fps: float
    tolerance: float
    first: int
    last: int
    pixel_aspect: float

    @classmethod
    def of(cls, video: Opened, record: Record) -> "Facts":
        times = np.append(video.times, video.times[-1] + 1 / video.fps)
        # Computed apart from `clips.span`, which is among what is audited.
        gap = float(np.median(np.diff(times)))
        near = min(max(0.001, 0.1 * gap), 0.4 * gap)
        first, last = 0, len(times) - 2
        if record.start is not None:
            first = max(0, int(np.searchsorted(times[:-1], record.start + near, "right")) - 1)
        if record.end is not None:
            last = int(np.searchsorted(times[:-1], record.end - near)) - 1
        return cls(times, video.fps, video.tolerance, first, last, _pixel_aspect(record))

    @property
    def frames(self) -> int:
        """Number of frames that the record covers."""
        return self.last - self.first + 1


@dataclasses.dataclass(frozen=True)
class Seen:
    """A clip that the pipeline returned.

    Attributes:
      id: of the record.
      part: name of the part.
      view: number of the draw, or of the clip and the crop.
      index: frames of the video, int64 [T].
      times: of these frames in seconds, [T].
      geometry: see `Clip`.
      target: of the clip, after mirroring.
      arrays: shape and dtype of each stream.
      digest: hash of all streams.
      color: mean of each channel of the rgb frames; None without them.
      saturation: mean difference between the largest and the smallest channel; 0 for gray frames.
      thumbs: a few small frames to show, uint8 [t, h, w, C].
      thumb_times: [t].
    """

    id: str
    part: str
    view: str
    index: np.ndarray
    times: np.ndarray
    geometry: Geometry | None
    target: Any
    arrays: dict[str, tuple[tuple[int, ...], str]]
    digest: bytes
    color: np.ndarray | None
    saturation: float
    thumbs: np.ndarray | None
    thumb_times: np.ndarray

    @property
    def ascending(self) -> bool:
        """Whether no frame is repeated, and all are in the order of the video."""
        return bool((np.diff(self.index) > 0).all())

    @property
    def interval(self) -> float:
        """Mean seconds from one frame to the next; requires an ascending clip of several frames."""
        return float(self.times[-1] - self.times[0]) / (len(self.times) - 1)


@dataclasses.dataclass
class Observed:
    """What was seen of a part.

    Attributes:
      part: as given.
      total: number of records of the split.
      records: those that were read, by id.
      facts: of the videos that can be opened, by id.
      clips: as returned.
      extents: the first and the last frame of each read of a record, int64 [n, 2], over all clips of a read.
      outside: frames that were requested and do not exist, by id, and the number of frames of the video.
      unreadable: why other records cannot be read, by id.
      errors: of the clips that were compared with their videos: mean difference at each of `SHIFTS`.
      inputs: streams of a few clips.
      normalized: mean and standard deviation of what the model makes of `inputs`; None if not known.
    """

    part: Part
    total: int
    records: dict[str, Record]
    facts: dict[str, Facts] = dataclasses.field(default_factory=dict)
    clips: list[Seen] = dataclasses.field(default_factory=list)
    extents: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    outside: dict[str, tuple[np.ndarray, int]] = dataclasses.field(default_factory=dict)
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    errors: list[tuple[Seen, np.ndarray]] = dataclasses.field(default_factory=list)
    inputs: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)
    normalized: tuple[float, float] | None = None

    @property
    def by_video(self) -> dict[str, list[Seen]]:
        """The clips of each record."""
        found: dict[str, list[Seen]] = collections.defaultdict(list)
        for clip in self.clips:
            found[clip.id].append(clip)
        return dict(found)


class _Watched:
    """A video that records which frames are requested."""

    def __init__(self, video: Opened, note: Any):
        self._video, self._note = video, note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._video, name)

    def __enter__(self) -> "_Watched":
        self._video.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._video.__exit__(*error)

    def frames(self, indices: np.ndarray, grey: bool = False) -> np.ndarray:
        self._note(np.asarray(indices))
        return self._video.frames(indices, grey=grey)


class _Outside(DecodeError):
    """A clip has frames that its video does not have."""


class _Placed(Exception):
    """Ends reading a clip as soon as its frames are known."""


@dataclasses.dataclass(frozen=True)
class _Watching(ClipReader):
    """A reader that records its requests in `seen`."""

    seen: Observed = dataclasses.field(kw_only=True)

    def open(self, record: Record) -> Any:
        video = super().open(record)
        if record.id not in self.seen.facts:
            self.seen.facts[record.id] = Facts.of(video, record)

        def note(indices: np.ndarray) -> None:
            total = video.num_frames
            wrong = indices[(indices < 0) | (indices >= total)]
            if wrong.size:
                self.seen.outside[record.id] = indices, total
                raise _Outside(f"{record.id}: no frame {wrong[0]}, the video has {total}")
            _extend(self.seen, record.id, [(indices.min(), indices.max())])

        return _Watched(video, note)


@dataclasses.dataclass(frozen=True)
class _Placing(ClipReader):
    """A reader that samples the frames of a clip and decodes none."""

    facts: Mapping[str, Facts] = dataclasses.field(default_factory=dict)

    def open(self, record: Record) -> Any:
        return _Hollow(self.facts[record.id])


class _Hollow:
    """The times of a video without its frames."""

    def __init__(self, facts: Facts):
        self.times, self.fps, self.tolerance = facts.times[:-1], facts.fps, facts.tolerance
        self.num_frames = len(self.times)

    def __enter__(self) -> "_Hollow":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def frames(self, indices: np.ndarray, grey: bool = False) -> np.ndarray:
        raise _Placed(np.asarray(indices))


def choose(source: Source, count: int, seed: int, first: Sequence[int] = ()) -> list[Record]:
    """Returns `count` random records; up to half of them are of the classes `first`, one of each.

    Records are in the order of the source.
    """
    order = np.random.default_rng([seed, len(source)]).permutation(len(source)).tolist()
    chosen: dict[int, None] = {}
    if first:
        wanted = {*first}
        for i in order:
            label = getattr(source[i].target, "label", None)
            if label in wanted and len(chosen) < (count + 1) // 2:
                wanted.remove(label)
                chosen[i] = None
    for i in order:
        if len(chosen) == count:
            break
        chosen[i] = None
    return [source[i] for i in sorted(chosen)]


def observe_training(
    part: Part, records: Sequence[Record], streams: Sequence[str], draws: int, seed: int, compared: int
) -> Observed:
    """Reads training clips of records.

    Args:
      part: the training split.
      records: of its source.
      streams: modalities of a clip.
      draws: clips to read of each record; the frames of many more are only sampled.
      seed: of the order and the augmentation.
      compared: number of clips to compare with the frames of their videos.
    """
    seen = Observed(part, len(part.source), {r.id: r for r in records})
    source = _subset(part.source, records)
    cfg = _copy(part.cfg, bad_limit=1.0)
    counts: collections.Counter[str] = collections.Counter()

    def example(record: Record, clip: Clip, rng: np.random.Generator, train: bool) -> dict[str, Any]:
        counts[record.id] += 1
        found = _seen(seen, record, f"draw {counts[record.id] - 1}", clip)
        if counts[record.id] == 1 and len(seen.errors) < compared and cfg.auto_augment is None:
            _compare(seen, found, clip)
        return {}

    reader = _Watching(cfg, tuple(streams), seen=seen)
    sample = TrainSample(source, reader, example, Shuffled(len(source)), seed)
    for g in range(draws * len(source)):
        _note_bad(seen, sample(g))
    _place(seen, streams, seed)
    return seen


def observe_evaluation(
    part: Part, records: Sequence[Record], streams: Sequence[str], compared: int
) -> Observed:
    """Reads the test views of records; see `observe_training`."""
    source = _subset(part.source, records)
    if part.cover:
        source, _ = parts(source, part.clips * part.cover)
        rows = [dataclasses.replace(r, id=f"{r.id} from {r.start:.2f} s") for r in source.records]
        source = dataclasses.replace(source, records=tuple(rows))
    seen = Observed(part, len(part.source), {r.id: r for r in source.records})
    reader = _Watching(_copy(part.cfg, bad_limit=1.0), tuple(streams), seen=seen)
    sample = EvalSample(source, reader, no_targets, part.clips, part.crops)
    for g in range(len(source)):
        row = sample(g)
        _note_bad(seen, row)
        if "mask" not in row or not row["mask"][0]:
            continue
        for v in range(part.clips * part.crops):
            numbers = row["geometry"][0, v]
            clip = Clip(
                {name: x[0, v] for name, x in row["inputs"].items()},
                row["times"][0, v],
                Geometry.from_array(numbers) if numbers.size else None,
            )
            found = _seen(seen, source[g], f"clip {v // part.crops} crop {v % part.crops}", clip)
            if not v and len(seen.errors) < compared:
                _compare(seen, found, clip)
    return seen


def _place(seen: Observed, streams: Sequence[str], seed: int) -> None:
    """Samples the frames of many more training clips, to find frames that are never sampled."""
    reader = _Placing(_copy(seen.part.cfg, repeats=1), tuple(streams), facts=seen.facts)
    readable = [r for i, r in seen.records.items() if i in seen.facts]
    for number, record in enumerate(readable):
        draws = int(np.clip(16 * seen.facts[record.id].frames / len(readable), 32, 1000))
        rng, found = np.random.default_rng([seed, number]), []
        for _ in range(draws):
            try:
                reader.train(record, rng)
            except _Placed as placed:
                (indices,) = placed.args
                found.append((indices.min(), indices.max()))
            except DecodeError:  # its segment has no frame, which is reported when a clip is read
                break
        if found:
            _extend(seen, record.id, found)


def _extend(seen: Observed, id: str, rows: Sequence[tuple[int, int]]) -> None:
    known = seen.extents.get(id, np.empty((0, 2), np.int64))
    seen.extents[id] = np.concatenate([known, np.asarray(rows, np.int64)])


def _note_bad(seen: Observed, row: Mapping[str, Any]) -> None:
    for id, _, error in row["bad"]:
        if id not in seen.outside:
            seen.unreadable[id] = error


def _subset(source: Source, records: Sequence[Record]) -> ListSource:
    return ListSource(tuple(records), tuple(source.class_names), source.directional, mirror=source.mirror)


def _copy(cfg: Any, **changes: Any) -> Any:
    """Returns the data section with changes; videos are read on this thread and not cached."""
    cfg = cfg.copy_and_resolve_references()
    cfg.update(changes)
    return cfg


def _seen(seen: Observed, record: Record, view: str, clip: Clip) -> Seen:
    facts = seen.facts[record.id]
    index = np.searchsorted(facts.times[:-1], clip.times)
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(clip.inputs):
        digest.update(np.ascontiguousarray(clip.inputs[name]).tobytes())
    if len(seen.inputs) < _KEPT:
        seen.inputs.append(clip.inputs)
    rgb, color, saturation = clip.inputs.get("rgb"), None, 0.0
    if rgb is not None:
        some = rgb[:, ::4, ::4].astype(np.float32)
        color, saturation = some.mean((0, 1, 2)), float((some.max(-1) - some.min(-1)).mean())
    picture = rgb if rgb is not None else clip.inputs.get("flow")
    thumbs, times = None, clip.times[:0]
    if picture is not None and picture.dtype == np.uint8:
        shown = np.unique(np.linspace(0, len(picture) - 1, _THUMBS).round().astype(int))
        thumbs, times = np.stack([_small(picture[i], _THUMB) for i in shown]), clip.times[shown]
    found = Seen(
        record.id,
        seen.part.name,
        view,
        index,
        clip.times,
        clip.geometry,
        record.target,
        {name: (x.shape, x.dtype.name) for name, x in clip.inputs.items()},
        digest.digest(),
        color,
        saturation,
        thumbs,
        times,
    )
    seen.clips.append(found)
    return found


def _small(image: np.ndarray, side: int) -> np.ndarray:
    if max(image.shape[:2]) <= side:
        return image
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return small.reshape(side, side, -1)


def _compare(seen: Observed, found: Seen, clip: Clip) -> None:
    """Compares frames of a clip with those of its video at `SHIFTS` from where it claims to be from."""
    rgb, geometry = clip.inputs.get("rgb"), clip.geometry
    if rgb is None or geometry is None or any(geometry.shear):
        return
    facts, reach = seen.facts[found.id], max(SHIFTS)
    inner = np.flatnonzero((found.index >= reach) & (found.index < len(facts.times) - 1 - reach))
    if not inner.size:
        return
    chosen = inner[np.unique(np.linspace(0, len(inner) - 1, _COMPARED).round().astype(int))]
    wanted = found.index[chosen][:, None] + SHIFTS
    unique, place = np.unique(wanted, return_inverse=True)
    with ClipReader(seen.part.cfg, ("rgb",)).open(seen.records[found.id]) as video:
        frames = video.frames(unique, grey=rgb.shape[-1] == 1)
    height, width = frames.shape[1:3]
    x1, y1, x2, y2 = geometry.inverse_boxes([0, 0, *rgb.shape[2:0:-1]])
    if (height, width) != geometry.frame:
        return
    x1, x2 = (int(np.clip(round(x), 0, width)) for x in (x1, x2))
    y1, y2 = (int(np.clip(round(y), 0, height)) for y in (y1, y2))
    if x2 - x1 < 2 or y2 - y1 < 2:
        return
    whole = np.stack([_sketch(frame[y1:y2, x1:x2]) for frame in frames])[place.reshape(wanted.shape)]
    own = np.stack([_sketch(rgb[i]) for i in chosen])
    if geometry.flipped:
        own = own[:, :, ::-1]
    if min(whole.std((2, 3)).min(), own.std((1, 2)).min()) < _FLAT:
        return
    difference = np.abs(_standard(whole) - _standard(own)[:, None]).mean((0, 2, 3))
    seen.errors.append((found, difference))


def _sketch(image: np.ndarray) -> np.ndarray:
    """Returns a small gray version, float32 [side, side]."""
    small = cv2.resize(np.ascontiguousarray(image), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return small.reshape(_SIDE, _SIDE, -1).mean(-1, dtype=np.float32)


def _standard(images: np.ndarray) -> np.ndarray:
    """Removes brightness and contrast, which augmentation changes."""
    centered = images - images.mean((-2, -1), keepdims=True)
    return centered / centered.std((-2, -1), keepdims=True)


def _pixel_aspect(record: Record) -> float:
    if isinstance(record.video, Opens):
        return 1.0
    try:
        with open_container(record.encoded()) as container:
            ratio = container.streams.video[0].sample_aspect_ratio
    except (*ERRORS, DecodeError, IndexError):
        return 1.0
    return float(ratio) if ratio else 1.0
