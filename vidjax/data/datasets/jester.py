"""Jester: crowd-sourced clips of 27 hand gestures in front of a camera, as frames.

Materzynska et al., The Jester Dataset, ICCV Workshops 2019. The lists jester-v1-*.csv and the frames are in
the form of Something-Something v1, see `ssv1`.
"""

import os

from vidjax.data.datasets import Card, ListSource, ssv1
from vidjax.data.targets import ClassTarget

CARD = Card(
    title="Jester (2019)",
    paper="Materzynska et al., ICCV Workshops 2019",
    splits={"train": 118_562, "val": 14_787},
    classes=27,
    targets=(ClassTarget,),
    metric="top-1 accuracy, on val",
    layout="jester-v1-labels.csv, -train.csv and -validation.csv, and frames ID/00001.jpg, …, in one folder",
)


def load(
    split: str, path: str | os.PathLike, annotations: str | None = None, bad_limit: float = 0.0
) -> ListSource:
    """Lists the videos of a split. Mirroring exchanges the classes that are named with left and right.

    Args:
      split: "train" or "val"; the test labels are not published.
      path: the folder with lists and frames.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing.

    Raises:
      UserError: a list is missing, or more videos are missing than allowed.
    """
    return ssv1.load_frames(CARD, "jester-v1", split, path, annotations, bad_limit)
