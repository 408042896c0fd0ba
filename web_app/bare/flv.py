"""FLV videos without their script tags, which hold dates, programs and whatever else somebody noted.

Source: Adobe Flash Video File Format Specification 10.1, annex E.
"""

from __future__ import annotations

import struct

from web_app.bare.parts import Part

MAX_TAGS = 4_000_000
_HEADER = 9
_KEPT = (8, 9)  # sound and picture, not encrypted


def bare(data: bytes) -> list[Part]:
    """The parts of an FLV file that may be handed out; ValueError where that is in doubt."""
    if data[:3] != b"FLV" or struct.unpack(">I", data[5:9])[0] != _HEADER:
        raise ValueError("no video")
    parts: list[Part] = [(0, _HEADER), b"\0\0\0\0"]
    at = _HEADER + 4
    begun = at
    kept = 0
    for _ in range(MAX_TAGS):
        head = data[at : at + 4]
        if len(head) < 4:
            break
        end = at + 11 + int.from_bytes(head[1:], "big") + 4
        if end > len(data):
            break  # cut off; decoders do without half a picture
        if head[0] in _KEPT:
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
