"""Targets of records: what a task learns to predict, in the units of the dataset.

Times are seconds from the first frame of the video file, boxes are (x1, y1, x2, y2) in pixels of the decoded
frame unless stated otherwise, and labels are indices into the class names of the dataset. A target is small
and can be pickled; data of the size of a video is given by a reference that is read on demand.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from vidjax.data.decode import DecodeError
from vidjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ClassTarget:
    """A single class per video."""

    label: int


@dataclasses.dataclass(frozen=True)
class MultiLabelTarget:
    """Any number of classes per video, in ascending order."""

    labels: tuple[int, ...]


class Segment(NamedTuple):
    """A class between two times in seconds."""

    start: float
    end: float
    label: int


@dataclasses.dataclass(frozen=True)
class SegmentsTarget:
    """Classes with start and end times, which may overlap, and the duration of the video in seconds."""

    segments: tuple[Segment, ...]
    duration: float


@dataclasses.dataclass(frozen=True)
class TextTarget:
    """Reference texts of a video, all of them true."""

    texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DenseTextTarget:
    """Reference texts of segments, and the duration of the video in seconds.

    Attributes:
      segments: (start, end, texts), times in seconds.
      duration: seconds.
    """

    segments: tuple[tuple[float, float, tuple[str, ...]], ...]
    duration: float


@dataclasses.dataclass(frozen=True)
class QuestionTarget:
    """A question about a video and its answer; `options` are the choices, empty for an open question."""

    question: str
    answer: str
    options: tuple[str, ...] = ()
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class MomentsTarget:
    """A text query, the moments (start, end) when it is true, and the duration of the video, in seconds."""

    query: str
    moments: tuple[tuple[float, float], ...]
    duration: float


class Box(NamedTuple):
    """An object in one frame.

    Attributes:
      box: (x1, y1, x2, y2) as fractions of the frame's width and height, as AVA has them.
      labels: its classes, in ascending order.
      identity: number of the object in the video; None if it is unknown.
    """

    box: tuple[float, float, float, float]
    labels: tuple[int, ...]
    identity: int | None = None


@dataclasses.dataclass(frozen=True)
class BoxesTarget:
    """The objects of the frame at `time` in seconds; none is a frame without objects."""

    time: float
    boxes: tuple[Box, ...]


class Track(NamedTuple):
    """An object over time.

    Attributes:
      label: class of the object.
      times: seconds, float64 [n].
      boxes: pixels, float64 [n, 4].
      actions: whether the object does each of K actions, bool [n, K].
      visible: share of the object that is neither hidden by others nor transparent, float64 [n].
    """

    label: int
    times: np.ndarray
    boxes: np.ndarray
    actions: np.ndarray
    visible: np.ndarray


class Tracks(Protocol):
    """A reference to the tracks of a video."""

    def read(self) -> tuple[Track, ...]: ...


@dataclasses.dataclass(frozen=True)
class TracksTarget:
    """The objects of a video, with a box and actions at every frame."""

    tracks: Tracks

    def read(self, frame: tuple[int, int]) -> tuple[Track, ...]:
        """Returns the tracks.

        Args:
          frame: height and width of the decoded frames.

        Raises:
          DecodeError: a box is not within the frame, or has no area.
        """
        tracks = self.tracks.read()
        for track in tracks:
            if wrong := box_problem(track.boxes, frame):
                raise DecodeError(wrong)
        return tracks


class Motion(Protocol):
    """A reference to the optical flow of a video."""

    def read(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns flow and occlusion between frames.

        Args:
          times: times of the frames in seconds, [T].

        Returns:
          Displacement (x, y) from each frame to the next in pixels, float32 [T - 1, H, W, 2], and whether a
          pixel is hidden in the next frame, bool [T - 1, H, W].
        """
        ...


@dataclasses.dataclass(frozen=True)
class FlowTarget:
    """The optical flow between the frames of a video."""

    motion: Motion


class Sources(Protocol):
    """A reference to the sounds that a video's sound is mixed from."""

    def read(self, rate: int) -> np.ndarray:
        """Returns the waveform of each source at `rate` Hz, float32 [sources, N]; their sum is the sound."""
        ...


@dataclasses.dataclass(frozen=True)
class AudioTarget:
    """The sound of each source of a video, and the label of each source."""

    sources: Sources
    labels: tuple[int, ...]


_SLACK = 1e-3  # seconds, or a share of the frame; annotations are often rounded

Target = Any  # one of the dataclasses of this module

# Those that consist of numbers and text.
TARGETS = {
    t.__name__: t
    for t in (
        ClassTarget,
        MultiLabelTarget,
        SegmentsTarget,
        TextTarget,
        DenseTextTarget,
        QuestionTarget,
        MomentsTarget,
        BoxesTarget,
    )
}
_PARTS: dict[type, dict[str, type]] = {SegmentsTarget: {"segments": Segment}, BoxesTarget: {"boxes": Box}}


def problem(target: Target) -> str | None:
    """Says what is wrong with a target whatever the task.

    That is times outside the video, boxes outside the frame, or empty text.
    """
    if isinstance(target, BoxesTarget):
        return box_problem(np.array([box.box for box in target.boxes]), (1, 1))
    spans = target.moments if isinstance(target, MomentsTarget) else getattr(target, "segments", ())
    for start, end, *_ in spans:
        if not 0 <= start < end <= target.duration + _SLACK:
            return f"the segment from {start:g} to {end:g} s is not within the video of {target.duration:g} s"
    texts: tuple[str, ...] = ()
    if isinstance(target, TextTarget):
        texts = target.texts or ("",)
    elif isinstance(target, DenseTextTarget):
        texts = tuple(text for _, _, several in target.segments for text in several or ("",))
    elif isinstance(target, QuestionTarget):
        texts = target.question, target.answer, *target.options
        if target.options and target.answer not in target.options:
            return f"the answer '{target.answer}' is not one of the options"
    elif isinstance(target, MomentsTarget):
        texts = (target.query,)
    return None if all(text.strip() for text in texts) else "a text is empty"


def box_problem(boxes: np.ndarray, frame: tuple[int, int]) -> str | None:
    """Says which of the boxes [n, 4] is not within a frame of (height, width), or has no area."""
    height, width = frame
    for x1, y1, x2, y2 in boxes.reshape(-1, 4).tolist():
        if not (-_SLACK * width <= x1 < x2 <= (1 + _SLACK) * width) or not (
            -_SLACK * height <= y1 < y2 <= (1 + _SLACK) * height
        ):
            return f"the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) is not within the frame of {width}x{height}"
    return None


def relabeled(target: Target, labels: Sequence[int]) -> Target:
    """Replaces label i of a target by `labels[i]`; a label without one becomes -1, which no class has.

    Raises:
      UserError: the labels of tracks would change, which are known only once they are read.
    """

    def new(label: int) -> int:
        return labels[label] if 0 <= label < len(labels) else -1

    match target:
        case ClassTarget(label):
            return ClassTarget(new(label))
        case MultiLabelTarget(several):
            return MultiLabelTarget(tuple(sorted(map(new, several))))
        case SegmentsTarget(segments, duration):
            return SegmentsTarget(tuple(s._replace(label=new(s.label)) for s in segments), duration)
        case BoxesTarget(time, boxes):
            rows = (box._replace(labels=tuple(sorted(map(new, box.labels)))) for box in boxes)
            return BoxesTarget(time, tuple(rows))
        case AudioTarget(sources, several):
            return AudioTarget(sources, tuple(map(new, several)))
        case TracksTarget() if [*labels] != [*range(len(labels))]:
            raise UserError("tracks of datasets with different classes cannot be joined")
    return target


def mirrored(target: Target, mirror: Sequence[int]) -> Target:
    """Returns the target of a horizontally mirrored video, whose class k becomes `mirror[k]`.

    Times, boxes and flow stay in the coordinates of the video; those of the mirrored clip follow from its
    geometry. The actions of tracks are kept, since they are not labels.

    Raises:
      UserError: the target is a text, which cannot be mirrored.
    """
    match target:
        case TracksTarget(tracks):
            return TracksTarget(_MirroredTracks(tracks, tuple(mirror)))
        case TextTarget() | DenseTextTarget() | QuestionTarget() | MomentsTarget():
            kind = type(target).__name__
            raise UserError(f"targets of type {kind} have no labels to mirror: set data.flip=False")
    return relabeled(target, mirror)


@dataclasses.dataclass(frozen=True)
class _MirroredTracks:
    tracks: Tracks
    mirror: tuple[int, ...]

    def read(self) -> tuple[Track, ...]:
        return tuple(t._replace(label=self.mirror[t.label]) for t in self.tracks.read())


def to_json(target: Target) -> dict[str, Any]:
    """Converts a target to a dict that JSON can represent; `from_json` is the inverse.

    Raises:
      UserError: the target refers to data that JSON cannot hold, such as optical flow.
    """
    if type(target).__name__ not in TARGETS:
        raise UserError(f"targets of type {type(target).__name__} cannot be stored in a file")
    return {"type": type(target).__name__, **dataclasses.asdict(target)}


def from_json(row: dict[str, Any]) -> Target:
    """Restores a target from `to_json`. Raises `UserError` if the type is unknown or a field is missing."""
    try:
        cls = TARGETS[row["type"]]
        fields = {k: _tuples(v) for k, v in row.items() if k != "type"}
        for key, kind in _PARTS.get(cls, {}).items():
            fields[key] = tuple(kind(*part) for part in fields[key])
        return cls(**fields)
    except (KeyError, TypeError) as e:
        raise UserError(f"unknown target {row}: {e}") from None


def _tuples(value: Any) -> Any:
    """Converts the lists of JSON to tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
