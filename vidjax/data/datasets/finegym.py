"""FineGym: elements of gymnastics routines, in 99 or 288 classes.

Shao et al., arXiv:2004.06704. Lines of gym99_train_element_v1.1.txt and gym99_val_element.txt are
"YOUTUBEID_E_SSSSSS_EEEEEE_A_SSSS_EEEE label", where E… is an event of the video and A… an element of the
event. finegym_annotation_info_v1.1.json has, for each video and event, the timestamps [[start, end]] of the
event in the video, and "segments", whose timestamps [[start, end], …] of the stages of each element count
from the start of the event. Lines of gym99_categories.txt are "Clabel: 0; set: 1; Glabel: 1; (VT) …".
"""

import os
import re

from vidjax.data.annotations import Annotations, BadLine, VideoFolder, locate, read_json, read_lines
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError, unknown

CARD = Card(
    title="FineGym, Gym99 and Gym288 (2020)",
    paper="arXiv:2004.06704",
    splits={"train": None, "val": None},
    classes=99,
    targets=(ClassTarget,),
    metric="top-1 accuracy and mean per-class accuracy, on val",
    layout="finegym_annotation_info_v1.1.json, gym99_categories.txt, gym99_train_element_v1.1.txt and "
    "gym99_val_element.txt (or gym288_…), and videos YOUTUBEID.mp4, or cut to events or elements and called "
    "YOUTUBEID_E_….mp4 or YOUTUBEID_E_…_A_….mp4, in any folders",
)


def load(
    split: str,
    path: str | os.PathLike,
    classes: int = 99,
    annotations: str | None = None,
    bad_limit: float = 0.1,
) -> ListSource:
    """Lists the elements of a split, which are segments of videos.

    Args:
      split: "train" or "val".
      path: the folder with lists and videos.
      classes: 99 or 288.
      annotations: folder with the lists; None looks for them below `path`.
      bad_limit: fraction of elements whose video may be missing, since some are no longer available.

    Raises:
      UserError: a list is missing or malformed, or more videos are missing than allowed.
    """
    if classes not in (99, 288):
        raise unknown("number of classes of FineGym", str(classes), ("99", "288"))
    folder, name = annotations or path, f"gym{classes}"
    info = ("finegym_annotation_info_v1.1.json", "finegym_annotation_info*.json")
    times = read_json(locate(folder, *info, layout=CARD.layout))
    file = locate(folder, f"{name}_categories.txt", layout=CARD.layout)
    found = (re.fullmatch(r"Clabel:\s*(\d+);.*?Glabel:\s*\d+;\s*(.*)", line) for _, line in read_lines(file))
    names = {match[1]: match[2] for match in found if match}
    if {*names} != {str(i) for i in range(classes)}:
        raise UserError(f"{file} has not {classes} lines such as 'Clabel: 0; set: 1; Glabel: 1; (VT) …'")
    lists = (f"{name}_{split}_element_v1.1.txt", f"{name}_{split}_element*.txt")
    videos, notes, records = VideoFolder(path), Annotations(f"FineGym, Gym{classes}", bad_limit), []
    for where, line in read_lines(locate(folder, *lists, layout=CARD.layout)):
        with notes.line(where):
            parts = re.fullmatch(r"((.+)_(E_\d+_\d+))_(A_\d+_\d+)\s+(\d+)", line)
            if not parts or parts[5] not in names:
                raise BadLine(f"'{line}' is not an element and a label below {classes}")
            event, video, event_id, element_id, label = parts.groups()
            try:
                about = times[video][event_id]
                stages = about["segments"][element_id]["timestamps"]
                begin, start, end = map(float, (about["timestamps"][0][0], stages[0][0], stages[-1][1]))
            except (KeyError, IndexError, TypeError, ValueError):
                raise BadLine(f"no timestamps of {element_id} in {event}") from None
            id = f"{event}_{element_id}"
            file = videos.find(id, event, video)
            stem = os.path.basename(file).rpartition(".")[0]
            offset = {event: 0.0, video: begin}.get(stem)
            segment = (None, None) if offset is None else (offset + start, offset + end)
            records.append(Record(file, ClassTarget(int(label)), id, *segment, group=video))
    return notes.source(records, [names[str(i)] for i in range(classes)])
