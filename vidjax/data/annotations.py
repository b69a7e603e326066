"""Reading of annotation files: tables as spreadsheets write them, JSON, and videos found by name.

A line that is malformed, names an unknown class or points to no video is skipped and listed with its number;
more of them than a limit are an error:

    videos, notes = VideoFolder(root), Annotations("ucf101", bad_limit)
    for row in read_table(file, columns=("name", "label")):
        with notes.line(row):
            records.append(Record(videos.find(row["name"]), ClassTarget(index_of(row["label"], labels)), ...))
    return notes.source(records, class_names)
"""

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import math
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import av
from absl import logging
from etils import epath

from vidjax import files
from vidjax.data.datasets import ListSource
from vidjax.data.decode import ERRORS, open_container, reason
from vidjax.data.frame_folder import FrameFolder
from vidjax.data.record import Record
from vidjax.data.targets import problem
from vidjax.errors import UserError

EXTENSIONS = "3gp asf avi divx flv gif m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv"
_TRIED = 100  # names by which the folder of all frame folders is found
_LISTED = 10  # problems in the warning; `vidjax data check` lists all
_OVERRUN = 2  # seconds by which a segment may be outside the video; annotators often stopped a bit late


class BadLine(Exception):
    """What is wrong with one annotation; the message goes behind its file and line."""


@dataclasses.dataclass(frozen=True)
class Row(Mapping[str, Any]):
    """The cells of a line by column, and where it is, such as "train.csv, line 7"; or an object of JSON.

    Reading a cell raises `BadLine` if the line is malformed, or has no such cell.
    """

    where: str
    cells: Mapping[str, Any]
    wrong: str = ""

    def __getitem__(self, column: str) -> Any:
        if self.wrong or column not in self.cells:
            raise BadLine(self.wrong or f"there is no '{column}'")
        return self.cells[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    def number(self, column: str, low: float = -math.inf, high: float = math.inf) -> float:
        """Returns a cell as a number. Raises `BadLine` if it is none between `low` and `high`."""
        return number(self[column], column, low, high)

    def text(self, column: str) -> str:
        """Returns text or a number of JSON as text with single spaces. Raises `BadLine` if it is neither."""
        if not isinstance(value := self[column], str | int | float):
            raise BadLine(f"{column} '{value}' is not text")
        return " ".join(str(value).split())

    def listed(self, column: str) -> list[Any]:
        """Returns a list of JSON. Raises `BadLine` if the cell is none."""
        if not isinstance(value := self[column], list):
            raise BadLine(f"{column} '{value}' is not a list")
        return value

    def parts(self, column: str) -> list["Row"]:
        """Returns the objects in a list of JSON. Raises `BadLine` if the cell is none."""
        return [json_row(f"{self.where}, {column} {i}", v) for i, v in enumerate(self.listed(column))]

    def label(self, column: str, count: int) -> int:
        """Returns a cell as a label. Raises `BadLine` if it is none of 0, 1, …, `count` - 1."""
        if (cell := self.text(column)).isdecimal() and int(cell) < count:
            return int(cell)
        raise BadLine(f"{column} '{cell}' is not a label below {count}")


class Annotations:
    """Collects what is wrong with the annotations of a split.

    Attributes:
      problems: one line for each skipped annotation.
      total: number of annotations read.
    """

    def __init__(self, name: str, limit: float):
        self.problems: list[str] = []
        self.total = 0
        self._name, self._limit = name, limit

    @contextlib.contextmanager
    def line(self, where: Row | str) -> Iterator[None]:
        """Skips the rest of the body at the first `BadLine`, which is listed under `where`."""
        self.total += 1
        with self.part(where):
            yield

    @contextlib.contextmanager
    def part(self, where: Row | str) -> Iterator[None]:
        """Does the same as `line` for a part of an annotation, such as a segment, that can be left out."""
        try:
            yield
        except BadLine as error:
            self.problems.append(f"{where.where if isinstance(where, Row) else where}: {error}")

    def source(
        self,
        records: Sequence[Record],
        class_names: Sequence[str] = (),
        directional: bool = False,
        mirror: tuple[int, ...] | None = None,
    ) -> ListSource:
        """Returns a source of the records whose targets are well-formed.

        Records of the same id are kept once.

        Raises:
          UserError: more than the limit of the annotations were skipped, or none are left.
        """
        kept: dict[str, Record] = {}
        for record in records:
            if wrong := problem(record.target):
                self.problems.append(f"{record.id}: {wrong}")
            elif record.id in kept:
                self.problems.append(f"{record.id} is listed more than once")
            else:
                kept[record.id] = record
        self.check(bool(kept))
        if self.problems:
            logging.warning("%s: %s", self._share, self._first)
        if not kept:
            raise UserError(f"{self._name}: the annotation files list no video of this split")
        return ListSource(tuple(kept.values()), tuple(class_names), directional, tuple(self.problems), mirror)

    def check(self, left: bool) -> None:
        """Raises `UserError` if more than the limit were skipped, or some were and none are `left`."""
        if self.problems and not left:
            raise UserError(f"{self._share}, so none is left: {self._first}")
        if len(self.problems) > self._limit * self.total:
            limit = f"more than data.options.bad_limit={self._limit:g} allows"
            raise UserError(f"{self._share}, {limit}: {self._first}")

    @property
    def _share(self) -> str:
        return f"{self._name}: {len(self.problems):,} of {self.total:,} annotations cannot be used"

    @property
    def _first(self) -> str:
        return "; ".join(self.problems[:_LISTED])


class VideoFolder:
    """The videos below a folder, found by the names that annotations use.

    The folder is listed once. Hidden files and folders are skipped.
    """

    def __init__(self, root: epath.PathLike):
        self.root = data_folder(root)
        self._paths = {_key(path): path for path in walk(self.root)}
        self._stems: dict[str, list[str]] = {}
        for key in self._paths:
            self._stems.setdefault(key.rpartition("/")[2].rpartition(".")[0], []).append(key)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def names(self) -> list[str]:
        """Paths relative to the folder, sorted."""
        return sorted(self._paths.values())

    def exact(self, name: str) -> str | None:
        """Returns the path of a file named by its absolute path or relative to the folder, if it exists."""
        if (key := _key(name)) in self._paths:
            return os.fspath(self.root / self._paths[key])
        path = os.path.normpath(os.path.join(self.root, name))
        return path if os.path.isfile(path) else None

    def find(self, *names: str) -> str:
        """Returns the path of the first of `names` that exists.

        A name is a path relative to the folder, an absolute path, or the end of a path at any depth, with or
        without its extension. Of several videos with the same file name, the one that shares the most parent
        folders with the name is returned.

        Raises:
          BadLine: no such video.
        """
        for name in names:
            key = _key(name)
            elsewhere = os.path.isabs(name) or ".." in key.split("/")
            if (key in self._paths or elsewhere) and (path := self.exact(name)):
                return path
            whole = key.rpartition("/")[2]
            stem = whole.rpartition(".")[0] if whole.lower().endswith(_SUFFIXES) else whole
            if same := self._stems.get(stem):
                best = max(sorted(same), key=lambda k: _shared(k, key))
                return os.fspath(self.root / self._paths[best])
        raise BadLine(f"no video {' or '.join(names)} in {self.root}")


class FrameFolders:
    """The folders of frames of a dataset, all in one folder, found by their names.

    Args:
      root: the folder of the dataset.
      names: of the videos, which are looked for in it and up to two levels below it.
      fps: frames per second.
    """

    def __init__(self, root: epath.PathLike, names: Iterable[str], fps: float):
        self.root, self.fps = data_folder(root), fps
        self._paths: dict[str, str] = {}
        for name, level in itertools.product(itertools.islice(names, _TRIED), ("", "*/", "*/*/")):
            if found := next(iter(sorted(self.root.glob(f"{level}{name}"))), None):
                self._paths = {folder.name: os.fspath(folder) for folder in found.parent.iterdir()}
                break

    def find(self, name: str) -> FrameFolder:
        """Returns the folder of a video. Raises `BadLine` if there is none."""
        if name not in self._paths:
            raise BadLine(f"no folder of frames {name} in {self.root}")
        return FrameFolder(self._paths[name], self.fps)


_SUFFIXES = tuple(f".{extension}" for extension in EXTENSIONS.split())


def _key(path: str) -> str:
    """Returns a path as it is compared: separated by "/", with composed accents, and in UTF-8."""
    return unicodedata.normalize("NFC", text(path).replace("\\", "/").removeprefix("./"))


def _shared(a: str, b: str) -> int:
    """Returns the number of parent folders that two paths share, counted from their ends."""
    pairs = zip(reversed(a.split("/")[:-1]), reversed(b.split("/")[:-1]), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda p: p[0] == p[1], pairs))


def walk(root: epath.Path) -> Iterator[str]:
    """Yields the paths of the videos below a folder, relative to it, without hidden files and folders."""
    if files.is_remote(root):
        yield from sorted(p.relative_to(root).as_posix() for p in _remote_videos(root))
        return
    seen = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(parent)
        if place in seen:  # a cycle of symbolic links
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(f for f in folders if not hidden(f))
        below = os.path.relpath(parent, root)
        for name in sorted(names):
            if name.lower().endswith(_SUFFIXES) and not hidden(name):
                yield name if below == "." else f"{below}/{name}"


def _remote_videos(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if hidden(path.name):
            continue
        if path.name.lower().endswith(_SUFFIXES):  # a file, without a request to the store
            yield path
        elif path.is_dir():
            yield from _remote_videos(path)


def hidden(name: str) -> bool:
    """Returns whether a file or folder is hidden, or is the folder that macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def data_folder(path: epath.PathLike) -> epath.Path:
    """Returns a folder given relative to $VIDJAX_DATA, or to the working directory if that is not set.

    Raises:
      UserError: it does not exist.
    """
    if not files.is_remote(path):
        path = os.path.join(os.environ.get("VIDJAX_DATA", ""), os.path.expanduser(path))
    folder = files.absolute(path)
    if not folder.is_dir():
        raise UserError(f"folder {folder} does not exist: set data.options.path")
    return folder


def locate(root: epath.PathLike, *names: str, layout: str) -> epath.Path:
    """Returns the first of several annotation files, given as shell patterns, that a folder holds.

    They are looked for in the folder and in all folders up to two levels below it.

    Args:
      root: see `data_folder`.
      *names: file names, such as "train.csv" or "kinetics*_train.csv".
      layout: what is expected on disk, for the error.

    Raises:
      UserError: there is none.
    """
    root = data_folder(root)
    for name in names:
        for level in ("", "*/", "*/*/"):
            if found := sorted(root.glob(f"{level}{name}")):
                return found[0]
    raise UserError(f"no annotation file {' or '.join(names)} in {root}: expected {layout}")


def read_table(
    file: epath.PathLike,
    columns: Sequence[str] = (),
    header: bool = True,
    delimiter: str | None = None,
) -> Iterator[Row]:
    """Yields the lines of a table as spreadsheets write it.

    UTF-8 with or without a byte order mark, or UTF-16 with one; any line ends; quoted cells; spaces around
    cells; empty lines; cells beyond the last column only if they are empty. Bytes that are not UTF-8 are kept
    as in file names, see `os.fsdecode`; `text` reads them as Windows-1252.

    Args:
      file: path of the table.
      columns: with a header, the columns that it must have; without, the names of all columns, of which those
        at the end may be missing in a line.
      header: whether the first line has the names of the columns.
      delimiter: between cells; None takes the comma, semicolon or tab, whichever the first line has most of.

    Raises:
      UserError: the file does not exist or is not text, a column is missing or there twice, or a quote is not
        closed.
    """
    content = read_text(file)
    if delimiter is None:
        first = content.lstrip().partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
    reader = csv.reader(
        io.StringIO(content, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    names: list[str] | None = None if header else list(columns)
    line = 1
    try:
        for cells in reader:
            where, line = f"{file}, line {line}", reader.line_num + 1
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if names is None:
                names = cells
                for column in columns:
                    if names.count(column) != 1:
                        what = "no column" if column not in names else "more than one column"
                        found = ", ".join(names)
                        raise UserError(f"{file} has {what} '{column}' in its first line (found: {found})")
                continue
            wrong = ""
            if any(cells[len(names) :]):
                wrong = (
                    f"{len(cells)} cells under {len(names)} columns; put quotes around a cell with a "
                    f"'{delimiter}' in it"
                )
            yield Row(where, dict(itertools.zip_longest(names, cells[: len(names)], fillvalue="")), wrong)
    except csv.Error as e:
        why = "a quote is not closed" if "end of data" in str(e) or "limit" in str(e) else str(e)
        raise UserError(f"{file}, line {line}: {why}") from None
    if names is None:
        raise UserError(f"{file} is empty" + (f": it must have a column '{columns[0]}'" if columns else ""))


def read_lines(file: epath.PathLike) -> Iterator[tuple[str, str]]:
    """Yields where it is and the text of each line that is not empty, without spaces at its ends."""
    for n, line in enumerate(read_text(file).splitlines(), 1):
        if line.strip():
            yield f"{file}, line {n}", line.strip()


def read_json(file: epath.PathLike) -> Any:
    """Reads a JSON file. Raises `UserError` with the line if it is malformed."""
    try:
        return json.loads(read_text(file))
    except json.JSONDecodeError as e:
        raise UserError(f"{file}, line {e.lineno}: not JSON ({e.msg})") from None


def read_objects(file: epath.PathLike, key: str = "") -> Iterator[tuple[str, Row]]:
    """Yields the objects of a JSON file, each with its name; "item 1", … if they are in a list.

    Args:
      file: path of the file.
      key: name of the list or dict in the file; "" if it is the whole file.

    Raises:
      UserError: the file cannot be read, is not JSON, or has another structure.
    """
    content = read_json(file)
    if key:
        content = content.get(key) if isinstance(content, dict) else None
    if not isinstance(content, dict | list):
        what = f"has no list or object '{key}'" if key else "is not a list or object"
        raise UserError(f"{file} {what}")
    if isinstance(content, list):
        content = {f"item {i}": value for i, value in enumerate(content, 1)}
    for name, value in content.items():
        yield name, json_row(f"{file}, {name}", value)


def json_row(where: str, value: Any) -> Row:
    """Returns an object of JSON as a row."""
    return Row(where, value) if isinstance(value, dict) else Row(where, {}, f"'{value}' is not an object")


def read_text(file: epath.PathLike) -> str:
    """Returns the text of a file, see `read_table`. Raises `UserError` if it cannot be read."""
    try:
        data = epath.Path(file).read_bytes()
    except OSError as e:
        raise UserError(f"cannot read {file} ({e.strerror or e})") from None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    if (zero := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, zero) + 1
        raise UserError(f"{file} is not text (byte 0x00 in line {line})")
    return data.decode("utf-8-sig", "surrogateescape")


def text(cell: str) -> str:
    """Returns a cell with bytes that are not UTF-8 read as Windows-1252, the encoding of old spreadsheets."""
    try:
        cell.encode()
        return cell
    except UnicodeEncodeError:
        return os.fsencode(cell).decode("cp1252", "backslashreplace")


def span(times: Sequence[Any], duration: float) -> tuple[float, float]:
    """Returns start and end of a segment in seconds, clipped to the video.

    Args:
      times: start and end, numbers or text.
      duration: duration of the video in seconds.

    Raises:
      BadLine: they are not numbers, the segment ends before it starts, or is more than 2 s beyond the video.
    """
    try:
        start, end = map(float, times)
    except (TypeError, ValueError):
        raise BadLine(f"{times} is not a start and an end") from None
    if not (-_OVERRUN <= start < end <= duration + _OVERRUN and start < duration and end > 0):
        raise BadLine(f"the segment from {start:g} to {end:g} s is not within the video of {duration:g} s")
    return max(start, 0.0), min(end, duration)


def duration_of(video: str) -> float:
    """Returns the duration of a video file in seconds according to its header.

    Raises:
      BadLine: the file cannot be read, or does not have its duration.
    """
    try:
        with open_container(video) as container:
            stream = container.streams.best("video")
            if stream and stream.duration and stream.time_base:
                return float(stream.duration * stream.time_base)
            if container.duration:
                return container.duration / av.time_base
    except ERRORS as error:
        raise BadLine(f"{video} is not a readable video ({reason(error)})") from None
    raise BadLine(f"the header of {video} has no duration")


def number(cell: Any, what: str = "cell", low: float = -math.inf, high: float = math.inf) -> float:
    """Returns the number in a cell. Raises `BadLine` if it is none between `low` and `high`."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        between = f" from {low:g} to {high:g}" if math.isfinite(high) else f" of at least {low:g}"
        raise BadLine(f"{what} '{cell}' is not a number{between if math.isfinite(low) else ''}")
    return value


def index_of(name: str, labels: Mapping[str, int]) -> int:
    """Returns the label of a class. Raises `BadLine` if the name is unknown."""
    if name not in labels:
        raise BadLine(f"unknown class '{name}'")
    return labels[name]
