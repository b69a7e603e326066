"""Targets of records: what a task learns to predict, in the units of the dataset.

Times are seconds from the first frame of the video file, boxes are (x1, y1, x2, y2) in pixels of the decoded
frame, and labels are indices into the class names of the dataset. A target is small and can be pickled; data
of the size of a video is given by a reference that is read on demand.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np

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


_SLACK = 1e-3  # seconds; annotations are often rounded

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
    )
}


def problem(target: Target) -> str | None:
    """Says what is wrong with a target whatever the task: times outside the video, or empty text."""
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
        if cls is SegmentsTarget:
            fields["segments"] = tuple(Segment(*s) for s in fields["segments"])
        return cls(**fields)
    except (KeyError, TypeError) as e:
        raise UserError(f"unknown target {row}: {e}") from None


def _tuples(value: Any) -> Any:
    """Converts the lists of JSON to tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
