"""The record type that datasets provide to the pipeline: a video, or a segment of one, and its target."""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from etils import epath

from vidjax import files
from vidjax.data.decode import DecodeError
from vidjax.data.frame_folder import FrameFolder
from vidjax.data.targets import Target
from vidjax.errors import UserError


@runtime_checkable
class Stored(Protocol):
    """A reference to an encoded video, cheap to copy to a worker."""

    def read(self) -> bytes:
        """Returns the contents of the file."""
        ...


@runtime_checkable
class Opens(Protocol):
    """A reference to a video that is not simply a file, cheap to copy to a worker."""

    def open(self) -> Any:
        """Returns the frames, or feature rows, with the interface of `Video`."""
        ...


@dataclass(frozen=True)
class Record:
    """One sample of a dataset.

    Attributes:
        video: path of the file, local or on an object store, the contents of the file, or a reference to a
            video, to a folder of frames or to cached features.
        target: what is to be predicted, one of `vidjax.data.targets`; None if it is unknown.
        id: name that is unique in the dataset and stable between runs.
        start, end: the segment of the video in seconds; None is the start or end of the video.
        group: performer or source video, which must not be split between train and test; None if unknown.
        directional: whether this video must not be mirrored; see also `Source.directional`.

    Raises:
        UserError: start or end is not finite.
    """

    video: str | bytes | Stored | Opens
    target: Target
    id: str
    start: float | None = None
    end: float | None = None
    group: str | None = None
    directional: bool = False

    def __post_init__(self):
        for name, seconds in (("start", self.start), ("end", self.end)):
            if seconds is not None and not math.isfinite(seconds):
                raise UserError(
                    f"{self.id}: {name}={seconds} is not a time in seconds; leave it empty for none"
                )

    def encoded(self) -> str | bytes:
        """Returns the path or the contents of the video file; the contents if it is on an object store.

        Raises:
            DecodeError: there is no such file.
        """
        if isinstance(self.video, FrameFolder):
            raise DecodeError(f"{self.id} is a folder of frames, not a video file")
        if isinstance(self.video, Stored):
            return self.video.read()
        if isinstance(self.video, str) and files.is_remote(self.video):
            try:
                return epath.Path(self.video).read_bytes()
            except OSError as e:
                raise DecodeError(f"{self.video}: {e.strerror or e}") from e
        if not isinstance(self.video, str | bytes):
            raise TypeError(f"{self.id} has cached features, not a video")
        return self.video
