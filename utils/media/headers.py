"""What a header declares, read without any decoder: a picture's size, frames and metadata; edits of a video.

The confined child asks before it decodes, so that a decompression bomb costs nothing: a bounded number of small reads
and some arithmetic. Whatever cannot be read here goes on to the decoder, whose answer is judged again.
"""

from __future__ import annotations

import os
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


@dataclass(frozen=True)
class Header:
    """What a header declares.

    Args:
        width: pixels as stored, not turned upright; None where no size was found.
        height: the same.
        frames: of an animation, counted to just above `MAX_FRAMES`.
        blocks: of metadata, counted to just above `MAX_BLOCKS`.
        metadata_bytes: in those blocks, as far as the file reaches.
    """

    width: int | None = None
    height: int | None = None
    frames: int = 1
    blocks: int = 0
    metadata_bytes: int = 0


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
    if format_name == "jpeg":
        return _jpeg(untrusted_file)
    if format_name == "png":
        return _png(untrusted_file)
    if format_name == "webp":
        return _webp(untrusted_file)
    return Header()


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _jpeg(file: BinaryIO) -> Header:
    at, blocks, total = 2, 0, 0
    while blocks <= MAX_BLOCKS:
        head = _read(file, at, 9)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):  # the end, or pixels before any size
            break
        if head[1] == 0xFF:  # a fill byte before the marker
            at, blocks = at + 1, blocks + 1
        elif head[1] in _STANDALONE:
            at, blocks = at + 2, blocks + 1
        elif 0xC0 <= head[1] <= 0xCF and head[1] not in _NO_SIZE:
            if len(head) < 9:
                break
            height, width = int.from_bytes(head[5:7], "big"), int.from_bytes(head[7:9], "big")
            return Header(width, height, blocks=blocks, metadata_bytes=total)
        else:
            size = max(2, int.from_bytes(head[2:4], "big"))
            at, blocks, total = at + 2 + size, blocks + 1, total + size
    return Header(blocks=blocks, metadata_bytes=total)


def _png(file: BinaryIO) -> Header:
    head = _read(file, 8, 16)
    if len(head) < 16 or head[4:8] != b"IHDR":
        return Header()
    width, height = int.from_bytes(head[8:12], "big"), int.from_bytes(head[12:16], "big")
    at, blocks, total, frames = 8 + 12 + int.from_bytes(head[:4], "big"), 0, 0, 1
    end = file.seek(0, os.SEEK_END)
    while blocks <= MAX_BLOCKS:
        head = _read(file, at, 12)
        if len(head) < 12 or head[4:8] in (b"IDAT", b"IEND"):
            break
        size = int.from_bytes(head[:4], "big")
        if head[4:8] == b"acTL":
            frames = min(max(1, int.from_bytes(head[8:12], "big")), MAX_FRAMES + 1)
        at, blocks, total = at + 12 + size, blocks + 1, total + min(size, end - at)
    return Header(width, height, frames, blocks, total)


def _webp(file: BinaryIO) -> Header:
    head = _read(file, 0, 30)
    if len(head) < 30:
        return Header()
    width = height = None
    chunk = head[12:16]
    if chunk == b"VP8X":
        width, height = 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    elif chunk == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF)
    elif chunk == b"VP8 ":
        width, height = (int.from_bytes(head[n : n + 2], "little") & 0x3FFF for n in (26, 28))
    at, frames, blocks, total = 12, 0, 0, 0
    end = file.seek(0, os.SEEK_END)
    while frames <= MAX_FRAMES and blocks <= MAX_BLOCKS:
        head = _read(file, at, 8)
        if len(head) < 8:
            break
        size = int.from_bytes(head[4:8], "little")
        if head[:4] == b"ANMF":
            frames += 1
        elif head[:4] not in (b"VP8 ", b"VP8L", b"ALPH"):
            blocks, total = blocks + 1, total + min(size, end - at)
        at += 8 + size + size % 2
    return Header(width, height, max(frames, 1), blocks, total)
