"""Records, which a dataset provides to the pipeline: one labeled video, or a segment of one."""

import math
from dataclasses import dataclass

from vidjax.data.feature_file import StoredFeatures
from vidjax.errors import UserError


@dataclass(frozen=True)
class Record:
    """One sample of a dataset.

    Attributes:
        video: path of the file, or the encoded file itself as bytes, or where cached features of it are.
        label: class index.
        id: name that is unique in the dataset and stable between runs.
        start, end: seconds; the stretch of the video that counts. None is the video's own start or end.
        group: what must not be split between train and test (performer, source video), if known.

    Raises:
        UserError: where start or end is not finite.
    """

    video: str | bytes | StoredFeatures
    label: int
    id: str
    start: float | None = None
    end: float | None = None
    group: str | None = None

    def __post_init__(self):
        for name, seconds in (("start", self.start), ("end", self.end)):
            if seconds is not None and not math.isfinite(seconds):
                raise UserError(
                    f"{self.id}: {name}={seconds} is not a time in seconds; leave it empty for none"
                )
