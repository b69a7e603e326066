"""Diving48: competitive dives of 48 classes that differ only in their motion.

Li et al., RESOUND: Towards Action Recognition without Representation Bias, ECCV 2018, in the corrected
version 2 of the annotations. Diving48_V2_train.json and Diving48_V2_test.json are lists of {"vid_name",
"label", …}, and Diving48_vocab.json has the take-off, somersaults, twists and position of each label.
"""

import os

from vidjax.data.annotations import Annotations, VideoFolder, locate, read_json, read_objects
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError

CARD = Card(
    title="Diving48 v2 (2020)",
    paper="Li et al., ECCV 2018",
    splits={"train": 15_027, "test": 1_970},
    classes=48,
    targets=(ClassTarget,),
    metric="top-1 accuracy, on test",
    layout="Diving48_vocab.json, Diving48_V2_train.json and Diving48_V2_test.json, and videos NAME.mp4 in "
    "any folder",
)


def load(
    split: str, path: str | os.PathLike, annotations: str | None = None, bad_limit: float = 0.0
) -> ListSource:
    """Lists the videos of a split. A mirrored dive is of the same class.

    Args:
      split: "train" or "test".
      path: the folder with lists and videos.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing.

    Raises:
      UserError: a list is missing or malformed, or more videos are missing than allowed.
    """
    folder = annotations or path
    file = locate(folder, "Diving48_vocab.json", layout=CARD.layout)
    try:
        names = ["+".join(parts) for parts in read_json(file)]
    except TypeError:
        raise UserError(f"{file} is not a list of the parts of each class") from None
    videos, notes, records = VideoFolder(path), Annotations("Diving48", bad_limit), []
    file = locate(folder, f"Diving48_V2_{split}.json", layout=CARD.layout)
    for _, row in read_objects(file):
        with notes.line(row):
            label, id = row.label("label", len(names)), row.text("vid_name")
            records.append(Record(videos.find(f"{id}.mp4"), ClassTarget(label), id))
    return notes.source(records, names)
