"""Multi-Moments in Time: the videos of Moments in Time with all of their actions.

Monfort et al., arXiv:1911.00232. Lines of trainingSet.csv and validationSet.csv (or .txt) are
"CLASS/VIDEO.mp4,label,label,…", and moments_categories.txt is as in Moments in Time.
"""

import os

from vidjax.data.annotations import Annotations, BadLine, VideoFolder, locate, read_lines
from vidjax.data.datasets import Card, ListSource
from vidjax.data.datasets.moments_in_time import FOLDERS, categories
from vidjax.data.record import Record
from vidjax.data.targets import MultiLabelTarget

CARD = Card(
    title="Multi-Moments in Time (2019)",
    paper="arXiv:1911.00232",
    splits={"train": None, "val": None},
    classes=313,
    targets=(MultiLabelTarget,),
    metric="mAP, on val",
    layout="moments_categories.txt, trainingSet.csv and validationSet.csv, and videos CLASS/VIDEO.mp4",
)


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
    file = locate(folder, f"{part}Set.csv", f"{part}Set.txt", layout=CARD.layout)
    known = {str(label): label for label in range(len(names))}
    videos, notes, records = VideoFolder(path), Annotations("Multi-Moments in Time", bad_limit), []
    for where, line in read_lines(file):
        with notes.line(where):
            name, *cells = (cell.strip() for cell in line.split(","))
            if not cells or not {*cells} <= {*known}:
                raise BadLine(f"'{line}' is not a video and labels below {len(names)}")
            target = MultiLabelTarget(tuple(sorted({known[cell] for cell in cells})))
            records.append(Record(videos.find(f"{part}/{name}", name), target, name))
    return notes.source(records, names)
