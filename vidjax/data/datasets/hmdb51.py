"""HMDB51: clips of 51 human motions from movies and the web.

Kuehne et al., HMDB: a large video database for human motion recognition, ICCV 2011, with the files of the
archive "test_train_splits": CLASS_test_splitK.txt has a line "VIDEO.avi N" for each video of a class, where N
is 1 for training, 2 for testing, and 0 for neither.
"""

import os

from vidjax.data.annotations import Annotations, BadLine, VideoFolder, locate, read_lines
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import unknown

CARD = Card(
    title="HMDB51 (2011)",
    paper="Kuehne et al., ICCV 2011",
    splits={"train": 3_570, "test": 1_530},
    classes=51,
    targets=(ClassTarget,),
    metric="top-1 accuracy, mean of the three folds",
    layout="CLASS_test_splitK.txt, K = 1, 2, 3, for each class, in one folder, and videos CLASS/VIDEO.avi",
)
_USE = {"train": "1", "test": "2"}


def load(
    split: str,
    path: str | os.PathLike,
    fold: int = 1,
    annotations: str | None = None,
    bad_limit: float = 0.0,
) -> ListSource:
    """Lists the videos of a split. Classes are those of the lists, in alphabetical order.

    Args:
      split: "train" or "test".
      path: the folder with lists and videos.
      fold: 1, 2 or 3, which of the three published splits is used.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing.

    Raises:
      UserError: the lists are missing, or more videos are missing than allowed.
    """
    if fold not in (1, 2, 3):
        raise unknown("fold of HMDB51", str(fold), "123")
    suffix = f"_test_split{fold}.txt"
    folder = locate(annotations or path, f"*{suffix}", layout=CARD.layout).parent
    lists = {file.name.removesuffix(suffix): file for file in folder.glob(f"*{suffix}")}
    names = sorted(lists)
    videos, notes, records = VideoFolder(path), Annotations(f"HMDB51, fold {fold}", bad_limit), []
    for label, name in enumerate(names):
        for where, line in read_lines(lists[name]):
            file, _, use = line.rpartition(" ")
            if use in ("0", *_USE.values()) and use != _USE[split]:
                continue
            with notes.line(where):
                if use != _USE[split]:
                    raise BadLine(f"'{line}' does not end in 0, 1 or 2")
                id = f"{name}/{file.strip()}"
                records.append(Record(videos.find(id, file.strip()), ClassTarget(label), id))
    return notes.source(records, names)
