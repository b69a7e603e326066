"""Moments in Time: three-second videos of 339 (v1) or 305 (v2) actions by people, animals and objects.

Monfort et al., arXiv:1801.03150. Lines of moments_categories.txt are "class,label", those of trainingSet.csv
and validationSet.csv "CLASS/VIDEO.mp4,class,votes for,votes against".
"""

import os

from vidjax.data.annotations import Annotations, VideoFolder, index_of, locate, read_lines, read_table
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError

CARD = Card(
    title="Moments in Time (2018)",
    paper="arXiv:1801.03150",
    splits={"train": 802_264, "val": 33_900},
    classes=339,
    targets=(ClassTarget,),
    metric="top-1 and top-5 accuracy, on val",
    layout="moments_categories.txt, trainingSet.csv and validationSet.csv, and videos "
    "training/CLASS/VIDEO.mp4 and validation/CLASS/VIDEO.mp4",
)
FOLDERS = {"train": "training", "val": "validation"}


def load(
    split: str, path: str | os.PathLike, annotations: str | None = None, bad_limit: float = 0.01
) -> ListSource:
    """Lists the videos of a split.

    Args:
      split: "train" or "val".
      path: the folder with lists and videos.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing.

    Raises:
      UserError: a list is missing or malformed, or more videos are missing than allowed.
    """
    folder, part = annotations or path, FOLDERS[split]
    names = categories(locate(folder, "moments_categories.txt", layout=CARD.layout))
    labels = {name: i for i, name in enumerate(names)}
    file = locate(folder, f"{part}Set.csv", layout=CARD.layout)
    videos, notes, records = VideoFolder(path), Annotations("Moments in Time", bad_limit), []
    for row in read_table(file, ("video", "class", "for", "against"), header=False, delimiter=","):
        with notes.line(row):
            label = index_of(row["class"], labels)
            records.append(Record(videos.find(f"{part}/{row['video']}"), ClassTarget(label), row["video"]))
    return notes.source(records, names)


def categories(file: os.PathLike) -> list[str]:
    """Returns the class names of moments_categories.txt in the order of their labels.

    Raises:
      UserError: the labels are not 0, 1, 2, ….
    """
    pairs = [line.rpartition(",") for _, line in read_lines(file)]
    names = {label.strip(): name for name, _, label in pairs}
    if {*names} != {str(i) for i in range(len(pairs))}:
        raise UserError(f"{file} does not consist of lines 'class,label' with the labels 0, 1, 2, …")
    return [names[str(i)] for i in range(len(pairs))]
