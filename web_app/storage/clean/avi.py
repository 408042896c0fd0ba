"""AVI videos without texts, dates and other streams: blanked where they stand, so that the index stays right.

Sources: Microsoft AVI RIFF File Reference, OpenDML AVI File Format Extensions 1.02.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from web_app.storage.clean import nal
from web_app.storage.clean.effort import Effort
from web_app.storage.clean.parts import Blanking, Part

_HEADERS = frozenset((b"avih", b"strh", b"strf", b"indx", b"vprp", b"dmlh"))
_LISTS = {b"hdrl": (b"strl", b"odml"), b"movi": (b"rec ",)}
_KEPT_STREAMS = (b"vids", b"auds")
_AVIH_RESERVED = 40
_H264 = frozenset((b"H264", b"X264", b"AVC1", b"DAVC", b"VSSH"))
_H265 = frozenset((b"HEVC", b"H265", b"X265", b"HVC1", b"HEV1"))


def units_of_format(header: bytes) -> nal.Units | None:
    """The units of pictures with a BITMAPINFOHEADER like this; None where they are neither H.264 nor H.265.

    Args:
        header: the structure and what follows it: nothing, start codes, or a decoder configuration record.
    """
    codec = header[16:20].upper()
    if codec not in _H264 | _H265:
        return None
    h265, configuration = codec in _H265, header[40:]
    return nal.units_of(h265, configuration) if configuration[:1] == b"\x01" else nal.Units(0, h265)


class _Cleaner:
    def __init__(self, data: bytes, effort: Effort) -> None:
        self._data = data
        self._effort = effort
        self._blanks = Blanking(len(data))
        self._streams: list[bool] = []
        self._units: dict[int, nal.Units] = {}

    def clean(self) -> list[Part]:
        for kind, _, body, end in self._inside(0, len(self._data)):
            if kind != b"RIFF" or self._data[body : body + 4] not in (b"AVI ", b"AVIX"):
                self._junk(body - 8, body, end)
                continue
            for inner, start, content, stop in self._inside(body + 4, end):
                if inner == b"LIST" and self._data[content : content + 4] in _LISTS:
                    self._list(self._data[content : content + 4], content + 4, stop)
                elif inner != b"idx1":
                    self._junk(start, content, stop)
        if not any(self._streams):
            raise ValueError("no stream")
        return self._blanks.parts()

    def _inside(self, start: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
        """Kind, start, content and end of each chunk; the last one may be cut off."""
        at = start
        while at + 8 <= end:
            self._effort.spend()
            kind, length = struct.unpack("<4sI", self._data[at : at + 8])
            stop = min(at + 8 + length, end)
            yield kind, at, at + 8, stop
            at = stop + (length & 1)
        self._blanks.zero(min(at, end), end)

    def _junk(self, start: int, body: int, end: int) -> None:
        self._blanks.put(start, b"JUNK")
        self._blanks.zero(body, end)

    def _list(self, name: bytes, start: int, end: int) -> None:
        for kind, at, body, stop in self._inside(start, end):
            inner = self._data[body : body + 4]
            if kind == b"LIST" and inner == b"strl":
                self._stream(body + 4, stop)
            elif kind == b"LIST" and inner in _LISTS.get(name, ()):
                self._list(bytes(inner), body + 4, stop)
            elif kind == b"avih":
                self._blanks.zero(min(body + _AVIH_RESERVED, stop), stop)
            elif not (self._is_data(kind) if name in (b"movi", b"rec ") else kind in _HEADERS):
                self._junk(at, body, stop)
            elif kind[:2].isdigit() and (units := self._units.get(int(kind[:2]))):
                for place, filler in nal.messages(self._data, body, stop, units, self._effort):
                    self._blanks.put(place, filler)

    def _stream(self, start: int, end: int) -> None:
        chunks = list(self._inside(start, end))
        head = next((body for kind, _, body, _ in chunks if kind == b"strh"), None)
        kept = head is not None and self._data[head : head + 4] in _KEPT_STREAMS
        for kind, _, body, stop in chunks:
            if kind == b"strf" and kept and (units := units_of_format(self._data[body:stop])):
                self._units[len(self._streams)] = units
        self._streams.append(kept)
        for kind, at, body, stop in chunks:
            if kind not in _HEADERS or (not kept and kind != b"strh"):
                self._junk(at, body, stop)

    def _is_data(self, kind: bytes) -> bool:
        number = kind[2:] if kind[:2] == b"ix" else kind[:2]
        return number.isdigit() and int(number) < len(self._streams) and self._streams[int(number)]


def bare(data: bytes, effort: Effort) -> list[Part]:
    """The parts of an AVI file that may be handed out; ValueError or IndexError where that is in doubt."""
    return _Cleaner(data, effort).clean()
