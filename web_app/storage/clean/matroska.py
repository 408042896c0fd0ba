"""Matroska and WebM videos without tags, attachments, chapters, titles, dates and other tracks.

What goes becomes an element `Void` of the same length, so that seek tables stay right.

Sources: RFC 8794 (EBML), RFC 9559 (Matroska).
"""

from __future__ import annotations

from collections.abc import Iterator

from web_app.storage.clean import nal
from web_app.storage.clean.avi import units_of_format
from web_app.storage.clean.effort import Effort
from web_app.storage.clean.parts import Blanking, Part

_EBML, _SEGMENT, _INFO, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
_TRACK, _TRACK_NUMBER, _TRACK_TYPE = 0xAE, 0xD7, 0x83
_CODEC, _CODEC_PRIVATE, _ENCODINGS = 0x86, 0x63A2, 0x6D80
_CODECS = {b"V_MPEG4/ISO/AVC": False, b"V_MPEGH/ISO/HEVC": True}  # whether it is H.265
_LACING = 0x06
_GROUP, _BLOCK, _SIMPLE_BLOCK = 0xA0, 0xA1, 0xA3
_VOID = 0xEC
_NAMED = (0x4D80, 0x5741)  # the programs that wrote it; they must be there, so they are blanked
_LEVEL_1 = frozenset((_INFO, _TRACKS, _CLUSTER, 0x114D9B74, 0x1C53BB6B, 0x1254C367, 0x1941A469, 0x1043A770))
_KEPT = {
    _EBML: frozenset((0x4286, 0x42F7, 0x42F2, 0x42F3, 0x4282, 0x4287, 0x4285)),
    _SEGMENT: frozenset((0x114D9B74, 0x1C53BB6B)),  # seek head and cues
    _INFO: frozenset((0x2AD7B1, 0x4489, *_NAMED)),
    _TRACK: frozenset(
        (_TRACK_NUMBER, _TRACK_TYPE, 0x73C5, 0xB9, 0x88, 0x55AA, 0x9C, 0x6DE7, 0x6DF8, 0x23E383, 0x234E7A, 0x23314F,
         0x55EE, 0x22B59C, 0x22B59D, _CODEC, _CODEC_PRIVATE, 0x56AA, 0x56BB, 0xE0, 0xE1, _ENCODINGS)
    ),
    _CLUSTER: frozenset((0xE7, 0xA7, 0xAB)),
    _GROUP: frozenset((_BLOCK, 0x9B, 0xFB, 0xFA, 0x75A2)),
}  # fmt: skip
_VIDEO, _AUDIO = 1, 2

Element = tuple[int, int, int, int]
"""Its id, start, content and end."""


class _Cleaner:
    def __init__(self, data: bytes, effort: Effort) -> None:
        self._data = data
        self._effort = effort
        self._blanks = Blanking(len(data))
        self._tracks: dict[int, int] = {}
        self._units: dict[int, nal.Units] = {}

    def clean(self) -> list[Part]:
        for element in self._inside(0, len(self._data)):
            identity, _, body, end = element
            if identity == _SEGMENT:
                self._segment(body, end)
            elif identity == _EBML:
                self._children(identity, body, end)
            else:
                self._void(element)
        if _VIDEO not in self._tracks.values():
            raise ValueError("no picture track")
        return self._blanks.parts()

    def _inside(self, start: int, end: int, until: frozenset[int] = frozenset()) -> Iterator[Element]:
        """The elements of a range; ends before one of `until`."""
        at = start
        while at < end:
            self._effort.spend()
            identity, after = self._number(at, keep_marker=True)
            if identity in until:
                return
            size, body = self._number(after, keep_marker=False)
            unknown = size == (1 << 7 * (body - after)) - 1
            if unknown and identity == _CLUSTER:
                stop = self._end_of_cluster(body, end)
            elif unknown and identity != _SEGMENT:
                raise ValueError("no length")
            else:
                stop = end if unknown else min(body + size, end)
            yield identity, at, body, stop
            at = stop

    def _number(self, at: int, *, keep_marker: bool) -> tuple[int, int]:
        first = self._data[at]
        if first >= 0x80:  # one byte, as most have
            return (first if keep_marker else first & 0x7F), at + 1
        length = 9 - first.bit_length()
        if first == 0 or (keep_marker and length > 4):
            raise ValueError("no number")
        raw = self._data[at : at + length]
        if len(raw) < length:
            raise ValueError("a number ends early")
        value = int.from_bytes(raw, "big")
        return (value if keep_marker else value & ((1 << 7 * length) - 1)), at + length

    def _end_of_cluster(self, start: int, end: int) -> int:
        return max((stop for _, _, _, stop in self._inside(start, end, _LEVEL_1)), default=start)

    def _void(self, element: Element) -> None:
        """Make an element a `Void` of its length."""
        _, start, _, end = element
        length = end - start
        if length < 2:
            raise ValueError("an element of one byte")
        head = (
            bytes((_VOID, 0x80 | length - 2))
            if length - 2 < 127
            else bytes((_VOID, 0x01)) + (length - 9).to_bytes(7, "big")
        )
        self._blanks.put(start, head)
        self._blanks.zero(start + len(head), end)

    def _children(self, parent: int, start: int, end: int) -> None:
        for element in self._inside(start, end):
            if element[0] not in _KEPT[parent]:
                self._void(element)
            elif element[0] in _NAMED:
                self._blanks.zero(element[2], element[3])

    def _segment(self, start: int, end: int) -> None:
        for element in self._inside(start, end):
            identity, _, body, stop = element
            if identity == _INFO:
                self._children(identity, body, stop)
            elif identity == _TRACKS:
                self._find_tracks(body, stop)
            elif identity == _CLUSTER:
                self._cluster(body, stop)
            elif identity not in _KEPT[_SEGMENT]:
                self._void(element)

    def _find_tracks(self, start: int, end: int) -> None:
        for element in self._inside(start, end):
            children = list(self._inside(element[2], element[3])) if element[0] == _TRACK else []
            values = {
                identity: int.from_bytes(self._data[body:stop], "big")
                for identity, _, body, stop in children
                if identity in (_TRACK_NUMBER, _TRACK_TYPE)
            }
            if values.get(_TRACK_TYPE) in (_VIDEO, _AUDIO):
                self._tracks[values[_TRACK_NUMBER]] = values[_TRACK_TYPE]
                self._children(_TRACK, element[2], element[3])
                self._find_units(values[_TRACK_NUMBER], {child[0]: child for child in children})
            else:
                self._void(element)

    def _find_units(self, track: int, children: dict[int, Element]) -> None:
        """Note how the pictures of a track are divided, if it is H.264 or H.265."""
        private = children.get(_CODEC_PRIVATE, (0, 0, 0, 0))
        codec = children.get(_CODEC, (0, 0, 0, 0))
        name = bytes(self._data[codec[2] : codec[3]]).rstrip(b"\0")
        configuration = self._data[private[2] : private[3]]
        if name in _CODECS:
            units = nal.units_of(_CODECS[name], configuration) if configuration else nal.Units(0, _CODECS[name])
        elif name == b"V_MS/VFW/FOURCC" and (found := units_of_format(configuration)):
            units = found
        else:
            return
        if _ENCODINGS in children:
            raise ValueError("packed pictures")
        self._units[track] = units
        if units.length_bytes and name in _CODECS:
            self._change(nal.configured(self._data, private[2], private[3], units, self._effort))

    def _change(self, messages: Iterator[tuple[int, bytes]]) -> None:
        for place, filler in messages:
            self._blanks.put(place, filler)

    def _cluster(self, start: int, end: int) -> None:
        for element in self._inside(start, end):
            identity = element[0]
            if identity == _GROUP:
                self._group(element)
            elif identity == _SIMPLE_BLOCK:
                self._block(element)
            elif identity not in _KEPT[_CLUSTER]:
                self._void(element)

    def _group(self, group: Element) -> None:
        children = list(self._inside(group[2], group[3]))
        if not any(child[0] == _BLOCK and self._track_of(child) in self._tracks for child in children):
            self._void(group)
            return
        for child in children:
            if child[0] == _BLOCK:
                self._block(child)
            elif child[0] not in _KEPT[_GROUP]:
                self._void(child)

    def _track_of(self, block: Element) -> int:
        return self._number(block[2], keep_marker=False)[0]

    def _block(self, block: Element) -> None:
        """Keep the pictures or sound of a track that stays, without user data."""
        track, after = self._number(block[2], keep_marker=False)
        if track not in self._tracks:
            self._void(block)
        elif (units := self._units.get(track)) is not None:
            if self._data[after + 2] & _LACING:
                raise ValueError("several pictures in one block")
            self._change(nal.messages(self._data, after + 3, block[3], units, self._effort))


def bare(data: bytes, effort: Effort) -> list[Part]:
    """The parts of a Matroska file that may be handed out; ValueError or IndexError where that is in doubt."""
    return _Cleaner(data, effort).clean()
