"""FLV videos without their script tags, which hold dates, programs and whatever else somebody noted.

Sources: Adobe Flash Video File Format Specification 10.1, annex E; Enhanced RTMP 1 (its header of picture tags).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from web_app.storage.clean import nal
from web_app.storage.clean.effort import Effort
from web_app.storage.clean.parts import Part

_HEADER, _TAG_HEADER = 9, 11
_SOUND, _PICTURE = 8, 9  # not encrypted
_CODECS = {7: False, 12: True}  # H.264, and H.265 as some encoders number it; whether it is H.265
_FOURCC = {b"avc1": False, b"hvc1": True}  # of the enhanced header
_ENHANCED = 0x80
_CONFIGURATION, _UNITS, _UNITS_AT_ONCE = 0, 1, 3  # what a picture tag holds; the last without an offset in time


def bare(data: bytes, effort: Effort) -> list[Part]:
    """The parts of an FLV file that may be handed out; ValueError where that is in doubt."""
    if data[:3] != b"FLV" or struct.unpack(">I", data[5:9])[0] != _HEADER:
        raise ValueError("no video")
    parts: list[Part] = [(0, _HEADER), b"\0\0\0\0"]
    at = _HEADER + 4
    begun = at
    kept = 0
    units: nal.Units | None = None
    while True:
        effort.spend()
        head = data[at : at + 4]
        if len(head) < 4:
            break
        end = at + _TAG_HEADER + int.from_bytes(head[1:], "big") + 4
        if end > len(data):
            break  # cut off; decoders do without half a picture
        if head[0] == _PICTURE:
            kept += 1
            units, messages = _messages(data, at + _TAG_HEADER, end - 4, units, effort)
            for place, filler in messages:
                parts += [(begun, place), filler]
                begun = place + len(filler)
        elif head[0] == _SOUND:
            kept += 1
        else:
            if at > begun:
                parts.append((begun, at))
            begun = end
        at = end
    if at > begun:
        parts.append((begun, at))
    if not kept:
        raise ValueError("neither picture nor sound")
    return parts


def _messages(
    data: bytes, start: int, end: int, units: nal.Units | None, effort: Effort
) -> tuple[nal.Units | None, Iterator[tuple[int, bytes]]]:
    """The units from this picture tag on, and the user data within it with their filler."""
    head = data[start : start + 6]
    if len(head) < 6 or end - start < 6:
        return units, iter(())
    if head[0] & _ENHANCED:
        h265, holds, body = _FOURCC.get(head[1:5]), head[0] & 0x0F, start + 5
        body += 3 * (holds == _UNITS)
    else:
        h265, holds, body = _CODECS.get(head[0] & 0x0F), head[1], start + 5
        holds = holds if holds != _UNITS_AT_ONCE else -1
    if h265 is None:
        return units, iter(())
    if holds == _CONFIGURATION:
        units = nal.units_of(h265, data[body:end])
        return units, nal.configured(data, body, end, units, effort)
    if holds in (_UNITS, _UNITS_AT_ONCE):
        if units is None:
            raise ValueError("pictures before their configuration")
        return units, nal.messages(data, body, end, units, effort)
    return units, iter(())
