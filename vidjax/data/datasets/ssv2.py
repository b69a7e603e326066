"""Something-Something v2: crowd-sourced clips of 174 basic interactions with objects.

Goyal et al., arXiv:1706.04261, in the second release of 2018. labels.json maps the text of a class to the
number of its label, as a string; train.json and validation.json are lists of {"id", "label", "template",
"placeholders"}, where the template is the text with [brackets] around what stands for an object;
test-answers.csv has lines "ID;text". Earlier archives call the files something-something-v2-labels.json, ….
"""

import os

from vidjax.data.annotations import (
    Annotations,
    VideoFolder,
    index_of,
    locate,
    read_json,
    read_objects,
    read_table,
)
from vidjax.data.datasets import Card, ListSource, mirror_by_name
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError

CARD = Card(
    title="Something-Something v2 (2018)",
    paper="arXiv:1706.04261",
    splits={"train": 168_913, "val": 24_777, "test": 27_157},
    classes=174,
    targets=(ClassTarget,),
    metric="top-1 and top-5 accuracy, on val",
    layout="labels.json, train.json, validation.json and, for the split test, test-answers.csv (or "
    "something-something-v2-labels.json, …), and videos ID.webm in any folder",
)


def load(
    split: str, path: str | os.PathLike, annotations: str | None = None, bad_limit: float = 0.0
) -> ListSource:
    """Lists the videos of a split. Mirroring exchanges the classes that are named with left and right.

    Args:
      split: "train", "val" or "test".
      path: the folder with lists and videos.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing.

    Raises:
      UserError: a list is missing or malformed, or more videos are missing than allowed.
    """

    def file(name: str) -> os.PathLike:
        return locate(annotations or path, name, f"something-something-v2-{name}", layout=CARD.layout)

    try:
        labels = {text: int(label) for text, label in read_json(file("labels.json")).items()}
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            f"{file('labels.json')} does not map classes to the numbers of their labels"
        ) from None
    if split == "test":
        rows = read_table(file("test-answers.csv"), ("id", "template"), header=False, delimiter=";")
    else:
        rows = (row for _, row in read_objects(file(f"{split.replace('val', 'validation')}.json")))
    videos, notes, records = VideoFolder(path), Annotations("Something-Something v2", bad_limit), []
    for row in rows:
        with notes.line(row):
            label = index_of(row.text("template").replace("[", "").replace("]", ""), labels)
            id = row.text("id")
            records.append(Record(videos.find(f"{id}.webm"), ClassTarget(label), id))
    names = sorted(labels, key=labels.__getitem__)
    return notes.source(records, names, directional=True, mirror=mirror_by_name(names))
