"""UCF101: videos of 101 human actions from YouTube, in 25 groups of similar origin per class.

Soomro et al., arXiv:1212.0402, with the files of the archive "UCF101TrainTestSplits-RecognitionTask":
classInd.txt has lines "1 ApplyEyeMakeup", trainlist01.txt to trainlist03.txt "CLASS/VIDEO.avi 1", and
testlist01.txt to testlist03.txt "CLASS/VIDEO.avi". The videos of HandstandPushups are called
v_HandStandPushups_….
"""

import os
import re

from vidjax.data.annotations import Annotations, BadLine, VideoFolder, index_of, locate, read_lines
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError, unknown

CARD = Card(
    title="UCF101 (2012)",
    paper="arXiv:1212.0402",
    splits={"train": 9_537, "test": 3_783},
    classes=101,
    targets=(ClassTarget,),
    metric="top-1 accuracy, mean of the three folds",
    layout="classInd.txt, trainlist0K.txt and testlist0K.txt, K = 1, 2, 3, in one folder, and videos "
    "CLASS/v_CLASS_gGG_cCC.avi",
)


def load(
    split: str,
    path: str | os.PathLike,
    fold: int = 1,
    annotations: str | None = None,
    bad_limit: float = 0.0,
) -> ListSource:
    """Lists the videos of a split.

    Args:
      split: "train" or "test".
      path: the folder with lists and videos.
      fold: 1, 2 or 3, which of the three published pairs of lists is used.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing.

    Raises:
      UserError: a list is missing, or more videos are missing than allowed.
    """
    if fold not in (1, 2, 3):
        raise unknown("fold of UCF101", str(fold), "123")
    folder = annotations or path
    file = locate(folder, "classInd.txt", layout=CARD.layout)
    try:
        pairs = (line.split() for _, line in read_lines(file))
        names = [name for _, name in sorted((int(number), name) for number, name in pairs)]
    except ValueError:
        raise UserError(f"{file} does not consist of lines such as '1 ApplyEyeMakeup'") from None
    labels = {name: i for i, name in enumerate(names)}
    videos, notes, records = VideoFolder(path), Annotations(f"UCF101, fold {fold}", bad_limit), []
    for where, line in read_lines(locate(folder, f"{split}list{fold:02}.txt", layout=CARD.layout)):
        with notes.line(where):
            name = line.split()[0]
            label, _, file = name.rpartition("/")
            group = re.fullmatch(r"(v_\w+_g\d+)_c\d+\.\w+", file)
            if not group:
                raise BadLine(f"'{name}' is not CLASS/v_CLASS_gGG_cCC.avi")
            target = ClassTarget(index_of(label, labels))
            records.append(Record(videos.find(name, file), target, name, group=group[1]))
    return notes.source(records, names)
