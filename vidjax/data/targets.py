"""Targets of records: what a task learns to predict, in the units of the dataset.

Times are seconds from the first frame of the video file, boxes are (x1, y1, x2, y2) in pixels of the decoded
frame, and labels are indices into the class names of the dataset. A target is small and can be pickled; data
of the size of a video is given by a reference that is read on demand.
"""

import dataclasses
from typing import Any, NamedTuple

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


Target = Any  # one of the dataclasses of this module

TARGETS = {t.__name__: t for t in (ClassTarget, MultiLabelTarget, SegmentsTarget)}


def to_json(target: Target) -> dict[str, Any]:
    """Converts a target to a dict that JSON can represent; `from_json` is the inverse."""
    return {"type": type(target).__name__, **dataclasses.asdict(target)}


def from_json(row: dict[str, Any]) -> Target:
    """Restores a target from `to_json`. Raises `UserError` if the type is unknown or a field is missing."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k != "type"}
    if "segments" in fields:
        fields["segments"] = tuple(Segment(*s) for s in fields["segments"])
    try:
        return TARGETS[row["type"]](**fields)
    except (KeyError, TypeError) as e:
        raise UserError(f"unknown target {row}: {e}") from None
