"""H.264 and H.265 streams without what their encoders and cameras wrote between the pictures.

Supplemental enhancement information (SEI; H.264 and H.265, annex D) may hold anything: settings, places, captions. Of
it only what a player needs stays: where decoding may begin, how two views lie in a picture, orientation, light and
colours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

KEPT_MESSAGES = frozenset((6, 45, 47, 137, 144, 147))
"""Recovery point, frame packing, display orientation, mastering display, content light level, alternative transfer."""

_ESCAPED = re.compile(rb"\x00\x00(?=[\x00-\x03])")
_START_CODE = re.compile(rb"\x00\x00\x01")
_FILLER_MESSAGE = 3


class UserDataFilter:
    """Replaces user data in a stream's packets by filler, so that their sizes stay.

    Args:
        configuration: the decoder configuration of the stream (ISO/IEC 14496-15, 5.3.3 and 8.3.3), or its Annex B form.
        is_hevc: H.265, else H.264.
    """

    def __init__(self, configuration: bytes, *, is_hevc: bool) -> None:
        self._is_hevc = is_hevc
        self._head_bytes = 2 if is_hevc else 1
        at = 21 if is_hevc else 4
        has_lengths = configuration[:1] == b"\1" and len(configuration) > at
        self._length_bytes = (configuration[at] & 3) + 1 if has_lengths else 0

    def packet(self, data: bytes) -> bytes:
        """A packet with filler in place of user data.

        Raises:
            ValueError: its units do not fill it.
        """
        clean = bytearray(data)
        for start, end in self._units(data):
            if self._is_sei(data[start]):
                clean[start:end] = self._clean(data[start:end])
        return bytes(clean)

    def configuration(self, data: bytes) -> bytes:
        """The decoder configuration without user data.

        Raises:
            ValueError, IndexError: it is cut off.
        """
        if not self._length_bytes:
            return self.packet(data)  # nothing, or units with start codes
        if not self._is_hevc:
            return data  # it has room for parameter sets only
        arrays, at = [], 23
        for _ in range(data[22]):
            start, count = at, int.from_bytes(data[at + 1 : at + 3], "big")
            at += 3
            for _ in range(count):
                at += 2 + int.from_bytes(data[at : at + 2], "big")
            if at > len(data):
                raise ValueError("the decoder configuration is cut off")
            if not self._is_sei(data[start] << 1):
                arrays.append(data[start:at])
        return data[:22] + bytes([len(arrays)]) + b"".join(arrays)

    def _units(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Start and end of each unit of at least one byte."""
        if not self._length_bytes:
            codes = [match.span() for match in _START_CODE.finditer(data)]
            ends = [start for start, _ in codes[1:]] + [len(data)]
            yield from ((start, end) for (_, start), end in zip(codes, ends, strict=True) if start < end)
            return
        at = 0
        while at < len(data):
            start = at + self._length_bytes
            at = start + int.from_bytes(data[at:start], "big")
            if at > len(data):
                raise ValueError("a unit is longer than its packet")
            if start < at:
                yield start, at

    def _is_sei(self, first: int) -> bool:
        return first >> 1 & 0x3F in (39, 40) if self._is_hevc else first & 0x1F == 6

    def _clean(self, unit: bytes) -> bytes:
        """Supplemental information of the same length without user data."""
        head, content = unit[: self._head_bytes], unit[self._head_bytes :].replace(b"\0\0\3", b"\0\0")
        needed = b"".join(message for kind, message in _messages(content) if kind in KEPT_MESSAGES)
        for kept in (_ESCAPED.sub(b"\0\0\3", needed), b""):
            room = len(unit) - len(head) - len(kept) - 1
            if room == 0:
                return unit  # nothing else was in it
            if room >= 2:
                return head + _filler(room) + kept + b"\x80"
        return head + bytes(len(unit) - len(head))


def _filler(count: int) -> bytes:
    """So many bytes of messages that say nothing, two at least."""
    size = count - 2 - (count - 2) // 256
    message = bytes([_FILLER_MESSAGE]) + b"\xff" * (size // 255) + bytes([size % 255]) + b"\xff" * size
    return message if len(message) == count else bytes([_FILLER_MESSAGE, 0]) + _filler(count - 2)


def _messages(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and bytes of each message (H.264, 7.3.2.3.1); one that is cut off is left out."""
    at = 0
    while at + 2 < len(content):
        start, numbers = at, []
        for _ in range(2):
            number = 0
            while at < len(content) and content[at] == 0xFF:
                number, at = number + 0xFF, at + 1
            number, at = number + (content[at] if at < len(content) else 0), at + 1
            numbers.append(number)
        at += numbers[1]
        if at < len(content):
            yield numbers[0], content[start:at]
