"""How many edits an MP4 or MOV asks for, read without a demuxer.

FFmpeg's time for an edit list grows with the square of its length: half a million edits in 6 MB keep it busy for
minutes. `headers.py` asks here and refuses; real clips have one to three.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO

MAX_BOXES = 4000
"""Boxes that are looked at in all; a fragmented MP4 has two per fragment, at the top level."""

_INSIDE = {b"moov": b"trak", b"trak": b"edts", b"edts": b"elst"}


def boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, beginning of the body and end of each box (ISO/IEC 14496-12, section 4.2); it stops at one without a size.

    Args:
        file: open for reading; its position is changed.
        at: where the first box begins.
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
    """The entries of the longest edit list (ISO/IEC 14496-12, section 8.6.6), by its own word; 0 without one.

    Args:
        untrusted_file: open for reading; its position is changed.
    """
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
