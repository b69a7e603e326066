"""Kinetics: ten-second clips of human actions, one class each.

Kay et al., arXiv:1705.06950 (400 classes); Carreira et al., arXiv:1808.01340 (600), arXiv:1907.06987 and
Smaira et al., arXiv:2010.10864 (700). Many videos are no longer available, so copies differ in size: state
the number of videos and the fingerprint with a result.
"""

import os

from vidjax.data.annotations import Annotations, VideoFolder, index_of, locate, read_table
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError, unknown

CARD = Card(
    title="Kinetics-400, 600, 700 (2017–2020)",
    paper="arXiv:1705.06950, arXiv:1808.01340, arXiv:1907.06987",
    splits={"train": 246_534, "val": 19_907, "test": 38_685},
    classes=400,
    targets=(ClassTarget,),
    metric="top-1 and top-5 accuracy, on val",
    layout="train.csv, val.csv and test.csv (or kinetics*_train.csv, …) with the columns label, youtube_id, "
    "time_start and time_end, and videos named YOUTUBEID_SSSSSS_EEEEEE.mp4 or YOUTUBEID.mp4 in any folders",
)
EDITIONS = (400, 600, 700)


def load(
    split: str,
    path: str | os.PathLike,
    classes: int = 400,
    annotations: str | None = None,
    bad_limit: float = 0.3,
) -> ListSource:
    """Lists the clips of a split.

    Labels are in the alphabetical order of the names of all classes in the training and validation lists.

    Args:
      split: "train", "val" or "test".
      path: the folder with lists and videos.
      classes: 400, 600 or 700, to check that the lists are those of the edition.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing, since many are no longer available.

    Raises:
      UserError: a list is missing or of another edition, or too many videos are missing.
    """
    if split not in CARD.splits:
        raise unknown("split of Kinetics", split, CARD.splits)
    if classes not in EDITIONS:
        raise unknown("edition of Kinetics", str(classes), map(str, EDITIONS))
    tables = {s: _table(annotations or path, s) for s in {split, "train", "val"}}
    names = sorted({row["label"] for s in ("train", "val") for row in tables[s]})
    if len(names) != classes:
        raise UserError(f"the lists in {annotations or path} have {len(names)} classes, not {classes}")
    labels = {name: i for i, name in enumerate(names)}
    videos, notes, records = VideoFolder(path), Annotations(f"Kinetics-{classes}", bad_limit), []
    for row in tables[split]:
        with notes.line(row):
            label, start, end = (
                index_of(row["label"], labels),
                row.number("time_start", 0),
                row.number("time_end", 0),
            )
            id = f"{row['youtube_id']}_{start:06.0f}_{end:06.0f}"
            video = videos.find(f"{row['label']}/{id}", id, row["youtube_id"])
            records.append(Record(video, ClassTarget(label), id))
    return notes.source(records, names)


def _table(folder: str | os.PathLike, split: str) -> list:
    file = locate(folder, f"{split}.csv", f"kinetics*{split}.csv", layout=CARD.layout)
    return list(read_table(file, ("label", "youtube_id", "time_start", "time_end")))
