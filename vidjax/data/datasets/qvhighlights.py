"""QVHighlights: text queries and all moments of a video of at most 150 seconds that they are true of.

Lei et al., QVHighlights, arXiv:2107.09609. Files of the official repository: a line is {"qid", "query",
"vid", "duration", "relevant_windows": [[start, end], ...]}, times in seconds; saliency scores are not read.
The moments of the test split are in highlight_test_with_gt.jsonl, not in highlight_test_release.jsonl.
"""

import json
import os

from vidjax.data.annotations import (
    Annotations,
    BadLine,
    VideoFolder,
    json_row,
    locate,
    read_lines,
    span,
)
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import MomentsTarget

CARD = Card(
    title="QVHighlights (2021)",
    paper="arXiv:2107.09609",
    splits={"train": 7_218, "val": 1_550, "test": 1_542},
    classes=0,
    targets=(MomentsTarget,),
    metric="recall at 1 with temporal IoU 0.5 and 0.7, and mean average precision at 0.5:0.05:0.95, on val",
    layout="highlight_train_release.jsonl, highlight_val_release.jsonl, highlight_test_with_gt.jsonl, "
    "and videos named YOUTUBEID_START_END.mp4, such as bP5KfdFJzC4_660.0_810.0.mp4",
)


def load(
    split: str, path: str | os.PathLike, annotations: str | None = None, bad_limit: float = 0.05
) -> ListSource:
    """Lists the queries of a split.

    Args:
      split: "train", "val" or "test".
      path: the folder with lists and videos.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of queries that may be malformed or of missing videos.

    Raises:
      UserError: a list is missing, or too many queries cannot be used.
    """
    ending = "with_gt" if split == "test" else "release"
    file = locate(annotations or path, f"highlight_{split}_{ending}.jsonl", layout=CARD.layout)
    videos, notes, records = VideoFolder(path), Annotations("QVHighlights", bad_limit), []
    for where, line in read_lines(file):
        with notes.line(where):
            try:
                row = json_row(where, json.loads(line))
            except json.JSONDecodeError as error:
                raise BadLine(f"not JSON ({error.msg})") from None
            id, duration = row.text("vid"), row.number("duration", 0)
            moments = tuple(sorted(span(window, duration) for window in row.listed("relevant_windows")))
            if not moments:
                raise BadLine("there are no moments")
            target = MomentsTarget(row.text("query"), moments, duration)
            records.append(Record(videos.find(id), target, row.text("qid"), group=id))
    return notes.source(records)
