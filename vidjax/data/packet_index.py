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

_VERSION = 2  # increment when the layout or the rules of indexing change
_HEAD = struct.Struct("<BI")  # version, and checksum of the rest
_FIXED = struct.Struct("<QIqqd6I")  # the numbers of an index, and the lengths of its arrays
_CODED = struct.Struct("<9i")  # the numbers of `Packets`
PROBE = 4096  # bytes at the start of a file that identify it


@dataclasses.dataclass(frozen=True, eq=False)
class Packets:
    """The packets of a stream, in decoding order, so that it can be decoded without its container.

    Attributes:
      codec: name of ffmpeg's decoder.
      tag: four characters by which the container names the codec.
      extradata: the codec's headers that the container stores.
      height, width: size of a frame in pixels.
      reorder: number of frames by which the decoder delays its output to reorder frames.
      color: color range, primaries, transfer characteristic and matrix, as ffmpeg numbers them.
      skips: whether frames that are not references can be skipped without changing other frames.
      offsets: int64 [P], positions in the file in bytes.
      sizes: int64 [P], in bytes.
      pts: int64 [P], timestamps in ticks.
    """

    codec: str
    tag: str
    extradata: bytes
    height: int
    width: int
    reorder: int
    color: tuple[int, int, int, int]
    skips: bool
    offsets: np.ndarray
    sizes: np.ndarray
    pts: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class PacketIndex:
    """Where the frames of a video file are.

    Attributes:
      size: size of the file in bytes.
      probe: checksum of the first bytes of the file.
      time_base: seconds per tick of the container's clock.
      fps: average frames per second.
      times: float64 [N], seconds from the first frame to each frame.
      pts: int64 [N], timestamps of the frames in ticks; None if the timestamps are not reliable, so that
        frames are found only by decoding from the start.
      starts: int64 [K], ascending timestamps of the packets at which decoding can start; None like `pts`.
      packets: the packets; None if decoding requires the container.
    """

    size: int
    probe: int
    time_base: Fraction
    fps: float
    times: np.ndarray
    pts: np.ndarray | None = None
    starts: np.ndarray | None = None
    packets: Packets | None = None

    def fits(self, size: int, first: bytes) -> bool:
        """Returns whether this is the index of a file of `size` bytes that begins with `first`."""
        return (self.size, self.probe) == (size, probe(first))

    def to_bytes(self) -> bytes:
        """Serializes the index, in about 4 bytes per frame."""
        ticks, times, coded, names = [], b"", b"", b""
        if self.pts is None or not np.array_equal(self.times, _times(self.pts, self.time_base)):
            times = self.times.astype("<f8").tobytes()
        if self.pts is not None:
            ticks = [self.pts, self.starts]
        if (packets := self.packets) is not None:
            ticks += [packets.pts, packets.offsets - _before(packets.sizes), packets.sizes]
            names = packets.tag.encode("latin-1") + packets.codec.encode() + b"\0" + packets.extradata
            shape = packets.height, packets.width
            coded = _CODED.pack(len(packets.pts), *shape, packets.reorder, *packets.color, packets.skips)
        steps = b"".join(_steps(x) for x in ticks)
        rest = zlib.compress(b"".join((coded, names, times, steps)))
        lengths = [len(x) for x in (coded, names, times, steps)]
        count, starts = (0, 0) if self.pts is None else (len(self.pts), len(self.starts))
        clock = self.time_base.numerator, self.time_base.denominator
        rest = _FIXED.pack(self.size, self.probe, *clock, self.fps, count, starts, *lengths) + rest
        return _HEAD.pack(_VERSION, zlib.crc32(rest)) + rest

    @classmethod
    def from_bytes(cls, data: bytes) -> "PacketIndex":
        """Restores an index from `to_bytes`.

        Raises:
          ValueError: the data is damaged or was written by another version.
        """
        if len(data) < _HEAD.size + _FIXED.size:
            raise ValueError("not a packet index: too short")
        rest = memoryview(data)[_HEAD.size :]
        if _HEAD.unpack_from(data) != (_VERSION, zlib.crc32(rest)):
            raise ValueError("not a packet index, or a damaged one")
        size, first, *clock, fps, count, starts, coded, names, times, steps = _FIXED.unpack_from(rest)
        body = zlib.decompress(rest[_FIXED.size :], bufsize=coded + names + times + steps)
        base, packets, place = Fraction(*clock), None, coded + names
        moments = np.frombuffer(body, "<f8", times // 8, place).astype(np.float64)
        if not count:
            return cls(size, first, base, fps, moments)
        place += times
        pts, place = _sums(body, count, place)
        keys, place = _sums(body, starts, place)
        if coded:
            total, height, width, reorder, *color, skips = _CODED.unpack_from(body)
            stamps, place = _sums(body, total, place)
            offsets, place = _sums(body, total, place)
            sizes, place = _sums(body, total, place)
            tag = body[coded : coded + 4].decode("latin-1")
            codec, _, extradata = body[coded + 4 : coded + names].partition(b"\0")
            offsets += _before(sizes)
            shape = height, width, reorder, tuple(color), bool(skips)
            packets = Packets(codec.decode(), tag, extradata, *shape, offsets, sizes, stamps)
        return cls(size, first, base, fps, moments if times else _times(pts, base), pts, keys, packets)


def _times(pts: np.ndarray, time_base: Fraction) -> np.ndarray:
    return (pts - pts[0]) * float(time_base)


def _before(sizes: np.ndarray) -> np.ndarray:
    """Returns the offsets of packets that lie one after the other."""
    return np.cumsum(sizes) - sizes


def _steps(values: np.ndarray) -> bytes:
    """Serializes integers as their differences, byte by byte, which compresses well."""
    return np.diff(values, prepend=0).astype("<i8").view(np.uint8).reshape(-1, 8).T.tobytes()


def _sums(data: bytes, count: int, place: int) -> tuple[np.ndarray, int]:
    """Restores `count` integers from the bytes of `_steps` at `place`. Returns them and where they end."""
    planes = np.frombuffer(data, np.uint8, 8 * count, place).reshape(8, count)
    steps = np.ascontiguousarray(planes.T).view("<i8")[:, 0]
    return np.cumsum(steps, dtype=np.int64), place + 8 * count


def probe(first: bytes) -> int:
    """Returns the checksum of the first bytes of a file."""
    return zlib.crc32(first[:PROBE])


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
