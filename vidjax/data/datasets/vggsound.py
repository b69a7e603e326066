"""VGGSound: ten-second clips of YouTube videos whose sound and image show the same thing, one class each.

Chen et al., VGGSound, arXiv:2004.14368. vggsound.csv has no header; its columns are YouTube ID, start in
seconds, label, and split. Labels are in alphabetical order, as in the official code.
"""

import os

from vidjax.data.annotations import Annotations, VideoFolder, index_of, locate, read_table
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget

CARD = Card(
    title="VGGSound (2020)",
    paper="arXiv:2004.14368",
    splits={"train": 183_730, "test": 15_446},
    classes=309,
    targets=(ClassTarget,),
    metric="mean average precision over classes, or top-1 accuracy, on test",
    layout="vggsound.csv, and videos named YOUTUBEID_SSSSSS.mp4, YOUTUBEID_S.mp4 or YOUTUBEID.mp4",
)
_SECONDS = 10  # of a clip


def load(
    split: str,
    path: str | os.PathLike,
    trimmed: bool = True,
    annotations: str | None = None,
    bad_limit: float = 0.3,
) -> ListSource:
    """Lists the clips of a split.

    Args:
      split: "train" or "test".
      path: the folder with list and videos.
      trimmed: whether a file is a clip; otherwise it is the whole video, named YOUTUBEID.mp4.
      annotations: folder with the list; None looks for it below `path`.
      bad_limit: fraction of videos that may be missing, since many are no longer available.

    Raises:
      UserError: the list is missing, or too many videos are missing.
    """
    file = locate(annotations or path, "vggsound.csv", layout=CARD.layout)
    rows = list(read_table(file, ("id", "start", "label", "split"), header=False, delimiter=","))
    names = sorted({row.cells["label"] for row in rows if not row.wrong})
    labels = {name: i for i, name in enumerate(names)}
    videos, notes, records = VideoFolder(path), Annotations("VGGSound", bad_limit), []
    for row in rows:
        if not row.wrong and row["split"] != split:
            continue
        with notes.line(row):
            label, start = index_of(row["label"], labels), row.number("start", 0)
            id = f"{row['id']}_{start:06.0f}"
            if trimmed:
                video = videos.find(id, f"{row['id']}_{start:.0f}", row["id"])
                records.append(Record(video, ClassTarget(label), id))
            else:
                video = videos.find(row["id"])
                records.append(Record(video, ClassTarget(label), id, start, start + _SECONDS))
    return notes.source(records, names)
