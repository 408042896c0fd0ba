"""Matroska and WebM videos without tags, attachments, chapters, titles, dates and other tracks.

What goes becomes an element `Void` of the same length, so that seek tables stay right.

Sources: RFC 8794 (EBML), RFC 9559 (Matroska).
"""

from __future__ import annotations

from collections.abc import Iterator

from web_app.bare.parts import Blanking, Part

MAX_ELEMENTS = 4_000_000
_EBML, _SEGMENT, _INFO, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
_TRACK, _TRACK_NUMBER, _TRACK_TYPE = 0xAE, 0xD7, 0x83
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
         0x55EE, 0x22B59C, 0x22B59D, 0x86, 0x63A2, 0x56AA, 0x56BB, 0xE0, 0xE1, 0x6D80)
    ),
    _CLUSTER: frozenset((0xE7, 0xA7, 0xAB)),
    _GROUP: frozenset((_BLOCK, 0x9B, 0xFB, 0xFA, 0x75A2)),
}  # fmt: skip
_VIDEO, _AUDIO = 1, 2

Element = tuple[int, int, int, int]
"""Its id, start, content and end."""


class _Cleaner:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._blanks = Blanking(len(data))
        self._tracks: dict[int, int] = {}
        self._elements = 0

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
            self._elements += 1
            if self._elements > MAX_ELEMENTS:
                raise ValueError("too many elements")
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
            values = {
                identity: int.from_bytes(self._data[body:stop], "big")
                for identity, _, body, stop in (self._inside(element[2], element[3]) if element[0] == _TRACK else ())
                if identity in (_TRACK_NUMBER, _TRACK_TYPE)
            }
            if values.get(_TRACK_TYPE) in (_VIDEO, _AUDIO):
                self._tracks[values[_TRACK_NUMBER]] = values[_TRACK_TYPE]
                self._children(_TRACK, element[2], element[3])
            else:
                self._void(element)

    def _cluster(self, start: int, end: int) -> None:
        for element in self._inside(start, end):
            identity, _, body, _ = element
            if identity == _GROUP:
                self._group(element)
            elif identity == _SIMPLE_BLOCK:
                if self._number(body, keep_marker=False)[0] not in self._tracks:
                    self._void(element)
            elif identity not in _KEPT[_CLUSTER]:
                self._void(element)

    def _group(self, group: Element) -> None:
        of_kept = any(
            identity == _BLOCK and self._number(body, keep_marker=False)[0] in self._tracks
            for identity, _, body, _ in self._inside(group[2], group[3])
        )
        if of_kept:
            self._children(_GROUP, group[2], group[3])
        else:
            self._void(group)


def bare(data: bytes) -> list[Part]:
    """The parts of a Matroska file that may be handed out; ValueError or IndexError where that is in doubt."""
    return _Cleaner(data).clean()
