"""MSRVTT-QA: questions about the videos of MSR-VTT, made from their captions, with answers of one word.

Xu et al., Video Question Answering via Gradually Refined Attention over Appearance and Motion, ACM MM 2017.
train_qa.json is a list of {"id": 0, "video_id": 0, "question": "what is ...?", "answer": "couch"}.
"""

import os

from vidjax.data.annotations import Annotations, VideoFolder, locate, read_objects
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import QuestionTarget

CARD = Card(
    title="MSRVTT-QA (2017)",
    paper="Xu et al., ACM MM 2017",
    splits={"train": 158_581, "val": 12_278, "test": 72_821},
    classes=0,
    targets=(QuestionTarget,),
    metric="accuracy of the answers, on test",
    layout="train_qa.json, val_qa.json, test_qa.json, and videos named videoN.mp4",
)


def load(
    split: str, path: str | os.PathLike, annotations: str | None = None, bad_limit: float = 0.05
) -> ListSource:
    """Lists the questions of a split.

    Args:
      split: "train", "val" or "test".
      path: the folder with lists and videos.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of questions that may be malformed or of missing videos.

    Raises:
      UserError: a list is missing, or too many questions cannot be used.
    """
    file = locate(annotations or path, f"{split}_qa.json", layout=CARD.layout)
    videos, notes, records = VideoFolder(path), Annotations("MSRVTT-QA", bad_limit), []
    for _, row in read_objects(file):
        with notes.line(row):
            name = f"video{row.text('video_id')}"
            target = QuestionTarget(row.text("question"), row.text("answer"))
            records.append(Record(videos.find(name), target, f"{name}_{row.text('id')}", group=name))
    return notes.source(records)
