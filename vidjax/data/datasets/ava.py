"""AVA Actions: what each person in a movie does, once per second, with boxes.

Gu et al., AVA, arXiv:1705.08421. Files of versions 2.1 and 2.2 as published: a line of ava_train_v2.2.csv is
a video, a timestamp in seconds of the movie, a box (x1, y1, x2, y2) as fractions of the frame, an action,
numbered from 1, and a person. A person with several actions has several lines; a line with only a video and
a timestamp is a frame without people. Frames in ava_train_excluded_timestamps_v2.2.csv are left out, as in
the official evaluation.
"""

import functools
import os
import re
from collections.abc import Callable

from etils import epath

from vidjax.data.annotations import Annotations, BadLine, VideoFolder, locate, read_table, read_text
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import Box, BoxesTarget
from vidjax.errors import UserError, unknown

CARD = Card(
    title="AVA Actions 2.1, 2.2 (2018)",
    paper="arXiv:1705.08421",
    splits={"train": None, "val": None},
    classes=60,
    targets=(BoxesTarget,),
    metric="mean average precision of boxes at IoU 0.5 over the 60 evaluated classes, on val",
    layout="ava_train_v2.2.csv, ava_val_v2.2.csv, ava_train_excluded_timestamps_v2.2.csv, "
    "ava_val_excluded_timestamps_v2.2.csv, ava_action_list_v2.2.pbtxt, "
    "ava_action_list_v2.2_for_activitynet_2019.pbtxt, and videos named YOUTUBEID.mp4, .mkv or .webm",
)
EDITIONS = ("2.1", "2.2")
CONTEXT = 1.5  # seconds on both sides of an annotated frame


def load(
    split: str,
    path: str | os.PathLike,
    edition: str = "2.2",
    classes: int = 60,
    offset: float = 0.0,
    annotations: str | None = None,
    bad_limit: float = 0.05,
) -> ListSource:
    """Lists the annotated frames of a split, each with the three seconds around it.

    Args:
      split: "train" or "val".
      path: the folder with lists and videos.
      edition: "2.1" or "2.2".
      classes: 60 for the evaluated classes, or 80 for all.
      offset: second of the movie at which the video files start: 0 for whole movies, 900 if they were cut to
        the annotated 15 minutes.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of lines that may be malformed or of missing videos.

    Raises:
      UserError: a list is missing, or too many lines cannot be used.
    """
    if edition not in EDITIONS:
        raise unknown("edition of AVA", edition, EDITIONS)
    lists, videos, notes = annotations or path, VideoFolder(path), Annotations(f"AVA {edition}", bad_limit)
    file = locate(lists, f"ava_{split}_v{edition}.csv", layout=CARD.layout)
    excluded = locate(lists, f"ava_{split}_excluded_timestamps_v{edition}.csv", layout=CARD.layout)
    actions = read_actions(lists, edition, classes)
    records = read_frames(file, excluded, list(actions), notes, lambda id, _: (videos.find(id), offset))
    return notes.source(records, tuple(actions.values()))


def read_actions(folder: str | os.PathLike, edition: str, classes: int) -> dict[int, str]:
    """Returns the actions by their numbers in ascending order; labels are positions in this dict."""
    names = {
        60: f"ava_action_list_v{edition}_for_activitynet_*.pbtxt*",
        80: f"ava_action_list_v{edition}.pbtxt*",
    }
    if classes not in names:
        raise unknown("number of classes of AVA", str(classes), map(str, names))
    file = locate(folder, names[classes], layout=CARD.layout)
    # "item {name: ... id: ...}" in version 2.1, "label {name: ... label_id: ... label_type: ...}" in 2.2
    found = re.findall(r'name:\s*"([^"]*)"\s*(?:label_)?id:\s*(\d+)', read_text(file))
    if not found:
        raise UserError(f"{file} lists no actions: it must have lines such as 'name: \"stand\"' and 'id: 12'")
    return dict(sorted((int(number), name) for name, number in found))


def read_frames(
    file: epath.PathLike,
    excluded: epath.PathLike | None,
    actions: list[int],
    notes: Annotations,
    find: Callable[[str, float], tuple[str, float]],
) -> list[Record]:
    """Returns the annotated frames of a table of AVA.

    Args:
      file: the table.
      excluded: table of the frames to leave out.
      actions: the actions to read, in the order of labels; boxes that have only others are left out.
      notes: collects what is wrong.
      find: returns the path of a video, given its ID and the timestamp, and the second of the original video
        at which it starts.
    """
    columns = ("video", "timestamp", "x1", "y1", "x2", "y2", "action", "person")
    find, skip, frames = functools.cache(find), set(), {}
    if excluded is not None:
        for row in read_table(excluded, columns[:2], header=False, delimiter=","):
            with notes.line(row):
                skip.add((row["video"], row.number("timestamp", 0)))
    labels = {action: i for i, action in enumerate(actions)}
    for row in read_table(file, columns, header=False, delimiter=","):
        with notes.line(row):
            key = row["video"], row.number("timestamp", 0)
            if key in skip:
                continue
            video, begin = find(*key)
            if key[1] < begin:
                raise BadLine(f"timestamp {row['timestamp']} is before the start of the video at {begin:g} s")
            box, action, person = None, None, None
            if row["x1"]:
                box = x1, y1, x2, y2 = tuple(row.number(c, 0, 1) for c in columns[2:6])
                if x1 >= x2 or y1 >= y2:
                    raise BadLine(f"the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has no area")
                action = int(row.number("action", 1, 80))
                person = int(row.number("person")) if row["person"] else None
            new = f"{row['video']}_{row['timestamp']}", video, key[1] - begin, {}
            *_, boxes = frames.setdefault(key, new)
            if action in labels:
                boxes.setdefault((box, person), set()).add(labels[action])
    records = []
    for id, video, time, boxes in frames.values():
        target = BoxesTarget(time, tuple(Box(box, tuple(sorted(ls)), i) for (box, i), ls in boxes.items()))
        records.append(Record(video, target, id, max(time - CONTEXT, 0), time + CONTEXT))
    return records
