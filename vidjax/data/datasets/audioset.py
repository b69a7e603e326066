"""AudioSet: the sounds of ten-second segments of YouTube videos, several at a time.

Gemmeke et al., Audio Set, ICASSP 2017. balanced_train_segments.csv, unbalanced_train_segments.csv and
eval_segments.csv have three lines of comments and lines `YTID, 30.000, 40.000, "/m/09x0r,/t/dd00088"`: video,
start and end in seconds, and classes. class_labels_indices.csv has index, mid and display_name of each class.
"""

import os

from vidjax.data.annotations import (
    Annotations,
    VideoFolder,
    index_of,
    locate,
    read_table,
)
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import MultiLabelTarget

CARD = Card(
    title="AudioSet (2017)",
    paper="Gemmeke et al., ICASSP 2017",
    splits={"train": 2_063_949, "balanced_train": 22_160, "unbalanced_train": 2_041_789, "eval": 20_371},
    classes=527,
    targets=(MultiLabelTarget,),
    metric="mean average precision over classes, on eval",
    layout="balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv, "
    "class_labels_indices.csv, and videos named YTID.mp4, YTID_30.mp4, YTID_000030.mp4, YTID_30_40.mp4, "
    "YTID_000030_000040.mp4, YTID_30.000_40.000.mp4 or YTID_30000_40000.mp4 for the segment from 30 to 40 s, "
    "also with a Y before YTID",
)


def load(
    split: str,
    path: str | os.PathLike,
    trimmed: bool = True,
    annotations: str | None = None,
    bad_limit: float = 0.3,
) -> ListSource:
    """Lists the segments of a split.

    Args:
      split: "balanced_train", "unbalanced_train", "train" (both) or "eval".
      path: the folder with lists and videos.
      trimmed: whether a file is a segment; otherwise it is the whole video, named YTID.mp4.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing, since many are no longer available.

    Raises:
      UserError: a list is missing, or too many videos are missing.
    """
    lists, videos, notes = annotations or path, VideoFolder(path), Annotations("AudioSet", bad_limit)
    file = locate(lists, "class_labels_indices.csv", layout=CARD.layout)
    classes = list(read_table(file, ("index", "mid", "display_name"), delimiter=","))
    labels = {row["mid"]: i for i, row in enumerate(classes)}
    records = []
    for part in ("balanced_train", "unbalanced_train") if split == "train" else (split,):
        table = locate(lists, f"{part}_segments.csv", layout=CARD.layout)
        for row in read_table(table, ("id", "start", "end", "mids"), header=False, delimiter=","):
            if row.cells["id"].startswith("#"):
                continue
            with notes.line(row):
                id, mids = row["id"], row["mids"].split(",")
                start, end = row.number("start", 0), row.number("end", 0)
                target = MultiLabelTarget(tuple(sorted({index_of(mid.strip(), labels) for mid in mids})))
                if trimmed:
                    records.append(Record(videos.find(*_names(id, start, end)), target, id))
                else:
                    records.append(Record(videos.find(id, f"Y{id}"), target, id, start, end))
    return notes.source(records, tuple(row["display_name"] for row in classes))


def _names(id: str, start: float, end: float) -> list[str]:
    """Returns the names that download scripts give to a segment, without extensions."""
    ends = (
        "",
        f"_{start:.0f}",
        f"_{start:06.0f}",
        f"_{start:.0f}_{end:.0f}",
        f"_{start:06.0f}_{end:06.0f}",
        f"_{start:.3f}_{end:.3f}",
        f"_{1000 * start:.0f}_{1000 * end:.0f}",
    )
    return [prefix + id + e for prefix in ("", "Y") for e in ends]
