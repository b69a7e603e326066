"""ActivityNet Captions: sentences that describe the events of untrimmed videos, with their times.

Krishna et al., Dense-Captioning Events in Videos, arXiv:1705.00754. train.json, val_1.json and val_2.json of
captions.zip have for each video {"duration": seconds, "timestamps": [[start, end], ...], "sentences": [...]}.
val_1 and val_2 are two annotations of the same videos.
"""

import os

from vidjax.data.annotations import Annotations, BadLine, VideoFolder, locate, read_objects, span
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import DenseTextTarget, MomentsTarget

CARD = Card(
    title="ActivityNet Captions (2017)",
    paper="arXiv:1705.00754",
    splits={"train": 10_009, "val_1": 4_917, "val_2": 4_885},
    classes=0,
    targets=(DenseTextTarget, MomentsTarget),
    metric="METEOR and CIDEr at temporal IoU 0.3, 0.5, 0.7, 0.9, on val_1 and val_2; or recall at 1 with "
    "temporal IoU 0.5 and 0.7 (MomentsTarget), on val_2",
    layout="train.json, val_1.json, val_2.json, and videos named v_YOUTUBEID.mp4 or YOUTUBEID.mp4",
)


def load(
    split: str,
    path: str | os.PathLike,
    annotations: str | None = None,
    target: type | None = None,
    bad_limit: float = 0.3,
) -> ListSource:
    """Lists the videos of a split, or its sentences.

    Args:
      split: "train", "val_1" or "val_2".
      path: the folder with lists and videos.
      annotations: folder with the lists; None looks for them below `path`.
      target: all sentences of a video, or one sentence of it per sample (MomentsTarget).
      bad_limit: fraction of videos that may be missing, since many are no longer available.

    Raises:
      UserError: a list is missing, or too many videos are missing.
    """
    file = locate(annotations or path, f"{split}.json", layout=CARD.layout)
    videos, notes, records = VideoFolder(path), Annotations("ActivityNet Captions", bad_limit), []
    for name, row in read_objects(file):
        with notes.line(row):
            id = name.removeprefix("v_")
            duration, video = row.number("duration", 0), videos.find(f"v_{id}", id)
            times, sentences = row.listed("timestamps"), row.listed("sentences")
            if len(times) != len(sentences):
                raise BadLine(f"{len(times)} timestamps for {len(sentences)} sentences")
            events = {}
            for i, (when, sentence) in enumerate(zip(times, sentences, strict=True)):
                with notes.part(row):
                    if not (sentence := " ".join(str(sentence).split())):
                        raise BadLine(f"sentence {i} is empty")
                    events[i] = (*span(when, duration), sentence)
            if target is MomentsTarget:
                for i, (start, end, sentence) in events.items():
                    moments = MomentsTarget(sentence, ((start, end),), duration)
                    records.append(Record(video, moments, f"{id}_{i}", group=id))
            elif events:
                segments = tuple((start, end, (sentence,)) for start, end, sentence in events.values())
                records.append(Record(video, DenseTextTarget(segments, duration), id))
    return notes.source(records)
