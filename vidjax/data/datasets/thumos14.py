"""THUMOS14: long sports videos with the times of twenty actions.

Idrees et al., The THUMOS Challenge, arXiv:1604.06182. Models are trained on the validation videos and tested
on the test videos that have times. CLASS_val.txt and CLASS_test.txt have lines "VIDEO  START END" in seconds.
The segments of Ambiguous_val.txt and Ambiguous_test.txt are not read; video_test_0001292 has no others, so
that 212 of the 213 test videos are left. Every CliffDiving is also a Diving. A few segments are after the
end of their video and are listed as problems.
"""

import os

from vidjax.data.annotations import (
    Annotations,
    VideoFolder,
    duration_of,
    locate,
    read_lines,
    span,
)
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import Segment, SegmentsTarget

CARD = Card(
    title="THUMOS14 (2014)",
    paper="arXiv:1604.06182",
    splits={"train": 200, "test": 213},
    classes=20,
    targets=(SegmentsTarget,),
    metric="mean average precision at temporal IoU 0.3, 0.4, 0.5, 0.6 and 0.7, on test",
    layout="BaseballPitch_val.txt, BaseballPitch_test.txt and those of the other 19 classes, as in "
    "TH14_Temporal_annotations_validation.zip and TH14_Temporal_Annotations_Test.zip, and videos named "
    "video_validation_NNNNNNN.mp4 and video_test_NNNNNNN.mp4",
)
CLASSES = (
    "BaseballPitch",
    "BasketballDunk",
    "Billiards",
    "CleanAndJerk",
    "CliffDiving",
    "CricketBowling",
    "CricketShot",
    "Diving",
    "FrisbeeCatch",
    "GolfSwing",
    "HammerThrow",
    "HighJump",
    "JavelinThrow",
    "LongJump",
    "PoleVault",
    "Shotput",
    "SoccerPenalty",
    "TennisSwing",
    "ThrowDiscus",
    "VolleyballSpiking",
)
_SUFFIXES = {"train": "val", "test": "test"}
_WRONG = ("video_test_0000270", "video_test_0001496")


def load(
    split: str,
    path: str | os.PathLike,
    without_wrong: bool = False,
    annotations: str | None = None,
    bad_limit: float = 0.05,
) -> ListSource:
    """Lists the videos of a split.

    Args:
      split: "train" (the validation videos) or "test".
      path: the folder with lists and videos.
      without_wrong: whether to leave out the test videos 270 and 1496, most of whose segments are wrong, as
        many papers do.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of segments that may be malformed or of missing videos.

    Raises:
      UserError: a list is missing, or too many segments cannot be used.
    """
    videos, notes = VideoFolder(path), Annotations("THUMOS14", bad_limit)
    found: dict[str, tuple[str, float]] = {}
    segments: dict[str, set[Segment]] = {}
    for label, name in enumerate(CLASSES):
        file = f"{name}_{_SUFFIXES[split]}.txt"
        # The archive of the test split has its lists three folders deep.
        for where, line in read_lines(locate(annotations or path, file, f"*/{file}", layout=CARD.layout)):
            with notes.line(where):
                id, *times = line.split()
                if without_wrong and id in _WRONG:
                    continue
                if id not in found:
                    video = videos.find(id)
                    found[id] = video, duration_of(video)
                start, end = span(times, found[id][1])
                labels = (label, CLASSES.index("Diving")) if name == "CliffDiving" else (label,)
                segments.setdefault(id, set()).update(Segment(start, end, i) for i in labels)
    records = []
    for id, several in sorted(segments.items()):
        video, duration = found[id]
        records.append(Record(video, SegmentsTarget(tuple(sorted(several)), duration), id))
    return notes.source(records, CLASSES)
