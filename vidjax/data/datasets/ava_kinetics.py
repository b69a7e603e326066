"""AVA-Kinetics: clips of Kinetics-700 with the people and actions of AVA in one frame each.

Li et al., arXiv:2005.00214. kinetics_train_v1.0.csv of ava_kinetics_v1_0.tar.gz has lines as AVA, without
persons, and timestamps in seconds of the YouTube video. This is the Kinetics part; for the other, see `ava`.
"""

import math
import os

from vidjax.data.annotations import Annotations, VideoFolder, locate
from vidjax.data.datasets import Card, ListSource
from vidjax.data.datasets.ava import read_actions, read_frames
from vidjax.data.targets import BoxesTarget

CARD = Card(
    title="AVA-Kinetics (2020)",
    paper="arXiv:2005.00214",
    splits={"train": None, "val": None},
    classes=60,
    targets=(BoxesTarget,),
    metric="mean average precision of boxes at IoU 0.5 over the 60 evaluated classes, on val",
    layout="kinetics_train_v1.0.csv, kinetics_val_v1.0.csv, ava_action_list_v2.2.pbtxt, "
    "ava_action_list_v2.2_for_activitynet_2019.pbtxt, and videos named YOUTUBEID_SSSSSS_EEEEEE.mp4",
)
_SECONDS = 10  # of a clip


def load(
    split: str,
    path: str | os.PathLike,
    classes: int = 60,
    annotations: str | None = None,
    bad_limit: float = 0.3,
) -> ListSource:
    """Lists the annotated frames of a split, each with the three seconds around it.

    Args:
      split: "train" or "val".
      path: the folder with lists and videos.
      classes: 60 for the evaluated classes, or 80 for all.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of lines that may be of missing videos, since many are no longer available.

    Raises:
      UserError: a list is missing, or too many videos are missing.
    """
    lists, videos, notes = annotations or path, VideoFolder(path), Annotations("AVA-Kinetics", bad_limit)

    def find(id: str, timestamp: float) -> tuple[str, float]:
        """Returns the clip with the timestamp closest to its middle, and its start, from its file name."""
        first = math.floor(timestamp)
        starts = range(max(first - _SECONDS, 0), first + 1)
        middle = sorted(starts, key=lambda s: abs(timestamp - s - _SECONDS / 2))
        clip = videos.find(*(f"{id}_{s:06d}_{s + _SECONDS:06d}" for s in middle))
        return clip, int(os.path.splitext(clip)[0].rsplit("_", 2)[1])

    file = locate(lists, f"kinetics_{split}_v1.0.csv", layout=CARD.layout)
    actions = read_actions(lists, "2.2", classes)
    records = read_frames(file, None, list(actions), notes, find)
    return notes.source(records, tuple(actions.values()))
