"""User data that cameras write into an H.264 or H.265 stream itself (SEI: places, speeds, settings), made filler.

Only their headers are read; a message becomes a unit of filler data of the same length, which decoders skip.

Source: ITU-T H.264 (7.3.1, 7.3.2.3, annex B, D.1), ITU-T H.265 (7.3.1, 7.3.2.4, annex B, D.2), ISO/IEC 14496-15
(lengths of units, decoder configuration records).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from web_app.storage.clean.effort import Effort

USER_DATA = frozenset((4, 5))  # registered (ITU-T T.35) and unregistered
MAX_MESSAGE = 1 << 20
_START_CODE = re.compile(rb"\x00\x00\x01")
_HEVC_ARRAYS = 22  # where a configuration record of H.265 lists its parameter sets


@dataclass(frozen=True)
class Units:
    """How the units of a stream are told apart.

    Args:
        length_bytes: of the length before each unit; 0 where start codes divide them.
        h265: whether it is H.265 and not H.264.
    """

    length_bytes: int
    h265: bool


def units_of(h265: bool, configuration: bytes) -> Units:
    """The units that a decoder configuration record (`avcC`, `hvcC`) announces."""
    return Units((configuration[21 if h265 else 4] & 3) + 1, h265)


def messages(data: bytes, start: int, end: int, units: Units, effort: Effort) -> Iterator[tuple[int, bytes]]:
    """Where user data stand within one sample, and the filler for each.

    Args:
        data: the whole file.
        start: of the sample.
        end: of the sample.
        units: how to read it.
        effort: that it may take.
    """
    divide = _by_length if units.length_bytes else _by_start_code
    for first, stop in divide(data, start, min(end, len(data)), units.length_bytes, effort):
        if stop > first and _is_message(data[first], units.h265):
            yield from _filler(data, first, stop, units.h265, effort)


def configured(data: bytes, start: int, end: int, units: Units, effort: Effort) -> Iterator[tuple[int, bytes]]:
    """The same within the decoder configuration record of an H.265 stream; encoders write their settings there."""
    if not units.h265:
        return
    at = start + _HEVC_ARRAYS + 1
    for _ in range(data[at - 1]):
        count = int.from_bytes(data[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            effort.spend()
            first = at + 2
            at = first + int.from_bytes(data[at:first], "big")
            if at > end:
                return
            if at > first and _is_message(data[first], h265=True):
                yield from _filler(data, first, at, True, effort)


def _by_length(data: bytes, start: int, end: int, width: int, effort: Effort) -> Iterator[tuple[int, int]]:
    at = start
    while at + width < end:
        effort.spend()
        first = at + width
        at = first + int.from_bytes(data[at:first], "big")
        if at > end:
            return
        yield first, at


def _by_start_code(data: bytes, start: int, end: int, _width: int, effort: Effort) -> Iterator[tuple[int, int]]:
    first = None
    for code in _START_CODE.finditer(data, start, end):
        effort.spend()
        if first is not None:
            yield first, code.start()
        first = code.end()
    if first is not None:
        yield first, end


def _is_message(head: int, h265: bool) -> bool:
    return head >> 1 & 0x3F in (39, 40) if h265 else head & 0x1F == 6


def _filler(data: bytes, first: int, stop: int, h265: bool, effort: Effort) -> Iterator[tuple[int, bytes]]:
    if stop - first > MAX_MESSAGE:
        raise ValueError("a very long message")
    unit = bytes(data[first:stop]).rstrip(b"\0")  # zeros behind a unit belong to the next start code
    if _is_user_data(unit[1 + h265 :], effort):
        filler = b"\x4c\x01" if h265 else b"\x0c"
        yield first, (filler + b"\xff" * len(unit))[: len(unit) - 1] + b"\x80"


def _is_user_data(escaped: bytes, effort: Effort) -> bool:
    """Whether one of the messages in a unit is of the user's."""
    body = escaped.replace(b"\0\0\x03", b"\0\0")
    at = 0
    while at + 2 < len(body):
        begun = at
        kind, at = _number(body, at)
        size, at = _number(body, at)
        effort.spend(at - begun)
        if kind in USER_DATA:
            return True
        at += size
    return False


def _number(body: bytes, at: int) -> tuple[int, int]:
    total = 0
    while at < len(body) and body[at] == 0xFF:
        total, at = total + 255, at + 1
    return total + (body[at] if at < len(body) else 0), at + 1
