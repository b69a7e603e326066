"""Feature files, which hold a sequence of feature rows for each video, and their origin.

.npz           arrays features_000000 [N, ...] and times_000000 [N, 2] for each video, and `meta`.
.array_record  one record per video, an .npz of its `features` and `times`; the last record is `meta`.

`meta` is JSON: the metadata given by the writer, and the ids, targets, lengths N and fps (rows per second) of
the videos. Times are those of a row's first and last frame, in seconds. Files are written under a temporary
name and renamed once they are complete.
"""

import dataclasses
import functools
import io
import json
import os
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from vidjax.data.decode import DecodeError
from vidjax.data.targets import Target, to_json
from vidjax.errors import UserError
from vidjax.files import is_remote

SUFFIXES = (".npz", ".array_record")
# numpy parses headers with `ast`, which occasionally fails in concurrent threads on Python 3.11.
_PARSING = threading.Lock()


class FeatureWriter:
    """Context manager that writes a feature file, and removes it if it is left unfinished.

    Raises:
      UserError: the suffix is unknown, or the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if self.path.suffix not in SUFFIXES:
            raise UserError(f"cannot write features to {path}: the suffix must be {' or '.join(SUFFIXES)}")
        if is_remote(path):
            raise UserError(f"cannot write features to {path}: name a local file, and copy it afterwards")
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._rows: list[tuple[str, dict[str, Any] | None, int, float]] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.suffix == ".npz":
                self._file = zipfile.ZipFile(self._part, "w")
            else:  # groups of one record, so that a video is read without its neighbors
                self._file = ArrayRecordWriter(os.fspath(self._part), "group_size:1")
        except (OSError, ValueError, RuntimeError) as e:
            raise UserError(f"cannot write features to {path}: {e}") from None

    def add(self, id: str, target: Target, features: np.ndarray, times: np.ndarray, fps: float) -> None:
        """Adds one video: features [N, ...] and times [N, 2]."""
        i = len(self._rows)
        about = None if target is None else to_json(target)
        self._rows.append((id, about, len(features), float(fps)))
        if self.path.suffix == ".npz":
            self._array(f"features_{i:06}", features)
            self._array(f"times_{i:06}", times)
        else:
            record = io.BytesIO()
            np.savez(record, features=features, times=times)
            self._file.write(record.getvalue())

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Adds `meta` and moves the file to its final name."""
        columns = zip(("ids", "targets", "lengths", "fps"), zip(*self._rows))
        text = json.dumps({**meta, **dict(columns)})
        if self.path.suffix == ".npz":
            self._array("meta", np.array(text))
        else:
            self._file.write(text.encode())
        self._file.close()
        os.replace(self._part, self.path)

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self._part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"cannot write features to {self.path}: {error}") from None

    def _array(self, name: str, array: np.ndarray) -> None:
        with self._file.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


class FeatureFile:
    """A feature file, read one video at a time.

    Attributes:
      meta: see the module docstring.

    Raises:
      UserError: the file does not exist, or is not a feature file.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        if not Path(path).is_file():
            raise UserError(f"feature file {path} does not exist: create it with `vidjax features`")
        try:
            if Path(path).suffix == ".npz":
                self._npz = np.load(path)
                text = str(self._npz["meta"])
            else:
                self._npz = None
                self._reader = ArrayRecordReader(self.path, "readahead_buffer_size:0,max_parallelism:0")
                text = self._reader.read([self._reader.num_records() - 1])[0]
            self.meta: dict[str, Any] = json.loads(text)
            self.meta["lengths"], self.meta["layer"]
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            IndexError,
            RuntimeError,
            EOFError,
            zipfile.BadZipFile,
        ) as e:
            reason = str(e).partition("\n")[0] or type(e).__name__
            raise UserError(f"{path} is not a feature file ({reason})") from None

    def __len__(self) -> int:
        return len(self.meta["ids"])

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns features [N, ...] and times [N, 2] of video i. Raises `DecodeError` if they are corrupt."""
        try:
            with _PARSING:
                if self._npz is not None:
                    return self._npz[f"features_{i:06}"], self._npz[f"times_{i:06}"]
                record = np.load(io.BytesIO(self._reader.read([i])[0]))
                return record["features"], record["times"]
        except (zipfile.BadZipFile, ValueError, KeyError, OSError, RuntimeError, EOFError) as e:
            raise DecodeError(f"{self.path}: cannot read video {i} ({str(e).splitlines()[0]})") from None


def open_file(path: str) -> FeatureFile:
    """Opens a feature file, or returns the open one if it has not changed."""
    stat = os.stat(path) if os.path.isfile(path) else None
    return _open_file(path, stat and (stat.st_ino, stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=8)
def _open_file(path: str, version: tuple | None) -> FeatureFile:
    return FeatureFile(path)


@dataclasses.dataclass(frozen=True)
class StoredFeatures:
    """Reference to the features of one video, cheap to pickle to a worker."""

    path: str
    index: int

    def open(self) -> "FeatureSequence":
        """Reads the features."""
        file = open_file(self.path)
        features, _ = file.read(self.index)
        return FeatureSequence(file.meta["ids"][self.index], features, file.meta["fps"][self.index])


@dataclasses.dataclass(frozen=True)
class FeatureSequence:
    """The feature rows of one video, with the interface of `Video`.

    Attributes:
      id: id of the video.
      rows: [N, D].
      fps: rows per second.
    """

    id: str
    rows: np.ndarray
    fps: float
    tolerance = 0.0  # see `Video`; these times are exact

    def __enter__(self) -> "FeatureSequence":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @property
    def num_frames(self) -> int:
        return len(self.rows)

    @property
    def times(self) -> np.ndarray:
        return np.arange(len(self.rows)) / self.fps

    def frames(self, indices: np.ndarray, grey: bool = False) -> np.ndarray:
        """Returns the rows at `indices`, float32 [n, D]; `grey` is ignored."""
        return self.rows[indices].astype(np.float32)
