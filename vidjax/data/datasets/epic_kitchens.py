"""EPIC-Kitchens-100: actions in egocentric videos of kitchens, as pairs of a verb and a noun.

Damen et al., arXiv:2006.13256. EPIC_100_train.csv and EPIC_100_validation.csv have a line per action with
narration_id, video_id, start_timestamp and stop_timestamp (HH:MM:SS.ss), verb_class and noun_class;
EPIC_100_verb_classes.csv and EPIC_100_noun_classes.csv have the id and key of each class.
"""

import contextlib
import itertools
import os

from vidjax.data.annotations import Annotations, BadLine, Row, VideoFolder, locate, number, read_table
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError, unknown

CARD = Card(
    title="EPIC-Kitchens-100 (2020)",
    paper="arXiv:2006.13256",
    splits={"train": 67_217, "val": 9_668},
    classes=3_806,
    targets=(ClassTarget,),
    metric="top-1 accuracy of actions, verbs (97) and nouns (300), on val",
    layout="EPIC_100_train.csv, EPIC_100_validation.csv, EPIC_100_verb_classes.csv and "
    "EPIC_100_noun_classes.csv, and videos VIDEO.MP4, such as P01_01.MP4, in any folders",
)
_COLUMNS = ("narration_id", "video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class")
LABELS = ("action", "verb", "noun")


def load(
    split: str,
    path: str | os.PathLike,
    label: str = "action",
    annotations: str | None = None,
    bad_limit: float = 0.0,
) -> ListSource:
    """Lists the actions of a split, which are segments of videos.

    Args:
      split: "train" or "val"; the test labels are not published.
      path: the folder with lists and videos.
      label: what is predicted: the "verb", the "noun", or the "action", a pair of verb and noun that is in
        the training or validation list; pairs are ordered by the numbers of verb and noun.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of actions whose video may be missing.

    Raises:
      UserError: a list is missing or malformed, or more videos are missing than allowed.
    """
    if label not in LABELS:
        raise unknown("label of EPIC-Kitchens-100", label, LABELS)
    folder = annotations or path
    verbs, nouns = (_classes(folder, kind) for kind in ("verb", "noun"))
    tables = {
        each: list(read_table(locate(folder, f"EPIC_100_{name}.csv", layout=CARD.layout), _COLUMNS))
        for each, name in (("train", "train"), ("val", "validation"))
    }

    def classes(row: Row) -> tuple[int, int]:
        """Returns the verb and noun of a line. Raises `BadLine`."""
        return row.label("verb_class", len(verbs)), row.label("noun_class", len(nouns))

    pairs = set()
    for row in itertools.chain.from_iterable(tables.values()):
        with contextlib.suppress(BadLine):  # reported below
            pairs.add(classes(row))
    actions = {pair: i for i, pair in enumerate(sorted(pairs))}
    names = {"verb": verbs, "noun": nouns, "action": [f"{verbs[v]} {nouns[n]}" for v, n in actions]}
    videos, notes, records = VideoFolder(path), Annotations("EPIC-Kitchens-100", bad_limit), []
    for row in tables[split]:
        with notes.line(row):
            verb, noun = classes(row)
            start, end = (_seconds(row[f"{which}_timestamp"]) for which in ("start", "stop"))
            if end <= start:
                raise BadLine(f"stop_timestamp {row['stop_timestamp']} is not after the start")
            target = ClassTarget({"verb": verb, "noun": noun, "action": actions[verb, noun]}[label])
            video, id = row["video_id"], row["narration_id"]
            records.append(Record(videos.find(f"{video}.MP4"), target, id, start, end, video))
    return notes.source(records, names[label])


def _classes(folder: str | os.PathLike, kind: str) -> list[str]:
    """Returns the names of the verbs or nouns in the order of their labels."""
    file = locate(folder, f"EPIC_100_{kind}_classes.csv", f"EPIC_100_{kind}_classes*.csv", layout=CARD.layout)
    names = {row.cells["id"]: row.cells["key"] for row in read_table(file, ("id", "key"))}
    if {*names} != {str(i) for i in range(len(names))}:
        raise UserError(f"{file} does not have the classes 0, 1, 2, … in its column 'id'")
    return [names[str(i)] for i in range(len(names))]


def _seconds(cell: str) -> float:
    """Returns HH:MM:SS.ss in seconds. Raises `BadLine` if it is malformed."""
    parts = cell.split(":")
    if len(parts) != 3:
        raise BadLine(f"'{cell}' is not a time HH:MM:SS.ss")
    hours, minutes, seconds = (number(part, "time", 0) for part in parts)
    return 3600 * hours + 60 * minutes + seconds
