"""Random access to prepared data.

A prepared folder holds

  prepared.json                                what was prepared, and how; written last
  NAME-SPLIT.array_record-00000-of-00017       an example for each video, see `features`
  frames-SPLIT.array_record-00000-of-00017     JPEG frames of the same shard, with storage "jpeg"
  records-SPLIT.array_record                   JSON for each record, which names its video
  bad_videos.jsonl                             the videos that could not be read
  dataset_info.json, features.json             so that `tfds.builder_from_directory` reads it too

A folder on an object store is read from a copy in `$VIDJAX_CACHE/prepared`, to which each file is copied
once, on first use.
"""

import bisect
import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath

from vidjax import files
from vidjax.data import targets
from vidjax.data.cache_folder import cache_dir
from vidjax.data.decode import DecodeError, Video
from vidjax.data.packet_index import PacketIndex
from vidjax.data.record import Record
from vidjax.data.stages import stage
from vidjax.errors import UserError, unknown

META = "prepared.json"
FORMAT = 1
# Options of datasets that do not change the records.
_PLACES = {"path", "annotations", "bad_limit"}


@functools.cache
def features() -> Any:
    """Returns the tensorflow-datasets features of an example.

    video    MP4 file; with storage "jpeg" only its sound, or nothing
    index    serialized `PacketIndex` of the video
    first    with storage "jpeg", number of the first frame in the frames of the shard
    records  JSON list of the records of the video, see `row_of`
    """
    import tensorflow_datasets as tfds  # takes a second to import

    text = tfds.features.Text
    return tfds.features.FeaturesDict(
        {"video": text(), "index": text(), "first": tfds.features.Scalar(np.int64), "records": text()}
    )


def row_of(record: Record) -> dict[str, Any]:
    """Returns a record, without its video, as JSON can represent it. Raises `UserError` if it cannot."""
    target = None if record.target is None else targets.to_json(record.target)
    row = {"id": record.id, "target": target, "start": record.start, "end": record.end}
    return row | {"group": record.group, "directional": record.directional}


def shard_name(name: str, split: str, shard: int, shards: int) -> str:
    return f"{name}-{split}.array_record-{shard:05}-of-{shards:05}"


@dataclasses.dataclass(frozen=True)
class PreparedVideo:
    """Reference to a stored video, cheap to pickle to a worker."""

    folder: str
    split: str
    number: int

    def read(self) -> bytes:
        """Returns the contents of the video file. Raises `DecodeError` if it is damaged."""
        return open_folder(self.folder).example(self.split, self.number)["video"]

    def open(self) -> Video:
        example = open_folder(self.folder).example(self.split, self.number)
        return Video(example["video"], index=_index(example["index"]))


@dataclasses.dataclass(frozen=True)
class PreparedFrames:
    """Reference to a video stored as JPEG images, cheap to pickle to a worker."""

    folder: str
    split: str
    number: int

    def read(self) -> bytes:
        """Returns a file with the sound of the video. Raises `DecodeError` if there is none."""
        sound = open_folder(self.folder).example(self.split, self.number)["video"]
        if not sound:
            raise DecodeError(f"{self.folder} stores images, without sound: prepare it with --audio")
        return sound

    def open(self) -> "JpegFrames":
        example = open_folder(self.folder).example(self.split, self.number)
        index = _index(example["index"])
        return JpegFrames(self, int(example["first"]), index.times, index.fps, index.time_base)


@dataclasses.dataclass(frozen=True)
class JpegFrames:
    """The frames of a video stored as JPEG images, with the interface of `Video`."""

    stored: PreparedFrames
    first: int
    times: np.ndarray
    fps: float
    time_base: Fraction

    def __enter__(self) -> "JpegFrames":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @property
    def num_frames(self) -> int:
        return len(self.times)

    @property
    def tolerance(self) -> float:
        return min(0.5 * float(self.time_base), 0.1 / self.fps)

    def frames(self, indices: np.ndarray, grey: bool = False) -> np.ndarray:
        """Reads the frames at `indices`, uint8 [n, H, W, 3], or their luma [n, H, W, 1] if `grey`.

        Raises:
          DecodeError: a frame is damaged.
        """
        wanted, inverse = np.unique(np.asarray(indices, np.int64), return_inverse=True)
        folder = open_folder(self.stored.folder)
        images = []
        for data in folder.images(self.stored.split, self.stored.number, (self.first + wanted).tolist()):
            kind = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
            image = cv2.imdecode(np.frombuffer(data, np.uint8), kind)
            if image is None:
                raise DecodeError(f"{self.stored.folder}: a frame of video {self.stored.number} is damaged")
            images.append(image[..., None] if grey else cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        return np.stack(images)[inverse]


@dataclasses.dataclass(frozen=True)
class PreparedSource:
    """One split of prepared data."""

    folder: str
    split: str
    count: int

    @property
    def _meta(self) -> Mapping[str, Any]:
        return open_folder(self.folder).meta

    @property
    def target(self) -> type | None:
        return targets.TARGETS.get(self._meta["target"])

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self._meta["class_names"])

    @property
    def directional(self) -> bool:
        return self._meta["directional"]

    @property
    def mirror(self) -> tuple[int, ...] | None:
        return self._meta["mirror"] and tuple(self._meta["mirror"])

    @property
    def fingerprint(self) -> str:
        return self._meta["splits"][self.split]["fingerprint"]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Record:
        if not 0 <= i < self.count:
            raise IndexError(i)
        row = open_folder(self.folder).row(self.split, i)
        kind = PreparedFrames if self._meta["settings"]["storage"] == "jpeg" else PreparedVideo
        target = row["target"] and targets.from_json(row["target"])
        video = kind(self.folder, self.split, row["video"])
        about = (row[key] for key in ("id", "start", "end", "group", "directional"))
        return Record(video, target, *about)


class Folder:
    """A prepared folder, opened once in a process.

    Attributes:
      meta: contents of prepared.json.
    """

    def __init__(self, path: str):
        self._path = epath.Path(path)
        data = (self._path / META).read_bytes()
        self.meta = read_meta(self._path, data)
        self._ends = {
            name: list(itertools.accumulate(split["shards"])) for name, split in self.meta["splits"].items()
        }
        self._cache = None
        if files.is_remote(path):
            digest = hashlib.blake2b(os.fspath(path).encode() + data, digest_size=16).hexdigest()
            self._cache = cache_dir() / "prepared" / digest
        self._reader = functools.lru_cache(maxsize=256)(self._open)

    def row(self, split: str, i: int) -> dict[str, Any]:
        """Returns record i of a split."""
        return json.loads(self._read(f"records-{split}.array_record", [i])[0])

    def example(self, split: str, number: int) -> dict[str, Any]:
        """Returns the example of a video. Raises `DecodeError` if it is damaged."""
        shard, row = self._shard(split, number)
        data = self._read(shard_name(self.meta["name"], split, shard, len(self._ends[split])), [row])[0]
        return features().deserialize_example_np(data)

    def images(self, split: str, number: int, numbers: list[int]) -> list[bytes]:
        """Returns frames of the shard that holds a video. Raises `DecodeError` if they are damaged."""
        shard, _ = self._shard(split, number)
        return self._read(shard_name("frames", split, shard, len(self._ends[split])), numbers)

    def _shard(self, split: str, number: int) -> tuple[int, int]:
        """Returns the shard of a video, and its number there."""
        ends = self._ends[split]
        shard = bisect.bisect_right(ends, number)
        return shard, number - (ends[shard - 1] if shard else 0)

    def _read(self, name: str, rows: list[int]) -> list[bytes]:
        try:
            with stage("read"):
                return self._reader(name).read(rows)
        except (RuntimeError, ValueError, IndexError, OSError) as e:
            reason = str(e).partition("\n")[0] or type(e).__name__
            raise DecodeError(f"{self._path / name}: cannot read record {rows[0]} ({reason})") from None

    def _open(self, name: str) -> ArrayRecordReader:
        path = self._path / name
        if self._cache is not None:
            path = _copied(path, self._cache / name)
        return ArrayRecordReader(os.fspath(path), "readahead_buffer_size:0,max_parallelism:0")


def open_folder(path: str) -> Folder:
    """Opens a prepared folder, or returns the open one if it has not changed."""
    try:
        stat = None if files.is_remote(path) else os.stat(os.path.join(path, META))
        return _open_folder(path, stat and (stat.st_ino, stat.st_mtime_ns))
    except OSError as e:
        raise UserError(
            f"cannot read {path}/{META} ({e.strerror or e}): is the folder still there?"
        ) from None


@functools.lru_cache(maxsize=16)
def _open_folder(path: str, version: tuple[int, int] | None) -> Folder:
    return Folder(path)


def read_meta(folder: epath.Path, data: bytes) -> dict[str, Any]:
    """Parses prepared.json. Raises `UserError` if it is damaged or of another version."""
    try:
        meta = json.loads(data)
        found = meta["format"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / META} is damaged: prepare the dataset again") from None
    if found != FORMAT:
        raise UserError(f"{folder} was prepared by another version of vidjax: prepare the dataset again")
    return meta


def find(path: Any) -> str | None:
    """Returns the prepared folder that the option `path` of a dataset names; None if it is not one."""
    if not isinstance(path, str | os.PathLike):
        return None
    if not files.is_remote(path):
        path = os.path.abspath(os.path.join(os.environ.get("VIDJAX_DATA", ""), os.path.expanduser(path)))
    elif not os.fspath(path).startswith(files.STORES):
        return None
    return os.fspath(path) if (epath.Path(path) / META).exists() else None


def load(
    folder: str, name: str, split: str, target: type | None, options: Mapping[str, Any]
) -> PreparedSource:
    """Opens one split of a prepared folder.

    Args:
      folder: see `find`.
      name: of the dataset that it must be of.
      split: one of those that were prepared.
      target: type of the targets; None takes those that were prepared.
      options: all options of the dataset, which must be those it was prepared with.

    Raises:
      UserError: the folder holds another dataset, or one with other options, targets or splits.
    """
    meta = open_folder(folder).meta
    if meta["name"] != name:
        raise UserError(
            f"{folder} was prepared from {meta['name']}, not {name}: set data.name={meta['name']}"
        )
    for key, value in options.items():
        was = meta["options"].get(key)
        if key not in _PLACES and json.dumps(value, default=os.fspath) != json.dumps(was):
            raise UserError(
                f"{folder} was prepared with {key}={was}, not {value}: change data.options.{key}, or prepare "
                "the dataset again"
            )
    if target is not None and meta["target"] != target.__name__:
        raise UserError(
            f"{folder} was prepared with targets of type {meta['target']}, and the task needs "
            f"{target.__name__}: prepare the dataset again with --target {target.__name__}"
        )
    if split not in meta["splits"]:
        raise unknown(f"split of {folder}", split, meta["splits"])
    return PreparedSource(folder, split, meta["splits"][split]["records"])


def _index(data: bytes) -> PacketIndex | None:
    try:
        return PacketIndex.from_bytes(data)
    except ValueError:  # of another version
        return None


def _copied(remote: epath.Path, local: Path) -> Path:
    """Copies a file unless it has been copied before."""
    if not local.exists():
        local.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(local.with_name(f"{local.name}.lock")):
            if not local.exists():
                part = local.with_name(f"{local.name}.part")
                remote.copy(part, overwrite=True)
                os.replace(part, local)
    return local
