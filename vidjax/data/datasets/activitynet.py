"""ActivityNet 1.3: untrimmed videos of human activities, most with one class and its times.

Caba Heilbron et al., ActivityNet, CVPR 2015. `database` of activity_net.v1-3.min.json has for each YouTube ID
the subset, the duration, and annotations {"segment": [start, end], "label": name}, times in seconds.
"""

import contextlib
import os

from vidjax.data.annotations import Annotations, BadLine, VideoFolder, index_of, locate, read_objects, span
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget, Segment, SegmentsTarget

CARD = Card(
    title="ActivityNet 1.3 (2015)",
    paper="Caba Heilbron et al., CVPR 2015",
    splits={"train": 10_024, "val": 4_926, "test": 5_044},
    classes=200,
    targets=(SegmentsTarget, ClassTarget),
    metric="mean average precision at temporal IoU 0.5:0.05:0.95, or top-1 accuracy (ClassTarget), on val",
    layout="activity_net.v1-3.min.json, and videos named v_YOUTUBEID.mp4 or YOUTUBEID.mp4",
)
_SUBSETS = {"train": "training", "val": "validation", "test": "testing"}


def load(
    split: str,
    path: str | os.PathLike,
    trimmed: bool = False,
    annotations: str | None = None,
    target: type | None = None,
    bad_limit: float = 0.3,
) -> ListSource:
    """Lists the videos of a split.

    Labels are in the alphabetical order of the names.

    Args:
      split: "train", "val" or "test", which has no targets.
      path: the folder with lists and videos.
      trimmed: for ClassTarget, whether a sample is an annotated segment instead of a whole video. A whole
        video with several classes is left out.
      annotations: folder with the list; None looks for it below `path`.
      target: segments with their classes, or the class.
      bad_limit: fraction of videos that may be missing, since many are no longer available.

    Raises:
      UserError: the list is missing, or too many videos are missing.
    """
    file = locate(annotations or path, "activity_net.v1-3*.json", layout=CARD.layout)
    database = list(read_objects(file, "database"))
    names: set[str] = set()
    for _, row in database:
        with contextlib.suppress(BadLine):  # listed below
            names |= {part.text("label") for part in row.parts("annotations")}
    labels = {name: i for i, name in enumerate(sorted(names))}
    videos, notes, records = VideoFolder(path), Annotations("ActivityNet", bad_limit), []
    for id, row in database:
        if row.cells.get("subset") != _SUBSETS[split]:
            continue
        with notes.line(row):
            video, duration, segments = videos.find(f"v_{id}", id), row.number("duration", 0), []
            for part in row.parts("annotations"):
                with notes.part(part):
                    label = index_of(part.text("label"), labels)
                    segments.append(Segment(*span(part["segment"], duration), label))
            if split == "test":
                records.append(Record(video, None, id))
            elif target is not ClassTarget:
                records.append(Record(video, SegmentsTarget(tuple(segments), duration), id))
            elif trimmed:
                for i, (start, end, label) in enumerate(segments):
                    records.append(Record(video, ClassTarget(label), f"{id}_{i}", start, end, group=id))
            else:
                if len(classes := {s.label for s in segments}) != 1:
                    raise BadLine(f"{len(classes)} classes, not one")
                records.append(Record(video, ClassTarget(*classes), id))
    return notes.source(records, sorted(names))
