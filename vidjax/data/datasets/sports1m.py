"""Sports-1M: a million YouTube videos of 487 sports, labeled automatically.

Karpathy et al., Large-scale Video Classification with Convolutional Neural Networks, CVPR 2014. Lines of
train_partition.txt and test_partition.txt are "https://www.youtube.com/watch?v=YOUTUBEID 168,169", with one
or more labels, and line N of labels.txt is the class of label N - 1.
"""

import os
import re

from vidjax.data.annotations import Annotations, BadLine, VideoFolder, locate, read_lines
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget, MultiLabelTarget

CARD = Card(
    title="Sports-1M (2014)",
    paper="Karpathy et al., CVPR 2014",
    splits={"train": None, "test": None},
    classes=487,
    targets=(ClassTarget, MultiLabelTarget),
    metric="hit@1 and hit@5 of videos, on test",
    layout="labels.txt, train_partition.txt and test_partition.txt, and videos YOUTUBEID.mp4 in any folders",
)


def load(
    split: str,
    path: str | os.PathLike,
    target: type = ClassTarget,
    annotations: str | None = None,
    bad_limit: float = 0.5,
) -> ListSource:
    """Lists the videos of a split.

    Args:
      split: "train" or "test".
      path: the folder with lists and videos.
      target: `ClassTarget`, the first label of a video, or `MultiLabelTarget`, all of them.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing, since many are no longer available.

    Raises:
      UserError: a list is missing, or more videos are missing than allowed.
    """
    folder = annotations or path
    names = [name for _, name in read_lines(locate(folder, "labels.txt", layout=CARD.layout))]
    videos, notes, records = VideoFolder(path), Annotations("Sports-1M", bad_limit), []
    for where, line in read_lines(locate(folder, f"{split}_partition.txt", layout=CARD.layout)):
        with notes.line(where):
            parts = re.fullmatch(r"\S*[?&]v=([\w-]+)\S*\s+(\d+(?:,\d+)*)", line)
            labels = [int(label) for label in parts[2].split(",")] if parts else []
            if not labels or max(labels) >= len(names):
                raise BadLine(f"'{line}' is not the address of a video and labels below {len(names)}")
            which = (
                ClassTarget(labels[0])
                if target is ClassTarget
                else MultiLabelTarget(tuple(sorted({*labels})))
            )
            records.append(Record(videos.find(parts[1]), which, parts[1]))
    return notes.source(records, names)
