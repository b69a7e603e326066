"""Charades: people acting out everyday activities at home, several at a time.

Sigurdsson et al., Hollywood in Homes, arXiv:1604.01753. Files as in the README of Charades.zip. `actions` is
"c092 11.90 21.20;c147 0.00 12.60": class, start and end in seconds. `descriptions` are separated by ";".
"""

import os

from vidjax.data.annotations import (
    Annotations,
    Row,
    VideoFolder,
    index_of,
    locate,
    read_lines,
    read_table,
    span,
)
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import MultiLabelTarget, Segment, SegmentsTarget, Target, TextTarget

CARD = Card(
    title="Charades (2016)",
    paper="arXiv:1604.01753",
    splits={"train": 7_985, "test": 1_863},
    classes=157,
    targets=(MultiLabelTarget, SegmentsTarget, TextTarget),
    metric="mean average precision over videos, or over 25 frames of each video (SegmentsTarget), on test",
    layout="Charades_v1_train.csv, Charades_v1_test.csv, Charades_v1_classes.txt, and videos named ID.mp4",
)


def load(
    split: str,
    path: str | os.PathLike,
    annotations: str | None = None,
    target: type | None = None,
    bad_limit: float = 0.05,
) -> ListSource:
    """Lists the videos of a split.

    Args:
      split: "train" or "test".
      path: the folder with lists and videos.
      annotations: folder with the lists; None looks for them below `path`.
      target: the actions of a video, also with their times, or its descriptions.
      bad_limit: fraction of videos that may be missing or have malformed annotations.

    Raises:
      UserError: a list is missing, or too many annotations cannot be used.
    """
    lists = annotations or path
    classes = [
        line.split(maxsplit=1)
        for _, line in read_lines(locate(lists, "Charades_v1_classes.txt", layout=CARD.layout))
    ]
    labels = {code: i for i, (code, *_) in enumerate(classes)}
    file = locate(lists, f"Charades_v1_{split}.csv", layout=CARD.layout)
    videos, notes, records = VideoFolder(path), Annotations("Charades", bad_limit), []

    def read(row: Row) -> Target:
        if target is TextTarget:
            return TextTarget(tuple(t.strip() for t in row["descriptions"].split(";") if t.strip()))
        actions = [a.split() for a in row["actions"].split(";") if a.strip()]
        if target is not SegmentsTarget:
            return MultiLabelTarget(tuple(sorted({index_of(code, labels) for code, *_ in actions})))
        duration, segments = row.number("length", 0), []
        for code, *times in actions:
            with notes.part(row):
                segments.append(Segment(*span(times, duration), index_of(code, labels)))
        return SegmentsTarget(tuple(segments), duration)

    for row in read_table(file, ("id", "subject", "descriptions", "actions", "length"), delimiter=","):
        with notes.line(row):
            records.append(Record(videos.find(row["id"]), read(row), row["id"], group=row["subject"]))
    names = () if target is TextTarget else tuple(" ".join(name) for _, *name in classes)
    return notes.source(records, names)
