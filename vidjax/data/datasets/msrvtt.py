"""MSR-VTT: short clips of web videos with twenty captions each.

Xu et al., MSR-VTT, CVPR 2016. train_val_videodatainfo.json and test_videodatainfo.json, or MSRVTT_data.json
with both, have "videos" {"video_id": "video0", "split": "train"} and "sentences" {"video_id", "caption"}.
Retrieval has splits of its own: 1k-A trains on the 9,000 videos of MSRVTT_train.9k.csv, 7k on the 7,010 of
MSRVTT_train.7k.csv, and both test on MSRVTT_JSFUSION_test.csv, 1,000 videos with one caption each (Yu et al.,
arXiv:1808.02559).
"""

import os

from vidjax.data.annotations import (
    Annotations,
    BadLine,
    Row,
    VideoFolder,
    locate,
    read_objects,
    read_table,
)
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import TextTarget
from vidjax.errors import unknown

CARD = Card(
    title="MSR-VTT (2016)",
    paper="Xu et al., CVPR 2016",
    splits={"train": 6_513, "val": 497, "test": 2_990},
    classes=0,
    targets=(TextTarget,),
    metric="CIDEr, METEOR, ROUGE-L and BLEU-4 of captions on test, or recall at 1, 5 and 10 of retrieval on "
    "the test split of 1k-A",
    layout="MSRVTT_data.json, or train_val_videodatainfo.json and test_videodatainfo.json; "
    "MSRVTT_train.9k.csv, MSRVTT_train.7k.csv and MSRVTT_JSFUSION_test.csv for retrieval; "
    "and videos named videoN.mp4",
)
EDITIONS = {
    "full": {"train": "train", "val": "validate", "test": "test"},
    "1k-A": {"train": "MSRVTT_train.9k.csv", "test": "MSRVTT_JSFUSION_test.csv"},
    "7k": {"train": "MSRVTT_train.7k.csv", "test": "MSRVTT_JSFUSION_test.csv"},
}


def load(
    split: str,
    path: str | os.PathLike,
    edition: str = "full",
    annotations: str | None = None,
    bad_limit: float = 0.05,
) -> ListSource:
    """Lists the videos of a split.

    Args:
      split: "train", "val" (of "full" only) or "test".
      path: the folder with lists and videos.
      edition: "full", "1k-A" or "7k"; see above.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of videos that may be missing or without a caption.

    Raises:
      UserError: a list is missing, or too many videos are missing.
    """
    if edition not in EDITIONS:
        raise unknown("edition of MSR-VTT", edition, EDITIONS)
    if split not in EDITIONS[edition]:
        raise unknown(f"split of MSR-VTT {edition}", split, EDITIONS[edition])
    lists, part = annotations or path, EDITIONS[edition][split]
    files = [locate(lists, "MSRVTT_data.json", "train_val_videodatainfo.json", layout=CARD.layout)]
    if files[0].name != "MSRVTT_data.json":
        files.append(locate(lists, "test_videodatainfo.json", layout=CARD.layout))
    rows: list[Row]
    if edition == "full":
        rows = [r for f in files for _, r in read_objects(f, "videos") if r.cells.get("split") == part]
    else:
        rows = list(read_table(locate(lists, part, layout=CARD.layout), ("video_id",)))
    videos, notes, records = VideoFolder(path), Annotations(f"MSR-VTT {edition}", bad_limit), []
    captions: dict[str, list[str]] = {str(row.cells.get("video_id")): [] for row in rows}
    if edition != "full" and split == "test":
        sentences = [(row, "sentence") for row in rows]
    else:
        sentences = [(row, "caption") for file in files for _, row in read_objects(file, "sentences")]
    for row, column in sentences:
        if str(row.cells.get("video_id")) in captions:
            with notes.part(row):
                if not (caption := row.text(column)):
                    raise BadLine("the caption is empty")
                captions.setdefault(row.text("video_id"), []).append(caption)
    for row in rows:
        with notes.line(row):
            id = row.text("video_id")
            records.append(Record(videos.find(id), TextTarget(tuple(captions.get(id, ()))), id))
    return notes.source(records)
