"""Decoding of packets that are read from a file without its container, which saves the time to open it."""

from collections.abc import Callable, Collection, Iterator

import av
import numpy as np
from av.video.frame import VideoFrame

from vidjax.data.packet_index import Packets

CODECS = {"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mjpeg"}  # that need no more than `Packets` holds
HEADER = 64  # bytes; bound on a container's header before the data of a packet
SIDE_DATA = ("new_extradata", "palette", "param_change")  # what a container may change between packets

Read = Callable[[int, int], bytes]  # (offset, size) -> bytes of the file


class PacketDecoder:
    """Decodes ranges of packets."""

    def __init__(self, packets: Packets):
        self._packets = packets
        self._context = av.CodecContext.create(packets.codec, "r")
        self._context.extradata = packets.extradata or None
        self._context.codec_tag = packets.tag
        self._context.thread_count = 1
        for name, value in zip(("color_range", "color_primaries", "color_trc", "colorspace"), packets.color):
            setattr(self._context, name, value)

    def frames(self, read: Read, first: int, end: int, wanted: Collection[int]) -> Iterator[VideoFrame]:
        """Yields the frames of the packets [first, end) that `read` returns, in display order.

        Frames that are neither references nor at a pts in `wanted` may be missing.

        Raises:
          OSError, ValueError, FFmpegError: the packets cannot be read or decoded.
        """
        packets, context = self._packets, self._context
        context.flush_buffers()
        context.reorder_depth = packets.reorder  # a flush forgets what streams do not declare
        places = (x[first:end].tolist() for x in (packets.offsets, packets.sizes, packets.pts))
        for offset, size, pts in zip(*places):
            data = read(offset, size)
            if len(data) < size:
                raise ValueError("the file is shorter than its index")
            packet = av.Packet(size)  # with the padding that decoders require
            packet.update(data)
            packet.pts = pts
            if packets.skips:
                context.skip_frame = "DEFAULT" if pts in wanted else "NONREF"
            yield from context.decode(packet)
        yield from context.decode(None)


class PacketCollector:
    """Collects where the packets of a stream are in the file, for a `PacketDecoder`."""

    def __init__(self, read: Read, context: av.VideoCodecContext):
        self._read = read
        self._context = context
        self._codec = context.codec.canonical_name
        self._complete = self._codec in CODECS
        self._places = []
        self._layers = set()

    def add(self, packet: av.Packet) -> None:
        """Adds the next packet."""
        if not self._complete:
            return
        data = bytes(packet)
        near = -1 if packet.pos is None else self._read(packet.pos, len(data) + HEADER).find(data)
        self._complete = near >= 0 and not any(map(packet.has_sidedata, SIDE_DATA))
        if self._complete:
            self._places.append((packet.pos + near, len(data)))
        if self._codec == "hevc":
            self._layers |= _temporal_layers(data, self._context.extradata)

    def packets(self, pts: list[int]) -> Packets | None:
        """Returns the packets, given their pts; None if one cannot be decoded without the container."""
        if not self._complete or len(set(pts)) < len(pts):
            return None
        context, (offsets, sizes) = self._context, np.array(self._places, np.int64).T
        return Packets(
            codec=context.codec.name,
            tag=context.codec_tag,
            extradata=context.extradata or b"",
            height=context.height,
            width=context.width,
            reorder=context.reorder_depth,
            color=(context.color_range, context.color_primaries, context.color_trc, context.colorspace),
            # No frame depends on a frame of H.264 that is not a reference. In H.265, frames of a higher
            # temporal layer may.
            skips=self._codec == "h264" or self._layers == {0},
            offsets=offsets,
            sizes=sizes,
            pts=np.array(pts, np.int64),
        )


def _temporal_layers(data: bytes, extradata: bytes | None) -> set[int | None]:
    """Returns the temporal layers of the slices in an H.265 packet, {None} if they are unknown."""
    if not extradata or extradata[0] != 1:
        return {None}
    prefix, place, found = (extradata[21] & 3) + 1, 0, set()  # ISO/IEC 14496-15, section 8.3.3.1.2
    while place + prefix + 2 <= len(data):
        unit = place + prefix
        if data[unit] >> 1 & 63 < 32:  # a slice; ITU-T H.265, section 7.3.1.2
            found.add((data[unit + 1] & 7) - 1)
        place = unit + int.from_bytes(data[place:unit])
    return found
