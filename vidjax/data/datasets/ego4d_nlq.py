"""Ego4D natural language queries: when the answer of a question is seen in a first-person video.

Grauman et al., Ego4D, arXiv:2110.07058. nlq_train.json and nlq_val.json: videos > clips > annotations >
language_queries, with `query`, and `clip_start_sec` and `clip_end_sec` within the clip. The videos are those
of the official download of clips, named by `clip_uid`.
"""

import os

from vidjax.data.annotations import Annotations, VideoFolder, locate, read_objects, span
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import MomentsTarget

CARD = Card(
    title="Ego4D NLQ (2022)",
    paper="arXiv:2110.07058",
    splits={"train": None, "val": None},
    classes=0,
    targets=(MomentsTarget,),
    metric="recall at 1 and 5 with temporal IoU 0.3 and 0.5, on val",
    layout="nlq_train.json, nlq_val.json, and clips named CLIP_UID.mp4",
)


def load(
    split: str, path: str | os.PathLike, annotations: str | None = None, bad_limit: float = 0.05
) -> ListSource:
    """Lists the queries of a split.

    Args:
      split: "train" or "val".
      path: the folder with lists and clips.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of queries that may be malformed or of missing clips. Some have no text, or a moment
        of no duration.

    Raises:
      UserError: a list is missing, or too many queries cannot be used.
    """
    file = locate(annotations or path, f"nlq_{split}.json", layout=CARD.layout)
    videos, notes, records = VideoFolder(path), Annotations("Ego4D NLQ", bad_limit), []
    for _, video in read_objects(file, "videos"):
        queries = []
        with notes.part(video):
            queries = [
                (clip, f"{clip.text('clip_uid')}_{annotation.text('annotation_uid')}_{i}", query)
                for clip in video.parts("clips")
                for annotation in clip.parts("annotations")
                for i, query in enumerate(annotation.parts("language_queries"))
            ]
        for clip, id, query in queries:
            with notes.line(query):
                duration = clip.number("video_end_sec") - clip.number("video_start_sec")
                moment = span((query["clip_start_sec"], query["clip_end_sec"]), duration)
                target = MomentsTarget(query.text("query"), (moment,), duration)
                records.append(Record(videos.find(uid := clip.text("clip_uid")), target, id, group=uid))
    return notes.source(records)
