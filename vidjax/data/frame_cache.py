"""Decoded frames kept on disk, so that a small dataset is decoded once for all runs.

`data.cache` is True, False, or "auto": the videos of a split are cached where all their frames take no more
than `data.cache_gb`. That is estimated from a few of them, the same ones in every process and every run.
Clips are the same with and without the cache.

A file holds one video as stored: its rate, the times of its frames, and all of them, uint8 [N, H, W, C]. Its
name is a digest of what was decoded: the encoded bytes, or the path, size and time of change of a file.
It costs a byte for each pixel and color: 1 GB for some 200 videos of 100 frames of 180x90.
"""

import dataclasses
import functools
import hashlib
import math
import os
import platform
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from absl import logging

from vidjax.data import sampling
from vidjax.data.decode import DecodeError, Video
from vidjax.errors import UserError

_FORMAT = b"3"  # another layout, or other frames of the same file, is another name

_PROBES = 8  # videos whose size is looked at
_LARGEST = 2**30  # bytes; of a video that "auto" caches, since it is decoded into memory first
_SPARE = 2 * 10**9  # bytes of the disk that "auto" leaves free


def cache_dir() -> Path:
    """Returns the cache folder of vidjax: $VIDJAX_CACHE, or ~/.cache/vidjax."""
    try:
        return Path(os.environ.get("VIDJAX_CACHE") or "~/.cache/vidjax").expanduser()
    except RuntimeError:
        raise UserError("this user has no home folder: set VIDJAX_CACHE to a folder for the cache") from None


class CacheError(UserError):
    """Raised if the cache cannot be written."""


@dataclasses.dataclass(frozen=True)
class CachePlan:
    """The decision whether the videos of a split are cached.

    Attributes:
      use: the decision.
      optional: decided here and not by the config: without room in the cache, a video is decoded.
      gigabytes: estimate of all decoded frames; 0 where there was none.
    """

    use: bool
    optional: bool = False
    gigabytes: float = 0.0

    def open(self, source: str | os.PathLike | bytes, grey: bool) -> "CachedVideo | Video":
        """Opens a video from the cache, or for decoding if it is not cached."""
        if not self.use:
            return Video(source)
        try:
            return CachedVideo(source, grey, optional=self.optional)
        except DecodeError:
            return Video(source)  # damaged perhaps, but not in every clip
        except CacheError as error:
            if not self.optional:
                raise
            _warn_once(str(error))
            return Video(source)


NO_CACHE = CachePlan(False)


def plan(source: Any, cfg: Any, grey: bool) -> CachePlan:
    """Returns the decision for the videos of a `Source` under a config's data section."""
    if cfg.modality == "features" or not cfg.cache:
        return NO_CACHE
    if cfg.cache != "auto":
        return CachePlan(True)
    if not len(source) or not isinstance(source[0].video, str):  # encoded bytes are of a generated dataset
        return NO_CACHE
    gigabytes = _decoded_gigabytes(_Videos(source), grey)
    return CachePlan(0 < gigabytes <= cfg.cache_gb, True, gigabytes)


class _Videos:
    """The video files of a source; equal where fingerprints are, so that probes are remembered."""

    def __init__(self, source: Any):
        self.fingerprint = source.fingerprint
        self.paths = list(dict.fromkeys(source[i].video for i in range(len(source))))

    def __hash__(self) -> int:
        return hash((self.fingerprint, self.paths[0]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Videos) and self.paths == other.paths


@functools.lru_cache(maxsize=8)
def _decoded_gigabytes(videos: _Videos, grey: bool) -> float:
    """Estimates the size of all decoded frames from a few videos; 0 if none of them can be read."""
    sizes = []
    for i in np.linspace(0, len(videos.paths) - 1, min(_PROBES, len(videos.paths))).astype(int):
        try:
            with Video(videos.paths[i]) as video:
                sizes.append(math.prod(_shape(video, grey)))
        except DecodeError:  # said when it is read
            continue
    return float(np.mean(sizes or [0])) * len(videos.paths) / 1e9


def _shape(video: Video, grey: bool) -> tuple[int, ...]:
    return video.num_frames, video.height, video.width, 1 if grey else 3


_warnings: dict[str, object] = {}


def _warn_once(text: str) -> None:
    mine = object()
    if _warnings.setdefault(text, mine) is mine:  # atomic: several threads can come at the same time
        logging.warning("%s", text)


class CachedVideo:
    """The frames of a video, read from the cache and decoded into it the first time.

    Stands in for `Video` where clips are read: its attributes and methods are as there.

    Raises:
      DecodeError: where the source cannot be decoded as a whole.
      CacheError: where the cache cannot be written.
    """

    def __init__(self, source: str | os.PathLike | bytes, grey: bool = False, optional: bool = False):
        """
        Args:
          source: path of the video, or the encoded file as bytes.
          grey: of luma alone.
          optional: raise CacheError for a video that is too large, or where the disk is nearly full.
        """
        path = cache_dir() / "frames" / f"{_digest(source, grey)}.frames"
        if not path.is_file():
            _write(path, source, grey, optional)
        # Plain numbers: numpy's own headers are parsed by `ast`, which fails now and then among threads.
        with path.open("rb") as file:
            self.fps, self.tolerance, *shape = np.fromfile(file, np.float64, 6).tolist()
            shape = tuple(map(int, shape))
            self.times = np.fromfile(file, np.float64, shape[0])
            self._frames = np.memmap(file, np.uint8, "r", file.tell(), shape)
        self.num_frames = len(self.times)

    def __enter__(self) -> "CachedVideo":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._frames

    def indices_at(self, seconds: np.ndarray) -> np.ndarray:
        return sampling.shown(self.times, np.asarray(seconds), self.tolerance)

    def frames(self, indices: np.ndarray, grey: bool = False) -> np.ndarray:
        if grey and self._frames.shape[-1] != 1:
            raise ValueError("these frames were cached in color")
        return self._frames[np.asarray(indices, np.int64)]


def _digest(source: str | os.PathLike | bytes, grey: bool) -> str:
    if not isinstance(source, bytes):
        try:
            stat = os.stat(source)
        except OSError as e:
            raise DecodeError(f"{source}: {e.strerror}") from e
        source = os.fsencode(f"{os.path.abspath(source)}|{stat.st_size}|{stat.st_mtime_ns}")
    return hashlib.blake2b(_FORMAT + (b"grey" if grey else b"rgb") + source, digest_size=16).hexdigest()


def _check_room(folder: Path, size: int) -> None:
    if size > _LARGEST:
        raise CacheError(f"videos of more than {_LARGEST / 1e9:g} GB of frames are not cached")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as e:
        raise CacheError(f"frames are not cached: cannot write to {folder} ({e.strerror})") from e
    if free < size + _SPARE:
        raise CacheError(f"frames are not cached: {folder} has less than {_SPARE / 1e9:g} GB free")


@functools.cache
def _remove_parts(folder: Path) -> None:
    """Removes the partial files of killed processes of this machine."""
    for part in folder.glob(f".*.{platform.node()}.*.*.part"):
        try:
            os.kill(int(part.name.split(".")[-3]), 0)
        except (ProcessLookupError, ValueError):
            part.unlink(missing_ok=True)
        except PermissionError:  # it runs, for another user
            continue


def _write(path: Path, source: str | os.PathLike | bytes, grey: bool, optional: bool) -> None:
    with Video(source) as video:
        if optional:
            _check_room(path.parent, math.prod(_shape(video, grey)))
        frames = video.frames(np.arange(video.num_frames), grey)
        clock, times = (video.fps, video.tolerance), video.times
    part = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.{id(frames)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_parts(path.parent)
        with part.open("wb") as file:
            for array in ((*clock, *frames.shape), times):
                file.write(np.asarray(array, np.float64).tobytes())
            file.write(np.ascontiguousarray(frames).data)
        os.replace(part, path)
    except OSError as e:
        if part.exists():
            part.unlink()
        raise CacheError(
            f"cannot keep decoded frames in {path.parent} ({e.strerror}): set data.cache or $VIDJAX_CACHE"
        ) from e
