"""Weizmann: ten actions by nine performers in front of a static background.

Blank et al., Actions as Space-Time Shapes, ICCV 2005; Gorelick et al., PAMI 2007. The videos are called
daria_bend.avi, …; lena runs, skips and walks twice, as in lena_run1.avi and lena_run2.avi.
"""

import os
import re

from vidjax.data.annotations import Annotations, BadLine, VideoFolder
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError, unknown

CLASSES = ("bend", "jack", "jump", "pjump", "run", "side", "skip", "walk", "wave1", "wave2")
CARD = Card(
    title="Weizmann (2005)",
    paper="Blank et al., ICCV 2005",
    splits={"train": None, "test": None},
    classes=len(CLASSES),
    targets=(ClassTarget,),
    metric="top-1 accuracy, mean over the performers left out (93 videos)",
    layout="videos PERFORMER_CLASS.avi in any folders",
)


def load(split: str, path: str | os.PathLike, performer: str = "daria", bad_limit: float = 0.0) -> ListSource:
    """Lists the videos of a split that leaves one performer out.

    Args:
      split: "train", or "test", the videos of `performer`.
      path: the folder of the videos.
      performer: the one who is left out of training.
      bad_limit: fraction of videos that may have other names.

    Raises:
      UserError: there is no such performer, or more videos have other names than allowed.
    """
    videos, notes, records = VideoFolder(path), Annotations("Weizmann", bad_limit), []
    for name in videos.names:
        with notes.line(name):
            stem = os.path.basename(name).rpartition(".")[0]
            if not (found := re.fullmatch(rf"([a-z]+)_({'|'.join(CLASSES)})[12]?", stem)):
                raise BadLine("not called PERFORMER_CLASS, such as daria_bend.avi")
            target = ClassTarget(CLASSES.index(found[2]))
            records.append(Record(videos.find(name), target, found[0], group=found[1]))
    performers = sorted({record.group for record in records})
    if not performers:
        raise UserError(
            f"{videos.root} has no videos that are called PERFORMER_CLASS, such as daria_bend.avi"
        )
    if performer not in performers:
        raise unknown("performer of Weizmann", performer, performers)
    kept = [record for record in records if (record.group == performer) == (split == "test")]
    return notes.source(kept, CLASSES)
