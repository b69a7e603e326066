"""HowTo100M: instructional videos with what is said in them, recognized automatically.

Miech et al., HowTo100M, arXiv:1906.03327. HowTo100M_v1.csv lists the videos, and caption.json (without stop
words) or raw_caption.json has {ID: {"start": [...], "end": [...], "text": [...]}}, times in seconds. The file
is read as a whole: split it if memory is short. Captions overlap, and many have little to do with the video.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping

from vidjax.data.annotations import (
    Annotations,
    BadLine,
    Row,
    VideoFolder,
    duration_of,
    json_row,
    locate,
    number,
    read_json,
    read_table,
)
from vidjax.data.datasets import Card, fingerprint
from vidjax.data.record import Record
from vidjax.data.targets import DenseTextTarget
from vidjax.errors import UserError

CARD = Card(
    title="HowTo100M (2019)",
    paper="arXiv:1906.03327",
    splits={"train": 1_238_911},
    classes=0,
    targets=(DenseTextTarget,),
    metric="none: for pretraining",
    layout="HowTo100M_v1.csv, caption.json or raw_caption.json, and videos named YOUTUBEID.mp4",
)

Caption = tuple[float, float, str]


@dataclasses.dataclass(frozen=True)
class Narrations:
    """The videos of HowTo100M. The duration of a video is read from its file when the record is.

    Attributes:
      videos: ID and path of each video.
      captions: by ID.
    """

    videos: tuple[tuple[str, str], ...]
    captions: Mapping[str, tuple[Caption, ...]]
    problems: tuple[str, ...] = ()

    @property
    def target(self) -> type:
        return DenseTextTarget

    @property
    def class_names(self) -> tuple[str, ...]:
        return ()

    @property
    def directional(self) -> bool:
        return False

    @property
    def mirror(self) -> None:
        return None

    @functools.cached_property
    def fingerprint(self) -> str:
        return fingerprint((id, self.captions[id]) for id, _ in self.videos)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, i: int) -> Record:
        id, video = self.videos[i]
        captions = self.captions[id]
        try:
            duration = duration_of(video)
        except BadLine:  # decoding will fail, too, and is reported
            duration = max(end for _, end, _ in captions)
        segments = tuple((s, min(e, duration), (text,)) for s, e, text in captions if s < duration)
        return Record(video, DenseTextTarget(segments, duration), id)


def load(
    split: str,
    path: str | os.PathLike,
    raw: bool = False,
    annotations: str | None = None,
    bad_limit: float = 0.3,
) -> Narrations:
    """Lists the videos with captions. Captions without text or of no duration are left out.

    Args:
      split: "train".
      path: the folder with lists and videos.
      raw: whether to read raw_caption.json, with stop words, instead of caption.json.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing, since many are no longer available.

    Raises:
      UserError: a list is missing, or too many videos are missing.
    """
    lists, name = annotations or path, "raw_caption.json" if raw else "caption.json"
    table = locate(lists, "HowTo100M_v1.csv", layout=CARD.layout)
    file = locate(lists, name, layout=CARD.layout)
    if not isinstance(spoken := read_json(file), dict):
        raise UserError(f"{file} is not an object with the captions of each video")
    videos, notes, records, captions = VideoFolder(path), Annotations("HowTo100M", bad_limit), [], {}
    for row in read_table(table, ("video_id",), delimiter=","):
        with notes.line(row):
            id = row["video_id"]
            if id not in spoken:
                raise BadLine(f"{name} has no {id}")
            captions[id] = _captions(json_row(id, spoken[id]))
            records.append(Record(videos.find(id), None, id))
    source = notes.source(records)
    return Narrations(tuple((r.id, str(r.video)) for r in source.records), captions, source.problems)


def _captions(row: Row) -> tuple[Caption, ...]:
    columns = starts, ends, texts = [row.listed(column) for column in ("start", "end", "text")]
    if len(set(map(len, columns))) > 1:
        raise BadLine(f"{len(starts)} starts, {len(ends)} ends and {len(texts)} texts of captions")
    captions = []
    for start, end, text in zip(*columns, strict=True):
        first, last = number(start, "start", 0), number(end, "end", 0)
        if first < last and isinstance(text, str) and text.strip():  # a missing text is NaN
            captions.append((first, last, " ".join(text.split())))
    if not captions:
        raise BadLine("there are no captions with text")
    return tuple(captions)
