"""MP4 and QuickTime videos without places, dates, names and other tracks: blanked where they stand.

A box that is not known becomes `free` and zeros. Of the media data only the samples of sound and picture tracks stay,
so that data tracks (GPS, motion), chapters, and whatever hides between the samples are gone; user data within H.264 and
H.265 (`web_app/storage/clean/nal.py`) become filler. Nothing moves, so that offsets stay right.

Sources: ISO/IEC 14496-12:2015 (boxes), Apple QuickTime File Format (atoms, sound descriptions).
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice

from web_app.storage.clean import nal
from web_app.storage.clean.boxes import Box, Boxes, Track
from web_app.storage.clean.effort import Effort
from web_app.storage.clean.parts import Blanking, Part

_TOP = frozenset((b"ftyp", b"styp", b"sidx", b"mfra", b"moov", b"moof", b"mdat"))
_CONTAINERS = {
    b"trak": frozenset((b"tkhd", b"edts", b"mdia")),
    b"edts": frozenset((b"elst",)),
    b"mdia": frozenset((b"mdhd", b"hdlr", b"minf")),
    b"minf": frozenset((b"vmhd", b"smhd", b"hdlr", b"dinf", b"stbl")),
    b"dinf": frozenset((b"dref",)),
    b"stbl": frozenset(
        (b"stsd", b"stts", b"ctts", b"cslg", b"stss", b"stps", b"stsc", b"stsz", b"stz2", b"stco", b"co64", b"sdtp",
         b"sgpd", b"sbgp")
    ),
}  # fmt: skip
_INSIDE = {b"trak": (b"mdia",), b"mdia": (b"minf",), b"minf": (b"stbl",)}
_FRAGMENT_TRACK = frozenset((b"tfhd", b"tfdt", b"trun", b"sdtp", b"sgpd", b"sbgp"))
_DESCRIPTION = frozenset(
    (b"avcC", b"hvcC", b"av1C", b"vpcC", b"d263", b"glbl", b"esds", b"colr", b"pasp", b"clap", b"fiel", b"gama",
     b"btrt", b"mdcv", b"clli", b"SmDm", b"CoLL", b"wave", b"chan", b"chnl", b"pcmC", b"dac3", b"dec3", b"dOps",
     b"dfLa", b"alac", b"damr")
)  # fmt: skip
_VIDEO_ENTRY, _AUDIO_ENTRY, _AUDIO_ENTRY_1 = 86, 36, 52  # bytes before the boxes within a sample description


def bare(data: bytes, effort: Effort) -> list[Part]:
    """The parts of an MP4 or QuickTime file that may be handed out; ValueError or IndexError where that is in doubt."""
    return _Cleaner(data, effort).clean()


class _Cleaner:
    def __init__(self, data: bytes, effort: Effort) -> None:
        self._data = data
        self._effort = effort
        self._boxes = Boxes(data, effort)
        self._blanks = Blanking(len(data))
        self._tracks: dict[int, Track] = {}
        self._default_sizes: dict[int, int] = {}
        self._kept: list[tuple[int, int]] = []  # ranges of samples

    def clean(self) -> list[Part]:
        top = list(self._top_boxes())
        for box in top:
            if box.kind == b"moov":
                self._movie(box)
        if not any(track.handler == b"vide" for track in self._tracks.values()):
            raise ValueError("no picture track")
        for track in self._tracks.values():
            for span in self._boxes.chunks(track):
                self._keep(track, *span)
        for box in top:
            if box.kind == b"moof":
                self._fragment(box)
        merged = _merged(self._kept)
        for box in top:
            if box.kind == b"mdat":
                self._media_data(box, merged)
            elif box.kind not in _TOP:
                self._free(box)
        return self._blanks.parts()

    def _top_boxes(self) -> Iterator[Box]:
        """Boxes to the end of the file; what is none there is blanked, and media data may be cut off."""
        at, size = 0, len(self._data)
        while at + 8 <= size:
            box = self._boxes.box(at, size)
            if box is None or (box.end > size and box.kind != b"mdat"):
                break
            yield Box(box.kind, box.start, box.body, min(box.end, size))
            at = min(box.end, size)
        self._blanks.zero(at, size)

    def _inside(self, start: int, end: int) -> list[Box]:
        found, at = self._boxes.inside(start, end)
        self._blanks.zero(at, end)
        return found

    def _free(self, box: Box) -> None:
        self._blanks.put(box.start + 4, b"free")
        self._blanks.zero(box.body, box.end)

    # The movie and its tracks

    def _movie(self, movie: Box) -> None:
        for box in self._inside(movie.body, movie.end):
            if box.kind == b"trak":
                self._track(box)
            elif box.kind == b"mvex":
                self._defaults(box)
            elif box.kind == b"mvhd":
                self._header(box)
            else:
                self._free(box)

    def _defaults(self, extends: Box) -> None:
        for box in self._inside(extends.body, extends.end):
            if box.kind == b"trex":
                self._default_sizes[self._boxes.number(box.body + 4)] = self._boxes.number(box.body + 16)
            elif box.kind != b"mehd":
                self._free(box)

    def _track(self, box: Box) -> None:
        track = Track()
        self._look(box, track)
        if not track.kept:
            self._free(box)
        elif track.id in self._tracks or b"stsd" not in track.tables:
            raise ValueError("no track")
        else:
            self._tracks[track.id] = track
            self._clean(box, track)

    def _look(self, parent: Box, track: Track) -> None:
        """Find a track's number, kind and tables, and change nothing."""
        for box in self._boxes.inside(parent.body, parent.end)[0]:
            if box.kind == b"tkhd":
                track.id = self._boxes.number(box.body + (20 if self._data[box.body] == 1 else 12))
            elif box.kind == b"hdlr" and parent.kind == b"mdia":
                track.handler = bytes(self._data[box.body + 8 : box.body + 12])
            elif parent.kind == b"stbl":
                track.tables.setdefault(box.kind, box)
            elif box.kind in _INSIDE.get(parent.kind, ()):
                self._look(box, track)

    def _clean(self, parent: Box, track: Track) -> None:
        known = _CONTAINERS[parent.kind]
        for box in self._inside(parent.body, parent.end):
            if box.kind not in known or (parent.kind == b"stbl" and track.tables[box.kind] != box):
                self._free(box)
            elif box.kind in _CONTAINERS:
                self._clean(box, track)
            elif box.kind in (b"tkhd", b"mdhd"):
                self._header(box)
            elif box.kind == b"hdlr":
                self._blanks.zero(box.body + 12, box.end)  # who made it, and a name
            elif box.kind == b"dref":
                self._references(box)
            elif box.kind == b"stsd":
                self._descriptions(box, track)

    def _header(self, box: Box) -> None:
        """Blank when it was made and changed."""
        self._blanks.zero(box.body + 4, box.body + (20 if self._data[box.body] == 1 else 12))

    def _references(self, references: Box) -> None:
        """All data are in this file; an alias would tell paths of the machine that it was made on."""
        for box in self._inside(references.body + 8, references.end):
            self._blanks.put(box.start + 4, b"url \0\0\0\x01")
            self._blanks.zero(box.body + 4, box.end)

    def _descriptions(self, descriptions: Box, track: Track) -> None:
        for entry in self._inside(descriptions.body + 8, descriptions.end):
            if track.handler == b"vide":
                self._blanks.zero(entry.start + 20, entry.start + 24)  # who made the encoder
                self._blanks.zero(entry.start + 50, entry.start + 82)  # its name
                first = entry.start + _VIDEO_ENTRY
            else:
                first = self._sound_boxes(entry, track)
            if first > entry.end:
                raise ValueError("no sample description")
            for box in self._inside(first, entry.end):
                if box.kind not in _DESCRIPTION:
                    self._free(box)
                elif box.kind in (b"avcC", b"hvcC"):
                    track.units = nal.units_of(box.kind == b"hvcC", self._data[box.body : box.end])
                    for at, filler in nal.configured(self._data, box.body, box.end, track.units, self._effort):
                        self._blanks.put(at, filler)

    def _sound_boxes(self, entry: Box, track: Track) -> int:
        """Note how sound is stored; where the boxes within its description begin."""
        version, _, _, channels, bits = struct.unpack(">HHIHH", self._data[entry.start + 16 : entry.start + 28])
        if version == 2:
            return entry.start + self._boxes.number(entry.start + 36)
        per_packet, per_frame = 0, 0
        if version == 1:
            per_packet, _, per_frame = struct.unpack(">III", self._data[entry.start + 36 : entry.start + 48])
        track.sound = (version, channels, bits, per_packet, per_frame)
        return entry.start + (_AUDIO_ENTRY_1 if version == 1 else _AUDIO_ENTRY)

    # Samples

    def _fragment(self, fragment: Box) -> None:
        follows = fragment.start
        for box in self._inside(fragment.body, fragment.end):
            if box.kind != b"traf":
                if box.kind != b"mfhd":
                    self._free(box)
                continue
            boxes, end = self._boxes.inside(box.body, box.end)
            number, spans = self._boxes.runs(fragment, boxes, self._default_sizes, follows)
            follows = spans[-1][1] if spans else follows
            track = self._tracks.get(number)
            if track is None:
                self._free(box)
                continue
            for span in spans:
                self._keep(track, *span)
            for inner in boxes:
                if inner.kind not in _FRAGMENT_TRACK:
                    self._free(inner)
            self._blanks.zero(end, box.end)

    def _keep(self, track: Track, start: int, end: int, sizes: array[int] | None) -> None:
        self._kept.append((start, end))
        self._boxes.count_bytes(start, end)
        if track.units is None or sizes is None:
            return
        for size in sizes:
            for at, filler in nal.messages(self._data, start, start + size, track.units, self._effort):
                self._blanks.put(at, filler)
            start += size

    def _media_data(self, box: Box, merged: list[tuple[int, int]]) -> None:
        """Blank what is no sample of a kept track."""
        at = box.body
        first = max(0, bisect_left(merged, (at, 0)) - 1)  # the range before may reach into this box
        for start, end in islice(merged, first, None):
            if start >= box.end:
                break
            if end > at:
                self._blanks.zero(at, max(start, at))
                at = min(end, box.end)
        self._blanks.zero(at, box.end)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
