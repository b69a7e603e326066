"""Validation of a dataset against its files, and statistics of its videos."""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from vidjax import files
from vidjax.data.audio import has_audio
from vidjax.data.clips import Opened
from vidjax.data.datasets import Source, card, load_source
from vidjax.data.decode import DecodeError, Video
from vidjax.data.frame_folder import FrameFolder
from vidjax.data.prepare.encode import span_of
from vidjax.data.prepare.read import PreparedFrames
from vidjax.data.record import Opens, Record
from vidjax.data.targets import problem
from vidjax.data.workers import Workers
from vidjax.errors import UserError

_SPLITS = ("train", "val", "test")
_SLACK = 0.5  # seconds that a target may exceed its video, since durations in annotations are often rounded
_BLOCK = 1 << 20  # bytes


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a video file is.

    Attributes:
      frames, fps, seconds: of the video.
      height, width: in pixels.
      bytes: size of the file.
      audio: whether it has sound.
      digest: hash of the content of the file.
    """

    frames: int
    fps: float
    seconds: float
    height: int
    width: int
    bytes: int
    audio: bool
    digest: str


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with a record.

    Attributes:
      kind: "annotation" (it cannot be used), "missing" or "corrupt" (the video), "short" (too few frames),
        "segment" (times or boxes outside the video), "duplicate" (the same video as in another split) or
        "copy" (the same video as in this split).
      id: of the record; empty for an annotation that is not a record.
      path: of its video, if it is a file.
      text: what is wrong.
    """

    kind: str
    id: str
    path: str | None
    text: str


@dataclasses.dataclass(frozen=True)
class Checked:
    """A split that was checked.

    Attributes:
      records: number of records.
      fingerprint: of the split.
      classes: number of records of each class, by name; a record may have several.
      problems: what is wrong.
      facts: of each video that can be read, with the number of records that share it.
    """

    records: int
    fingerprint: str
    classes: dict[str, int]
    problems: list[Problem]
    facts: list[tuple[Facts, int]]


def open_splits(
    name: str, wanted: Sequence[str] | None, options: Mapping[str, Any], target: type | None = None
) -> tuple[dict[str, Source], list[str]]:
    """Opens the splits of a dataset.

    Args:
      name: of the dataset.
      wanted: names of splits; None takes those that can be opened.
      options: of the dataset.
      target: type of the targets.

    Returns:
      The splits by name, and why others of the dataset were left out.

    Raises:
      UserError: one of `wanted` cannot be opened, or none can.
    """
    if wanted:
        return {split: load_source(name, split, target, **options) for split in wanted}, []
    about = card(name)
    found: dict[str, Source] = {}
    skipped, first = [], None
    for split in about.splits if about else _SPLITS:
        try:
            found[split] = load_source(name, split, target, **options)
        except UserError as error:
            first = first or error
            skipped.append(f"{split}: {error}")
    if not found and not about:
        try:
            return {"all": load_source(name, "all", target, **options)}, []
        except UserError:
            pass
    if not found:
        raise first or UserError(f"dataset {name} has no splits")
    return found, skipped


def check(
    sources: Mapping[str, Source],
    workers: int = 0,
    least: int = 2,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, Checked]:
    """Checks the records of several splits of a dataset.

    Args:
      sources: the splits by name.
      workers: number of processes; below 2, all is done in this one.
      least: number of frames that a segment needs.
      progress: called with the number of videos that are done, and of all.
    """
    videos = [(split, records) for split, source in sources.items() for records in by_video(source).values()]
    problems: dict[str, list[Problem]] = {
        split: [Problem("annotation", "", None, text) for text in getattr(source, "problems", ())]
        for split, source in sources.items()
    }
    facts: dict[str, list[tuple[Facts, int]]] = {split: [] for split in sources}
    owners: dict[str, tuple[str, Record]] = {}
    progress(0, len(videos))
    for done, ((split, records), (about, wrong)) in enumerate(
        zip(videos, _probed(videos, workers, least)), 1
    ):
        problems[split] += wrong
        if about:
            facts[split].append((about, len(records)))
            other, first = owners.setdefault(about.digest, (split, records[0]))
            if first is not records[0]:
                text = f"the same content as {first.id} of split {other}"
                kind = "copy" if other == split else "duplicate"
                problems[split].append(Problem(kind, records[0].id, _path(records[0]), text))
        progress(done, len(videos))
    return {
        split: Checked(len(source), source.fingerprint, classes(source), problems[split], facts[split])
        for split, source in sources.items()
    }


def by_video(source: Source) -> dict[Any, list[Record]]:
    """Returns the records that share a video, in the order of the first."""
    videos: dict[Any, list[Record]] = {}
    for i in range(len(source)):
        record = source[i]
        videos.setdefault(record.video, []).append(record)
    return videos


def classes(source: Source) -> dict[str, int]:
    """Returns the number of records of each class by name; empty for targets without classes."""
    counts: collections.Counter[int] = collections.Counter()
    for i in range(len(source)):
        counts.update(labels_of(source[i].target))
    names = source.class_names
    return {name: counts[label] for label, name in enumerate(names)} if counts else {}


def labels_of(target: Any) -> set[int]:
    """Returns the labels in a target."""
    if hasattr(target, "label"):
        return {target.label}
    if hasattr(target, "boxes"):
        return {label for box in target.boxes for label in box.labels}
    if hasattr(target, "labels"):
        return {*target.labels}
    return {s.label for s in getattr(target, "segments", ()) if hasattr(s, "label")}


def _probed(
    videos: Sequence[tuple[str, list[Record]]], workers: int, least: int
) -> Iterator[tuple[Facts | None, list[Problem]]]:
    def probed(i: int) -> tuple[Facts | None, list[Problem]]:
        return probe(videos[i][1], least)

    if workers < 2 or len(videos) < 2 * workers:
        yield from map(probed, range(len(videos)))
        return
    pool = Workers(probed, 0, len(videos), workers, ahead=4)
    try:
        yield from pool
    finally:
        pool.close()


def probe(records: Sequence[Record], least: int) -> tuple[Facts | None, list[Problem]]:
    """Checks a video and the records that share it. Its facts are None if it cannot be read."""
    path = _path(records[0])
    if path is not None and not epath.Path(path).exists():
        return None, [Problem("missing", r.id, path, f"no such file: {path}") for r in records]
    try:
        with open_video(records[0]) as video:
            first = video.frames(np.array([0]))
            video.frames(np.array([video.num_frames - 1]))
            seconds = float(video.times[-1] + 1 / video.fps)
            wrong = [bad for record in records if (bad := _record_problem(record, video, seconds, least))]
            shape = video.num_frames, float(video.fps), seconds, *first.shape[1:3]
        return Facts(*shape, *_content(records[0])), wrong
    except (DecodeError, OSError) as error:
        return None, [Problem("corrupt", r.id, path, str(error)) for r in records]


def _record_problem(record: Record, video: Opened, seconds: float, least: int) -> Problem | None:
    path = _path(record)
    if text := problem(record.target):
        return Problem("segment", record.id, path, text)
    try:
        _, total = span_of(video, record)
    except DecodeError as error:
        return Problem("segment", record.id, path, str(error))
    if total < least:
        return Problem("short", record.id, path, f"{total} frames, fewer than {least}")
    target = record.target
    spans = getattr(target, "moments", ()) or getattr(target, "segments", ())
    end = max([getattr(target, "time", 0.0), *(row[1] for row in spans)])
    if end > seconds + _SLACK:
        text = f"the annotation reaches {end:g} s in a video of {seconds:g} s"
        return Problem("segment", record.id, path, text)
    return None


def open_video(record: Record) -> Opened:
    """Opens the video of a record. Raises `DecodeError` if it cannot be read."""
    return record.video.open() if isinstance(record.video, Opens) else Video(record.encoded())


def _path(record: Record) -> str | None:
    if isinstance(record.video, FrameFolder):
        return record.video.path
    return record.video if isinstance(record.video, str) else None


def _content(record: Record) -> tuple[int, bool, str]:
    """Returns the size of a video's file, whether it has sound, and a hash of its content."""
    digest, size = hashlib.blake2b(digest_size=16), 0
    path = _path(record)
    names = [] if path is None or files.is_remote(path) else [path]
    if isinstance(record.video, FrameFolder):
        names = [os.path.join(path, name) for name in record.video.open().names]
    elif isinstance(record.video, PreparedFrames):
        with record.video.open() as video:
            digest.update(video.frames(np.arange(video.num_frames)).tobytes())
        return 0, False, digest.hexdigest()
    for name in names:
        with open(name, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
    if isinstance(record.video, FrameFolder):
        return size, False, digest.hexdigest()
    source = record.encoded()
    if isinstance(source, bytes):
        digest.update(source)
        size = len(source)
    return size, has_audio(source), digest.hexdigest()


def numbers(checked: Checked) -> dict[str, Any]:
    """Returns statistics of a split, as JSON can represent them."""
    facts = [about for about, _ in checked.facts]

    def spread(values: Sequence[float]) -> dict[str, float]:
        if not len(values):
            return {}
        low, middle, high = np.quantile(values, [0, 0.5, 1]).tolist()
        return {"min": low, "median": middle, "max": high, "mean": float(np.mean(values))}

    counts = [*checked.classes.values()]
    sizes = collections.Counter(f"{about.width}x{about.height}" for about in facts)
    return {
        "records": checked.records,
        "videos": len(facts),
        "unreadable": len({p.path or p.id for p in checked.problems if p.kind in ("missing", "corrupt")}),
        "hours": sum(about.seconds for about in facts) / 3600,
        "gigabytes": sum(about.bytes for about in facts) / 1e9,
        "with_audio": sum(about.audio for about in facts),
        "seconds": spread([about.seconds for about in facts]),
        "frames": spread([about.frames for about in facts]),
        "fps": spread([about.fps for about in facts]),
        "short_side": spread([min(about.width, about.height) for about in facts]),
        "sizes": dict(sizes.most_common()),
        "classes": checked.classes,
        "per_class": spread(counts),
        "fingerprint": checked.fingerprint,
    }
