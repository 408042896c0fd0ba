"""Whether a video file was cut off: its outermost structure promises more bytes than there are.

Demuxers take a missing end for a normal one, so `video.py` asks here before it reports a clip as complete. Only sizes
that the container writes down are compared; live recordings that leave them open count as complete.
"""

from __future__ import annotations

import io
import itertools
import os
from typing import BinaryIO

from utils.media.mp4 import boxes

OPEN_WAV_BYTES = 0x7FFF_F000
"""What programs that write a WAV into a pipe give as its size: they do not know it."""

MAX_BOXES = 10_000
"""Top-level boxes that are walked; a fragmented MP4 has two per fragment."""


def is_truncated(untrusted_file: BinaryIO, format_name: str) -> bool:
    """Tell whether the file is shorter than its container says.

    Args:
        untrusted_file: open for reading; its position is changed.

    Returns:
        True when bytes are missing at the end.
    """
    total = untrusted_file.seek(0, os.SEEK_END)
    if format_name in ("mp4", "mov", "m4a"):
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
    """An animated WebP that ends early as one that ends behind its last whole frame; None where there is none.

    Args:
        untrusted_file: open for reading; its position is changed.
    """
    total, at, end = untrusted_file.seek(0, os.SEEK_END), 12, 0
    for _ in range(MAX_BOXES):
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
    if format_name not in ("mp4", "mov", "m4a"):
        return False
    total = untrusted_file.seek(0, os.SEEK_END)
    found = itertools.islice(boxes(untrusted_file, 0, total), MAX_BOXES)
    return {name for name, _, stop in found if stop <= total}.isdisjoint((b"moov", b"moof"))


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _boxes_end(file: BinaryIO, total: int) -> int:
    """Where the last top-level box of an ISO file ends."""
    end = 0
    for name, _, stop in itertools.islice(boxes(file, 0, total), MAX_BOXES):
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
