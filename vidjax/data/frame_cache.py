"""Disk cache of decoded frames, so that a small dataset is decoded once for all runs.

`data.cache` is True, False, or "auto", which caches a split if its decoded frames take at most
`data.cache_gb`. The size is estimated from a few videos, the same ones in every process and run. Clips are
identical with and without the cache.

A file holds one video: its frame rate, the times of its frames, and the frames, uint8 [N, H, W, C]. Its name
is a digest of the source: the encoded bytes, or the path, size and modification time of the file. Frames
take one byte per pixel and channel: 1 GB for about 200 videos of 100 frames of 180x90 pixels.
"""

import dataclasses
import functools
import hashlib
import math
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from absl import logging

from vidjax.data import sampling
from vidjax.data.cache_folder import cache_dir
from vidjax.data.decode import DecodeError, Video
from vidjax.data.record import Opens
from vidjax.data.stages import stage
from vidjax.errors import UserError

_FORMAT = b"3"  # increment when the layout or the decoded frames change

_PROBES = 8  # videos used to estimate the size
_LARGEST = 2**30  # bytes; largest video that "auto" caches, since it is decoded into memory first
_SPARE = 2 * 10**9  # bytes of disk space that "auto" leaves free


class CacheError(UserError):
    """Raised if the cache cannot be written."""


@dataclasses.dataclass(frozen=True)
class CachePlan:
    """Whether and how the videos of a split are cached.

    Attributes:
      use: whether to use the cache.
      optional: whether to decode a video without caching it, instead of failing, if the disk is full.
      gigabytes: estimated size of all decoded frames; 0 if it was not estimated.
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
            return Video(source)  # a partly corrupt video may still have readable clips
        except CacheError as error:
            if not self.optional:
                raise
            _warn_once(str(error))
            return Video(source)


NO_CACHE = CachePlan(False)


def plan(source: Any, cfg: Any, grey: bool) -> CachePlan:
    """Decides whether to cache the videos of a `Source`, from a config's data section."""
    if not cfg.cache:
        return NO_CACHE
    if cfg.cache != "auto":
        return CachePlan(True)
    videos = []
    for i in range(len(source)):
        video = source[i].video
        # Other videos read fast as they are, or are generated.
        if not isinstance(video, str) and (
            isinstance(video, bytes | Opens) or getattr(video, "generated", False)
        ):
            return NO_CACHE
        videos.append(video)
    if not videos:
        return NO_CACHE
    gigabytes = _decoded_gigabytes(_Videos(source.fingerprint, videos), grey)
    return CachePlan(0 < gigabytes <= cfg.cache_gb, True, gigabytes)


class _Videos:
    """Paths of videos, or references to them, hashable so that the estimate of their size is cached."""

    def __init__(self, fingerprint: str, videos: Sequence[Any]):
        self.fingerprint = fingerprint
        self.distinct = list(dict.fromkeys(videos))

    def __hash__(self) -> int:
        return hash((self.fingerprint, self.distinct[0]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Videos) and self.distinct == other.distinct


@functools.lru_cache(maxsize=8)
def _decoded_gigabytes(videos: _Videos, grey: bool) -> float:
    """Estimates the size of all decoded frames from a few videos; 0 if none of them can be read."""
    sizes = []
    count = len(videos.distinct)
    for i in np.linspace(0, count - 1, min(_PROBES, count)).astype(int):
        source = videos.distinct[i]
        try:
            with Video(source if isinstance(source, str) else source.read()) as video:
                sizes.append(math.prod(_shape(video, grey)))
        except DecodeError:  # reported when the video is read
            continue
    return float(np.mean(sizes or [0])) * count / 1e9


def _shape(video: Video, grey: bool) -> tuple[int, ...]:
    return video.num_frames, video.height, video.width, 1 if grey else 3


_warnings: dict[str, object] = {}


def _warn_once(text: str) -> None:
    mine = object()
    if _warnings.setdefault(text, mine) is mine:  # atomic, so that concurrent threads warn once
        logging.warning("%s", text)


class CachedVideo:
    """A video whose frames are read from the cache, which the first use fills.

    Has the attributes and methods of `Video` that reading clips requires.
    """

    def __init__(self, source: str | os.PathLike | bytes, grey: bool = False, optional: bool = False):
        """Opens a video from the cache, decoding it into the cache first if it is not there.

        Args:
          source: path of the video, or the encoded file as bytes.
          grey: whether to cache only the luma.
          optional: whether to raise CacheError if the video is too large or the disk is nearly full.

        Raises:
          DecodeError: a frame of the source cannot be decoded.
          CacheError: the cache cannot be written.
        """
        path = cache_dir() / "frames" / f"{_digest(source, grey)}.frames"
        if not path.is_file():
            with stage("fill cache"):
                _write(path, source, grey, optional)
        # A custom header, because numpy parses its own with `ast`, which occasionally fails in threads.
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
    """Removes partial files left by killed processes on this machine."""
    for part in folder.glob(f".*.{platform.node()}.*.*.part"):
        try:
            os.kill(int(part.name.split(".")[-3]), 0)
        except (ProcessLookupError, ValueError):
            part.unlink(missing_ok=True)
        except PermissionError:  # the process is alive and belongs to another user
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
