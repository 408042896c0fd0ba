"""User data that cameras write into an H.264 or H.265 stream itself (SEI: places, speeds, settings), made filler.

Only their headers are read; a message becomes a unit of filler data of the same length, which decoders skip.

Source: ITU-T H.264 (7.3.1, 7.3.2.3, D.1), ITU-T H.265 (7.3.1, 7.3.2.4, D.2), ISO/IEC 14496-15 (lengths of units).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

CONFIGURATIONS = frozenset((b"avcC", b"hvcC"))
USER_DATA = frozenset((4, 5))  # registered (ITU-T T.35) and unregistered
MAX_MESSAGE = 1 << 20


@dataclass(frozen=True)
class Units:
    """How the units of a stream are told apart: bytes of a length, and whether it is H.265."""

    length_bytes: int
    h265: bool


def units_of(kind: bytes, configuration: bytes) -> Units:
    """The units that the box `avcC` or `hvcC` with this content announces."""
    at = 21 if kind == b"hvcC" else 4
    return Units((configuration[at] & 3) + 1, kind == b"hvcC")


def messages(data: bytes, start: int, end: int, units: Units) -> Iterator[tuple[int, bytes]]:
    """Where user data stand within one sample, and the filler for each.

    Args:
        data: the whole file.
        start: of the sample.
        end: of the sample.
        units: how to read it.
    """
    end = min(end, len(data))
    at, width = start, units.length_bytes
    while at + width < end:
        first = at + width
        stop = first + (struct.unpack_from(">I", data, at)[0] if width == 4 else int.from_bytes(data[at:first], "big"))
        head = data[first]
        if stop > end:
            return
        is_message = head >> 1 & 0x3F in (39, 40) if units.h265 else head & 0x1F == 6
        if is_message and stop > first:
            if stop - first > MAX_MESSAGE:
                raise ValueError("a very long message")
            if _is_user_data(bytes(data[first + 1 + units.h265 : stop])):
                filler = b"\x4c\x01" if units.h265 else b"\x0c"
                yield first, (filler + b"\xff" * (stop - first))[: stop - first - 1] + b"\x80"
        at = stop


def _is_user_data(escaped: bytes) -> bool:
    """Whether one of the messages in a unit is of the user's."""
    body = escaped.replace(b"\0\0\x03", b"\0\0")
    at = 0
    while at + 2 < len(body):
        kind, at = _number(body, at)
        size, at = _number(body, at)
        if kind in USER_DATA:
            return True
        at += size
    return False


def _number(body: bytes, at: int) -> tuple[int, int]:
    total = 0
    while at < len(body) and body[at] == 0xFF:
        total, at = total + 255, at + 1
    return total + (body[at] if at < len(body) else 0), at + 1
