"""What a file's structure says, read without any decoder: a picture's size, frames and metadata; a video's edits, and
whether the end of a film or recording is missing.

The confined child asks before it decodes, so that a decompression bomb costs nothing: a bounded number of small reads
and some arithmetic. Whatever cannot be read here goes on to the decoder, whose answer is judged again. FFmpeg's time
for an edit list grows with the square of its length: half a million edits in 6 MB keep it busy for minutes. Demuxers
take a missing end for a normal one; only sizes that a container writes down tell, and live recordings leave them open.
Files are open for reading; all functions here change their position.
"""

from __future__ import annotations

import io
import itertools
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from utils.errors import DecoderLimitError
from utils.media.limits import MediaLimits

MAX_FRAMES = 1000
"""Frames of an animated picture; only the first is analysed, but a decoder looks at all of them."""

MAX_BLOCKS = 512
"""Blocks of metadata before the pixels; an ICC profile in a JPEG may take 255, a depth map a hundred."""

MAX_EDITS = 1000
"""Entries of a video's edit list; real clips have one to three."""

MAX_BOXES, MAX_TOP_BOXES = 4000, 10_000
"""Boxes that are looked at for edits, and on the top level, where a fragmented MP4 has two per fragment."""

OPEN_WAV_BYTES = 0x7FFF_F000
"""What programs that write a WAV into a pipe give as its size: they do not know it."""

MAX_METADATA_BYTES = 40_000_000
"""All blocks of metadata before the pixels together; the largest profiles and depth maps have some MB."""

_NO_SIZE = frozenset((0xC4, 0xC8, 0xCC))  # tables between the start-of-frame markers
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_INSIDE = {b"moov": b"trak", b"trak": b"edts", b"edts": b"elst"}
_ISO = ("mp4", "mov", "m4a")


@dataclass
class Header:
    """What a header declares, while it is read.

    Args:
        width, height: pixels as stored, not turned upright; None where no size was found.
        frames: of an animation, counted to just above `MAX_FRAMES`.
        blocks: of metadata, counted to just above `MAX_BLOCKS`.
        metadata_bytes: in those blocks, as far as the file reaches.
    """

    width: int | None = None
    height: int | None = None
    frames: int = 1
    blocks: int = 0
    metadata_bytes: int = 0

    def add(self, size: int) -> None:
        """Count a block of metadata of so many bytes."""
        self.blocks, self.metadata_bytes = self.blocks + 1, self.metadata_bytes + size

    @property
    def is_refused(self) -> bool:
        """Whether there are too many frames or blocks already."""
        return self.frames > MAX_FRAMES or self.blocks > MAX_BLOCKS


def check_header(untrusted_file: BinaryIO, format_name: str, limits: MediaLimits) -> None:
    """Refuse a medium whose header declares more than we decode.

    Args:
        format_name: of the sniffed format; of videos, only edit lists are looked at.

    Raises:
        MediaDimensionsError: a size outside the limits.
        DecoderLimitError: more frames or metadata than a picture needs, or more edits than a video does.
    """
    if format_name in _ISO:
        if edit_count(untrusted_file) > MAX_EDITS:
            raise DecoderLimitError(f"The video has an edit list of more than {MAX_EDITS} entries.")
        return
    header = read_header(untrusted_file, format_name)
    if header.width and header.height:
        limits.check_size(header.width, header.height, reducible=format_name == "jpeg")
    if header.frames > MAX_FRAMES:
        raise DecoderLimitError(f"The animation has more than {MAX_FRAMES} frames.")
    if header.blocks > MAX_BLOCKS:
        raise DecoderLimitError(f"The picture carries more than {MAX_BLOCKS} blocks of metadata.")
    if header.metadata_bytes > MAX_METADATA_BYTES:
        raise DecoderLimitError(f"The picture carries more than {MAX_METADATA_BYTES // 10**6} MB of metadata.")


def read_header(untrusted_file: BinaryIO, format_name: str) -> Header:
    """Read what a picture's header declares; an empty answer for videos and for what is cut off or broken.

    Source: ITU-T T.81 B.1.1 and B.2.2 (JPEG), PNG third edition 11.2.1 and 11.3.6 (APNG), RFC 9649 2.5 to 2.7 (WebP).
    """
    header = Header()
    if format_name in _READERS:
        _READERS[format_name](untrusted_file, header)
    return header


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _jpeg(file: BinaryIO, header: Header) -> None:
    at = 2
    while not header.is_refused:
        head = _read(file, at, 9)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):  # the end, or pixels before any size
            return
        if 0xC0 <= head[1] <= 0xCF and head[1] not in _NO_SIZE:
            if len(head) == 9:
                header.height, header.width = struct.unpack(">HH", head[5:])
            return
        if head[1] == 0xFF:  # a fill byte before the marker
            at, size = at + 1, 0
        elif head[1] in _STANDALONE:
            at, size = at + 2, 0
        else:
            size = max(2, int.from_bytes(head[2:4], "big"))
            at += 2 + size
        header.add(size)


def _png(file: BinaryIO, header: Header) -> None:
    head = _read(file, 8, 16)
    if len(head) < 16 or head[4:8] != b"IHDR":
        return
    header.width, header.height = struct.unpack(">II", head[8:])
    at, end = 20 + int.from_bytes(head[:4], "big"), file.seek(0, os.SEEK_END)
    while not header.is_refused:
        head = _read(file, at, 12)
        if len(head) < 12 or head[4:8] in (b"IDAT", b"IEND"):
            return
        size = int.from_bytes(head[:4], "big")
        if head[4:8] == b"acTL":
            header.frames = min(max(1, int.from_bytes(head[8:12], "big")), MAX_FRAMES + 1)
        header.add(min(size, end - at))
        at += 12 + size


def _webp(file: BinaryIO, header: Header) -> None:
    head = _read(file, 0, 30)
    if len(head) < 30:
        return
    chunk, bits = head[12:16], int.from_bytes(head[21:25], "little")
    if chunk == b"VP8X":
        header.width, header.height = (1 + int.from_bytes(head[n : n + 3], "little") for n in (24, 27))
    elif chunk == b"VP8L":
        header.width, header.height = 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF)
    elif chunk == b"VP8 ":
        header.width, header.height = (int.from_bytes(head[n : n + 2], "little") & 0x3FFF for n in (26, 28))
    at, frames, end = 12, 0, file.seek(0, os.SEEK_END)
    while not header.is_refused and len(head := _read(file, at, 8)) == 8:
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"ANMF":
            frames += 1
            header.frames = frames
        elif head[:4] not in (b"VP8 ", b"VP8L", b"ALPH"):
            header.add(min(size, end - at))
        at += 8 + size + size % 2


_READERS = {"jpeg": _jpeg, "png": _png, "webp": _webp}


def boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, beginning of the body and end of each box (ISO/IEC 14496-12, section 4.2); it stops at one without a size.

    Args:
        end: where the last one may end; a box's own end may lie behind it.
    """
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        size, start = int.from_bytes(head[:4], "big"), at + 8
        if size == 1:
            size, start = int.from_bytes(head[8:16], "big"), at + 16
        elif size == 0:
            size = end - at
        if size < start - at:
            return
        yield head[4:8], start, at + size
        at += size


def edit_count(untrusted_file: BinaryIO) -> int:
    """The entries of the longest edit list (ISO/IEC 14496-12, section 8.6.6), by its own word; 0 without one."""
    longest, seen = 0, 0
    waiting = [(b"moov", 0, untrusted_file.seek(0, 2))]
    while waiting:
        wanted, at, end = waiting.pop()
        for name, start, stop in itertools.islice(boxes(untrusted_file, at, end), MAX_BOXES - seen):
            seen += 1
            if name == wanted == b"elst":
                untrusted_file.seek(start + 4)
                longest = max(longest, min(int.from_bytes(untrusted_file.read(4), "big"), (stop - start - 8) // 12 + 1))
            elif name == wanted:
                waiting.append((_INSIDE[name], start, min(stop, end)))
    return longest


def is_truncated(untrusted_file: BinaryIO, format_name: str) -> bool:
    """Tell whether the file is shorter than its container says.

    Returns:
        True when bytes are missing at the end.
    """
    total = untrusted_file.seek(0, os.SEEK_END)
    if format_name in _ISO:
        return _boxes_end(untrusted_file, total) > total
    if format_name in ("matroska", "webm"):
        return _segment_end(untrusted_file, total) > total
    if format_name in ("avi", "wav"):
        size = int.from_bytes(_read(untrusted_file, 4, 4), "little")
        return size + 8 > total and not (format_name == "wav" and size >= OPEN_WAV_BYTES)
    if format_name == "mpegts":
        return total % 188 > 0 and total % 192 > 0
    return format_name == "flv" and not _flv_closed(untrusted_file, total)


def whole_frames(untrusted_file: BinaryIO) -> BinaryIO | None:
    """An animated WebP that ends early as one that ends behind its last whole frame; None where there is none."""
    total, at, end = untrusted_file.seek(0, os.SEEK_END), 12, 0
    for _ in range(MAX_TOP_BOXES):
        head = _read(untrusted_file, at, 8)
        size = int.from_bytes(head[4:8], "little")
        at += 8 + size + size % 2
        if len(head) < 8 or at > total:
            break
        end = at if head[:4] == b"ANMF" else end
    if not end or end == total:
        return None
    data = _read(untrusted_file, 0, end)
    return io.BytesIO(data[:4] + (end - 8).to_bytes(4, "little") + data[8:])


def lacks_index(untrusted_file: BinaryIO, format_name: str) -> bool:
    """Whether an MP4 or MOV file has neither a whole index (`moov`) nor fragments, as what was broken off."""
    if format_name not in _ISO:
        return False
    total = untrusted_file.seek(0, os.SEEK_END)
    found = itertools.islice(boxes(untrusted_file, 0, total), MAX_TOP_BOXES)
    return {name for name, _, stop in found if stop <= total}.isdisjoint((b"moov", b"moof"))


def _boxes_end(file: BinaryIO, total: int) -> int:
    """Where the last top-level box of an ISO file ends."""
    end = 0
    for name, _, stop in itertools.islice(boxes(file, 0, total), MAX_TOP_BOXES):
        if not name.isascii():
            break
        end = stop
    return end


def _segment_end(file: BinaryIO, total: int) -> int:
    """Where the Segment of a Matroska file ends (RFC 9559); the file's length where its size is left open."""
    at = 0
    for _ in range(8):  # the EBML header, perhaps Void elements, the Segment
        head = _read(file, at, 12)
        if len(head) < 5 or head[0] == 0 or head[0] < 0x10:
            return total
        id_length = 9 - head[0].bit_length()
        first = head[id_length]
        if first == 0:
            return total
        length = 9 - first.bit_length()
        mask = (1 << (7 * length)) - 1
        size = int.from_bytes(head[id_length : id_length + length], "big") & mask
        if size == mask:
            return total
        at += id_length + length + size
        if head[:4] == b"\x18\x53\x80\x67" or at > total:
            return at
    return total


def _flv_closed(file: BinaryIO, total: int) -> bool:
    """Whether an FLV ends with a whole tag: its last four bytes give that tag's size (FLV 10.1, annex E)."""
    if total < 13 + 4:
        return False
    tag_size = int.from_bytes(_read(file, total - 4, 4), "big")
    start = total - 4 - tag_size
    if tag_size < 11 or start < 9:
        return False
    return int.from_bytes(_read(file, start + 1, 3), "big") + 11 == tag_size
