"""What a header declares, read without any decoder: a picture's size, frames and metadata; edits of a video.

The confined child asks before it decodes, so that a decompression bomb costs nothing: a bounded number of small reads
and some arithmetic. Whatever cannot be read here goes on to the decoder, whose answer is judged again.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from utils.errors import DecoderLimitError
from utils.media.limits import MediaLimits
from utils.media.mp4 import edit_count

MAX_FRAMES = 1000
"""Frames of an animated picture; only the first is analysed, but a decoder looks at all of them."""

MAX_BLOCKS = 512
"""Blocks of metadata before the pixels; an ICC profile in a JPEG may take 255, a depth map a hundred."""

MAX_EDITS = 1000
"""Entries of a video's edit list; see `mp4.py`."""

MAX_METADATA_BYTES = 40_000_000
"""All blocks of metadata before the pixels together; the largest profiles and depth maps have some MB."""

_NO_SIZE = frozenset((0xC4, 0xC8, 0xCC))  # tables between the start-of-frame markers
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))


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
        untrusted_file: open for reading; its position is changed.
        format_name: of the sniffed format; of videos, only edit lists are looked at.

    Raises:
        MediaDimensionsError: a size outside the limits.
        DecoderLimitError: more frames or metadata than a picture needs, or more edits than a video does.
    """
    if format_name in ("mp4", "mov", "m4a"):
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
