"""Kinetics: ten-second clips of human actions, one class each.

Kay et al., arXiv:1705.06950 (400 classes); Carreira et al., arXiv:1808.01340 (600), arXiv:1907.06987 and
Smaira et al., arXiv:2010.10864 (700). Kinetics-710 merges the three: Li et al., UniFormerV2,
arXiv:2211.09552, appendix E, with the classes that VideoMAE V2 publishes in k710_identical_label_merge.json.
Many videos are no longer available, so copies differ in size: state the number of videos and the fingerprint
with a result.
"""

import os

from vidjax.data.annotations import Annotations, Row, VideoFolder, index_of, locate, read_lines, read_table
from vidjax.data.datasets import Card, ListSource
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError, unknown

CARD = Card(
    title="Kinetics-400, 600, 700 (2017–2020), and 710",
    paper="arXiv:1705.06950, arXiv:1808.01340, arXiv:1907.06987; 710: arXiv:2211.09552",
    splits={"train": 246_534, "val": 19_907, "test": 38_685},
    classes=400,
    targets=(ClassTarget,),
    metric="top-1 and top-5 accuracy, on val",
    layout="train.csv, val.csv and test.csv (or validate.csv, kinetics*_train.csv, …) with the columns "
    "label, youtube_id, time_start and time_end, and videos named YOUTUBEID_SSSSSS_EEEEEE.mp4 or "
    "YOUTUBEID.mp4 in any folders; for 710 classes, the lists of each edition in kinetics400/, kinetics600/ "
    "and kinetics700/",
)
EDITIONS = (400, 600, 700)
MERGED = 710
# Names that differ between the editions, and what they are called in Kinetics-710.
_SAME = {
    "balloon blowing": "inflating balloons",
    "changing wheel": "changing wheel (not on bike)",
    "cooking sausages": "cooking sausages (not on barbeque)",
    "drinking": "sipping cup",
    "dying hair": "dyeing hair",
    "garbage collecting": "person collecting garbage",
    "hugging": "hugging (not baby)",
    "making bed": "making the bed",
    "opening bottle": "opening bottle (not wine)",
    "passing american football (not in game)": "passing American football (not in game)",
    "picking fruit": "picking apples",
    "skiing (not slalom or crosscountry)": "skiing mono",
    "sniffing": "smelling feet",
    "throwing ball": "throwing ball (not baseball or American football)",
    "tying tie": "tying necktie",
}


def load(
    split: str,
    path: str | os.PathLike,
    classes: int = 400,
    annotations: str | None = None,
    label_map: str | None = None,
    bad_limit: float = 0.3,
) -> ListSource:
    """Lists the clips of a split.

    Labels are in the alphabetical order of the names of all classes in the training and validation lists.
    With 710 classes, a split is that of all editions: of a YouTube video in several of them, the clip of the
    first is kept, and videos in the validation list of any edition are removed from training.

    Args:
      split: "train", "val" or "test".
      path: the folder with lists and videos.
      classes: 400, 600, 700 or 710, to check that the lists are those of the edition.
      annotations: folder with the lists; None looks for them below `path`.
      label_map: name of a file beside the lists with the class names in the order of their labels, one per
        line, for pretrained classifiers of another order; None orders them alphabetically.
      bad_limit: fraction of videos that may be missing, since many are no longer available.

    Raises:
      UserError: a list is missing or of another edition, or too many videos are missing.
    """
    if classes not in (*EDITIONS, MERGED):
        raise unknown("edition of Kinetics", str(classes), map(str, (*EDITIONS, MERGED)))
    folder, same = annotations or path, _SAME if classes == MERGED else {}
    parts = [f"*{edition}*/" for edition in EDITIONS] if classes == MERGED else [""]
    tables = {s: [row for part in parts for row in _table(folder, part, s)] for s in {split, "train", "val"}}
    found = {row.cells["label"] for s in ("train", "val") for row in tables[s] if not row.wrong}
    names = sorted({same.get(name, name) for name in found})
    if len(names) != classes:
        raise UserError(f"the lists in {folder} have {len(names)} classes, not {classes}")
    if label_map:
        file = locate(folder, label_map, layout="the file of data.options.label_map")
        ordered = [same.get(name, name) for _, name in read_lines(file)]
        if sorted(ordered) != names:
            odd = min({*ordered} ^ {*names}, default="a class listed twice")
            raise UserError(f"{file} does not have the classes of the lists in {folder}: see '{odd}'")
        names = ordered
    labels = {name: i for i, name in enumerate(names)}
    held_out = {row.cells["youtube_id"] for row in tables["val"]} if split == "train" and same else set()
    videos, notes, records = VideoFolder(path), Annotations(f"Kinetics-{classes}", bad_limit), []
    for row in tables[split]:
        if row.cells["youtube_id"] in held_out:
            continue
        with notes.line(row):
            label = index_of(same.get(row["label"], row["label"]), labels)
            start, end = row.number("time_start", 0), row.number("time_end", 0)
            id = f"{row['youtube_id']}_{start:06.0f}_{end:06.0f}"
            video = videos.find(f"{row['label']}/{id}", id, row["youtube_id"])
            records.append(Record(video, ClassTarget(label), id))
            if same:
                held_out.add(row["youtube_id"])
    return notes.source(records, names)


def _table(folder: str | os.PathLike, part: str, split: str) -> list[Row]:
    """Returns the list of a split in the folders that match `part`."""
    names = [f"{split}.csv", f"kinetics*{split}.csv"]
    if split == "val":
        names += ["validate.csv", "kinetics*validate.csv"]
    names = [f"{part}{below}{name}" for name in names for below in (("", "*/") if part else ("",))]
    file = locate(folder, *names, layout=CARD.layout)
    return list(read_table(file, ("label", "youtube_id", "time_start", "time_end")))
