"""Something-Something v1: crowd-sourced clips of 174 basic interactions with objects, as frames.

Goyal et al., arXiv:1706.04261. Lines of something-something-v1-train.csv and -validation.csv are "ID;class",
and line N of something-something-v1-labels.csv is the class of label N - 1. The frames are ID/00001.jpg, …,
at 12 frames per second.
"""

import os

from vidjax.data.annotations import Annotations, FrameFolders, index_of, locate, read_lines, read_table
from vidjax.data.datasets import Card, ListSource, mirror_by_name
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget

CARD = Card(
    title="Something-Something v1 (2017)",
    paper="arXiv:1706.04261",
    splits={"train": 86_017, "val": 11_522},
    classes=174,
    targets=(ClassTarget,),
    metric="top-1 and top-5 accuracy, on val",
    layout="something-something-v1-labels.csv, -train.csv and -validation.csv, and frames ID/00001.jpg, …, "
    "in one folder",
)
FPS = 12.0


def load(
    split: str, path: str | os.PathLike, annotations: str | None = None, bad_limit: float = 0.0
) -> ListSource:
    """Lists the videos of a split. Mirroring exchanges the classes that are named with left and right.

    Args:
      split: "train" or "val"; the test labels are not published.
      path: the folder with lists and frames.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing.

    Raises:
      UserError: a list is missing, or more videos are missing than allowed.
    """
    return load_frames(CARD, "something-something-v1", split, path, annotations, bad_limit)


def load_frames(
    card: Card,
    prefix: str,
    split: str,
    path: str | os.PathLike,
    annotations: str | None,
    bad_limit: float,
) -> ListSource:
    """Lists the videos of a dataset of this form, whose lists begin with `prefix`; see `load`."""
    title = card.title.rpartition(" ")[0]
    folder, part = annotations or path, split.replace("val", "validation")
    names = [name for _, name in read_lines(locate(folder, f"{prefix}-labels.csv", layout=card.layout))]
    labels = {name: i for i, name in enumerate(names)}
    file = locate(folder, f"{prefix}-{part}.csv", layout=card.layout)
    rows = list(read_table(file, ("id", "class"), header=False, delimiter=";"))
    videos, notes, records = (
        FrameFolders(path, (r.cells["id"] for r in rows), FPS),
        Annotations(title, bad_limit),
        [],
    )
    for row in rows:
        with notes.line(row):
            target = ClassTarget(index_of(row["class"], labels))
            records.append(Record(videos.find(row["id"]), target, row["id"]))
    return notes.source(records, names, directional=True, mirror=mirror_by_name(names))
