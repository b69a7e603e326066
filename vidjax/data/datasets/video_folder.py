"""Dataset of video files listed in a CSV file or sorted into class folders.

Class folders may be inside train/, val/ and test/.

load("train", path="weizmann10", csv="clips.csv", test_groups=["shahar", "moshe", "lyova"])
load("val", path="kinetics400", csv="{split}.csv")
load("test", path="my_videos", test_fraction=0.2)
"""

import collections
import functools
import hashlib
import itertools
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging

from vidjax.data.annotations import (
    EXTENSIONS,
    Annotations,
    BadLine,
    Row,
    VideoFolder,
    data_folder,
    hidden,
    read_table,
    text,
    walk,
)
from vidjax.data.datasets import ListSource, mirror_by_name
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError, unknown

SPLITS = ("train", "val", "test")
# Other names of splits, compared case-insensitively.
_ALIASES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
_PROBE = 1 << 16  # bytes; files of equal size that agree on these, read from the middle, count as copies


def load(
    split: str,
    path: str | os.PathLike,
    csv: str | None = None,
    test_groups: Sequence[str] = (),
    val_groups: Sequence[str] = (),
    test_fraction: float | None = None,
    seed: int = 0,
    directional: bool = False,
    mirror: bool = False,
    bad_limit: float = 0.0,
) -> ListSource:
    """Lists the videos of one split. Class names are those of all splits, in alphabetical order.

    Args:
      split: "all", or a split of the data: one of the train/, val/ and test/ folders (also Train/,
        validation/…) or of the CSV files, if there is one per split; otherwise "train" or "test", defined by
        `test_groups` or `test_fraction`.
      path: the folder, absolute or relative to $VIDJAX_DATA (to the working directory if that is not set).
      csv: file in that folder with the columns path and label, and optionally group, start and end (seconds);
        other columns are ignored; see `annotations.read_table`. "{split}.csv" stands for one file per split.
        Labels and groups are stripped of whitespace and normalized to NFC.
      test_groups: groups held out as split "test"; the others are "train".
      val_groups: groups held out as split "val", in addition to `test_groups`.
      test_fraction: fraction of the videos held out as "test", by a hash of their path: the split of a video
        does not depend on the other videos, and all its segments are in the same split.
      seed: seed of the held-out fraction.
      directional: whether mirroring a video can change its class; disables flipping.
      mirror: whether mirroring a video exchanges the classes that are named with left and right (or clockwise
        and counterclockwise), and changes no others; enables flipping.
      bad_limit: fraction of the lines of `csv` that may be malformed or name a missing video.

    Raises:
      UserError: a folder, list, column, class or split is missing or empty, a group or split is unknown,
        more lines cannot be used than allowed, or the classes cannot be mirrored by name.
    """
    root = data_folder(path)
    split, notes = _split_of(split) or split, Annotations(os.fspath(root), bad_limit)
    splits = _read_lists(root, csv, notes) if csv else _read_folders(root)
    rows = [row for name in splits for row in splits[name]]
    notes.check(bool(rows))
    if "all" not in splits:
        if test_groups or val_groups or test_fraction is not None:
            raise UserError(
                f"{root} defines its own splits: remove test_groups, val_groups and test_fraction"
            )
        splits["all"] = rows
    elif test_groups or val_groups:
        splits |= _by_group(root, rows, test_groups, val_groups)
    elif test_fraction is not None:
        splits |= _by_hash(rows, test_fraction, seed)
    elif split in SPLITS:
        raise UserError(
            f"{root} has no split '{split}': set test_groups or test_fraction, or use split 'all'"
        )
    if split not in splits:
        raise unknown(f"split of {root}", split, splits)
    _warn_of_shared_files(root, tuple((k, tuple(v)) for k, v in splits.items() if k != "all"))

    class_names = tuple(sorted({row.label for row in rows}))
    here = {row.label for row in splits[split]}
    if not here:
        raise UserError(f"split '{split}' of {root} has no videos")
    if split == "train" and len(here) < len(class_names):
        raise UserError(f"split 'train' of {root} has no video of class '{min({*class_names} - here)}'")
    labels = {name: i for i, name in enumerate(class_names)}
    records = [
        Record(os.fspath(root / r.path), ClassTarget(labels[r.label]), r.id, r.start, r.end, r.group)
        for r in splits[split]
    ]
    images = mirror_by_name(class_names) if mirror else None
    if mirror and images is None:
        raise UserError(
            f"the classes of {root} cannot be mirrored by name: each one named with left or right needs "
            "another with the same name but for these words; set mirror=False"
        )
    return notes.source(records, class_names, directional or mirror, images)


class _Row(NamedTuple):
    path: str
    label: str
    start: float | None = None
    end: float | None = None
    group: str | None = None

    @property
    def id(self) -> str:
        whole = self.start is None and self.end is None
        return _text(self.path if whole else f"{self.path}#{self.start}-{self.end}")


def _text(name: str) -> str:
    """Returns the name of a file with escapes for bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _label(name: str) -> str:
    return unicodedata.normalize("NFC", text(name).strip())


def _split_of(name: str) -> str | None:
    name = name.lower()
    return name if name in SPLITS else _ALIASES.get(name)


def _read_folders(root: Path) -> dict[str, list[_Row]]:
    """Returns the rows of each split that has a folder, or of "all" without split folders."""
    folders = _folders(root)
    found = [f for f in folders if _split_of(f.name)]
    if not any(
        f.name in SPLITS for f in found
    ):  # with other folders present, "Test" or "training" are class names
        others = [f for f in folders if f not in found]
        if not found or any(True for f in others for _ in walk(f)):
            return {"all": _read_classes(root, root)}
    splits: dict[str, list[_Row]] = {}
    for folder in found:
        split = _split_of(folder.name)
        if split in splits:
            names = " and ".join(f.name for f in found if _split_of(f.name) == split)
            raise UserError(f"{root} has two folders for the split '{split}', {names}: merge them")
        splits[split] = _read_classes(folder, root)
    for folder in folders:
        if folder not in found and (video := next(walk(folder), None)):
            logging.warning("%s is ignored, because %s has a folder for each split", folder / video, root)
    return {split: splits[split] for split in SPLITS if split in splits}


def _read_classes(folder: Path, root: Path) -> list[_Row]:
    """Returns a row for each video, at any depth, in the class folders, sorted by class and path."""
    classes = _folders(folder)
    if not classes:
        raise UserError(f"{folder} has no class folders: make one for each class, or set the option csv")
    rows = []
    for each in classes:
        videos = sorted(each / name for name in walk(each))
        if not videos:
            raise UserError(f"class folder {each} has no videos ({EXTENSIONS})")
        rows += [_Row(f.relative_to(root).as_posix(), _label(each.name)) for f in videos]
    return rows


def _folders(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_dir() and not hidden(f.name))


def _read_lists(root: Path, csv: str, notes: Annotations) -> dict[str, list[_Row]]:
    """Returns the rows of each split's CSV file, or of "all" if there is only one file."""
    videos = VideoFolder(root)
    if "{split}" not in csv:
        return {"all": _read_list(videos, root / csv, notes)}
    splits = {}
    for split in SPLITS:
        names = [split, *(alias for alias, name in _ALIASES.items() if name == split)]
        names = [form(name) for name in names for form in (str, str.capitalize, str.upper)]
        files = (root / csv.replace("{split}", name) for name in names)
        if file := next((f for f in files if f.is_file()), None):
            splits[split] = _read_list(videos, file, notes)
    if not splits:
        files = ", ".join(str(root / csv.replace("{split}", split)) for split in SPLITS)
        raise UserError(f"no list of videos: {files} do not exist")
    return splits


def _read_list(videos: VideoFolder, file: Path, notes: Annotations) -> list[_Row]:
    if not file.is_file():
        raise UserError(f"list of videos {file} does not exist: set data.options.csv")
    rows, total = [], notes.total
    for row in read_table(file, ("path", "label")):
        with notes.line(row):
            rows.append(_row(videos, row))
    if notes.total == total:
        raise UserError(f"{file} lists no videos")
    return rows


def _row(videos: VideoFolder, row: Row) -> _Row:
    if not row["path"] or not (label := _label(row["label"])):
        raise BadLine("path or label is empty")
    if not (path := videos.exact(row["path"])):
        raise BadLine(f"no such file: {_text(os.fspath(videos.root / row['path']))}")
    start, end = (row.number(column, 0) if row.cells.get(column) else None for column in ("start", "end"))
    if end is not None and end <= (start or 0):
        raise BadLine(f"end {end:g} is not after start {start or 0:g}")
    path = path.removeprefix(os.path.join(videos.root, ""))
    return _Row(path, label, start, end, _label(row.cells.get("group", "")) or None)


@functools.lru_cache(maxsize=1)  # warn once, although each split is loaded separately
def _warn_of_shared_files(root: Path, splits: tuple[tuple[str, tuple[_Row, ...]], ...]) -> None:
    """Warns about files that are in two splits, including links and copies."""
    for (a, first), (b, second) in itertools.combinations(splits, 2):
        shared = _shared_files(root, {r.path for r in first}, {r.path for r in second})
        if shared:
            one, other = map(_text, min(shared))
            example = one if one == other else f"{one} and {other}"
            logging.warning(
                "%s: %d of the videos of '%s' are also in '%s', for example %s",
                root,
                len(shared),
                b,
                a,
                example,
            )


def _shared_files(root: Path, first: set[str], second: set[str]) -> list[tuple[str, str]]:
    """Returns the pairs of paths, one in `first` and one in `second`, with the same file or content."""
    stats = {}
    for path in first | second:
        try:
            stats[path] = os.stat(root / path)
        except OSError:  # reported when the video is read
            continue
    by_size = collections.defaultdict(list)
    for path in sorted(first & stats.keys()):
        by_size[stats[path].st_size].append(path)

    @functools.cache
    def probe(path: str) -> bytes:
        with (root / path).open("rb") as file:
            file.seek(max(0, stats[path].st_size - _PROBE) // 2)
            return file.read(_PROBE)

    def same(a: str, b: str) -> bool:
        return a == b or os.path.samestat(stats[a], stats[b]) or probe(a) == probe(b)

    pairs = []
    for path in sorted(second & stats.keys()):
        candidates = by_size[stats[path].st_size]
        if twin := path if path in first else next((c for c in candidates if same(c, path)), None):
            pairs.append((twin, path))
    return pairs


def _by_group(
    root: Path, rows: list[_Row], test_groups: Sequence[str], val_groups: Sequence[str]
) -> dict[str, list[_Row]]:
    groups = {row.group for row in rows if row.group is not None}
    if not groups:
        raise UserError(f"{root}: test_groups needs a CSV with a column 'group'")
    for group in (*test_groups, *val_groups):
        if group not in groups:
            raise unknown(f"group in {root}", group, groups)
    if both := set(test_groups) & set(val_groups):
        raise UserError(f"group '{min(both)}' of {root} is in test_groups and in val_groups")
    held_out = {"test": test_groups, "val": val_groups}
    splits = {name: [row for row in rows if row.group in mine] for name, mine in held_out.items() if mine}
    return splits | {"train": [row for row in rows if row.group not in {*test_groups, *val_groups}]}


def _by_hash(rows: list[_Row], test_fraction: float, seed: int) -> dict[str, list[_Row]]:
    if not 0 < test_fraction < 1:
        raise UserError(f"test_fraction must be between 0 and 1, got {test_fraction}")
    splits = {"train": [], "test": []}
    for row in rows:
        digest = hashlib.sha256(f"{seed}:{row.path}".encode()).digest()
        draw = int.from_bytes(digest[:8], "big") / 2**64
        splits["test" if draw < test_fraction else "train"].append(row)
    return splits
