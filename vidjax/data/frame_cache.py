"""Decoded frames kept on disk, so that a small dataset is decoded once for all runs (`data.cache`).

A file holds one video as stored: its rate, the times of its frames, and all of them, uint8 [N, H, W, C]. Its
name is a digest of what was decoded: the encoded bytes, or the path, size and time of change of a file.
It costs a byte for each pixel and colour: 1 GB for some 200 videos of 100 frames of 180x90.
"""

import hashlib
import os
from pathlib import Path
from types import TracebackType

import numpy as np

from vidjax.data import sampling
from vidjax.data.decode import DecodeError, Video
from vidjax.errors import UserError

_FORMAT = b"3"  # another layout, or other frames of the same file, is another name


def cache_dir() -> Path:
    """Where vidjax keeps what it made: $VIDJAX_CACHE, or ~/.cache/vidjax."""
    return Path(os.environ.get("VIDJAX_CACHE") or "~/.cache/vidjax").expanduser()


class CachedVideo:
    """The frames of a video, read from the cache; decoded into it the first time.

    Stands in for `Video` where clips are read: its attributes and methods are as there.

    Raises:
      DecodeError: where the source cannot be decoded as a whole.
      UserError: where the cache cannot be written.
    """

    def __init__(self, source: str | os.PathLike | bytes, grey: bool = False):
        path = cache_dir() / "frames" / f"{_digest(source, grey)}.frames"
        if not path.is_file():
            _write(path, source, grey)
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
            raise ValueError("these frames were cached in colour")
        return self._frames[np.asarray(indices, np.int64)]


def _digest(source: str | os.PathLike | bytes, grey: bool) -> str:
    if not isinstance(source, bytes):
        try:
            stat = os.stat(source)
        except OSError as e:
            raise DecodeError(f"{source}: {e.strerror}") from e
        source = f"{os.path.abspath(source)}|{stat.st_size}|{stat.st_mtime_ns}".encode()
    return hashlib.blake2b(_FORMAT + (b"grey" if grey else b"rgb") + source, digest_size=16).hexdigest()


def _write(path: Path, source: str | os.PathLike | bytes, grey: bool) -> None:
    with Video(source) as video:
        frames = video.frames(np.arange(video.num_frames), grey)
        clock, times = (video.fps, video.tolerance), video.times
    part = path.with_name(f".{path.name}.{os.getpid()}.{id(frames)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            for array in ((*clock, *frames.shape), times):
                file.write(np.asarray(array, np.float64).tobytes())
            file.write(np.ascontiguousarray(frames).data)
        os.replace(part, path)
    except OSError as e:
        if part.exists():
            part.unlink()
        raise UserError(f"cannot keep decoded frames in {path.parent} ({e.strerror}); see data.cache") from e
