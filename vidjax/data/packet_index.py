"""The frame index of a video file: when each frame is shown, and where decoding can start.

Building an index requires reading all packets of a file, or even decoding it, so indices are cached in
`$VIDJAX_CACHE/index`. The name of a cached index is a digest of the path, size and modification time of the
file.
"""

import contextlib
import dataclasses
import hashlib
import os
import struct
import tempfile
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidjax.data.cache_folder import cache_dir
from vidjax.errors import UserError

_VERSION = 1  # increment when the layout or the rules of indexing change
_HEAD = struct.Struct("<BIQqqIII")  # version, checksum of the rest, and the numbers of an index


@dataclasses.dataclass(frozen=True, eq=False)
class PacketIndex:
    """Where the frames of a video file are.

    Attributes:
      size: size of the file in bytes.
      time_base: seconds per tick of the container's clock.
      times: float64 [N], seconds from the first frame to each frame.
      pts: int64 [N], timestamps of the frames in ticks; None if the timestamps are not reliable, so that
        frames are found only by decoding from the start.
      starts: int64 [K], ascending timestamps of the packets at which decoding can start; None like `pts`.
    """

    size: int
    time_base: Fraction
    times: np.ndarray
    pts: np.ndarray | None
    starts: np.ndarray | None

    def to_bytes(self) -> bytes:
        """Serializes the index, in about 100 bytes for a video of 300 frames at a constant rate."""
        if self.pts is None:
            count, starts, arrays = len(self.times), 0, self.times.tobytes()
        else:
            count, starts = len(self.pts), len(self.starts)
            deltas = (np.diff(x, prepend=0).astype("<i8").tobytes() for x in (self.pts, self.starts))
            arrays = b"".join(deltas)
            if not np.array_equal(self.times, _times(self.pts, self.time_base)):
                arrays += self.times.tobytes()
        data = zlib.compress(arrays)
        clock = (self.time_base.numerator, self.time_base.denominator)
        head = [self.size, *clock, count, starts, len(arrays)]
        checksum = zlib.crc32(_HEAD.pack(_VERSION, 0, *head) + data)
        return _HEAD.pack(_VERSION, checksum, *head) + data

    @classmethod
    def from_bytes(cls, data: bytes) -> "PacketIndex":
        """Restores an index from `to_bytes`.

        Raises:
          ValueError: the data is damaged or was written by another version.
        """
        if len(data) < _HEAD.size:
            raise ValueError("not a packet index: too short")
        version, checksum, *head = _HEAD.unpack_from(data)
        rest = data[_HEAD.size :]
        if version != _VERSION or zlib.crc32(_HEAD.pack(version, 0, *head) + rest) != checksum:
            raise ValueError("not a packet index, or a damaged one")
        size, numerator, denominator, count, num_starts, length = head
        base, arrays = Fraction(numerator, denominator), zlib.decompress(rest, bufsize=length)
        if not num_starts:
            return cls(size, base, np.frombuffer(arrays, np.float64), None, None)
        ticks = np.frombuffer(arrays, "<i8", count + num_starts)
        pts, starts = np.cumsum(ticks[:count]), np.cumsum(ticks[count:])
        times = np.frombuffer(arrays, np.float64, offset=ticks.nbytes)
        return cls(size, base, times if times.size else _times(pts, base), pts, starts)


def _times(pts: np.ndarray, time_base: Fraction) -> np.ndarray:
    return (pts - pts[0]) * float(time_base)


def size_of(source: str | bytes) -> int:
    """Returns the size in bytes of a file, given by its path or its contents."""
    return len(source) if isinstance(source, bytes) else os.stat(source).st_size


def entry(path: str) -> Path | None:
    """Returns the path of the cached index of a file in its present state; None if none can be cached."""
    try:
        stat, folder = os.stat(path), cache_dir() / "index"
    except (OSError, UserError):
        return None
    # Other versions of ffmpeg may find other frames in a damaged file.
    key = f"{_VERSION}|{av.__version__}|{os.path.abspath(path)}|{stat.st_size}|{stat.st_mtime_ns}"
    name = hashlib.blake2b(os.fsencode(key), digest_size=16).hexdigest()
    return folder / name[:2] / name[2:]


def load(entry: Path) -> PacketIndex | None:
    """Returns a cached index; None if there is none that is intact."""
    try:
        return PacketIndex.from_bytes(entry.read_bytes())
    except (OSError, ValueError, zlib.error):
        return None


def save(entry: Path, index: PacketIndex) -> None:
    """Caches an index; does nothing if the cache cannot be written."""
    part = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=entry.parent, delete=False) as file:
            part = file.name
            file.write(index.to_bytes())
        os.replace(part, entry)
    except OSError:
        if part is not None:
            with contextlib.suppress(OSError):
                os.unlink(part)
