"""The boxes of an MP4 or QuickTime file, and the tables in them that say where samples lie."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from web_app.storage.clean.effort import Effort
from web_app.storage.clean.nal import Units

MAX_SAMPLES = 4_000_000
Span = tuple[int, int, "array[int] | None"]
"""Start and end of neighbouring samples, and the size of each; None where all are of one size."""


@dataclass(frozen=True)
class Box:
    """A box: its kind, where it starts, where its content starts, and where it ends."""

    kind: bytes
    start: int
    body: int
    end: int


@dataclass
class Track:
    """What is needed to find the samples of a track.

    Args:
        id: as fragments name it.
        handler: `vide`, `soun` or another.
        tables: the boxes of its sample table.
        sound: version, channels, bits, samples per packet and bytes per frame of a sound track.
        units: of H.264 and H.265.
    """

    id: int = 0
    handler: bytes = b""
    tables: dict[bytes, Box] = field(default_factory=dict)
    sound: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    units: Units | None = None

    @property
    def kept(self) -> bool:
        return self.handler in (b"vide", b"soun")


class Boxes:
    """Reads boxes and tables; counts them, so that no file costs without end.

    Args:
        data: the whole file.
        effort: that it may take.
    """

    def __init__(self, data: bytes, effort: Effort) -> None:
        self.data = data
        self._effort = effort
        self._samples = 0
        self._sample_bytes = 0

    def box(self, at: int, limit: int) -> Box | None:
        """The box at a place, which may end behind `limit`; None where there is none."""
        self._effort.spend()
        length, kind = struct.unpack(">I4s", self.data[at : at + 8])
        body = at + 8
        if length == 1:
            (length,) = struct.unpack(">Q", self.data[at + 8 : at + 16])
            body = at + 16
        elif length == 0:
            length = limit - at
        return Box(kind, at, body, at + length) if at + length >= body else None

    def inside(self, start: int, end: int) -> tuple[list[Box], int]:
        """The boxes of a range, and where they end; what follows may only be zeros."""
        found = []
        at = start
        while at + 8 <= end:
            box = self.box(at, end)
            if box is None or box.end > end:
                if any(self.data[at:end]):
                    raise ValueError("no box")
                break
            found.append(box)
            at = box.end
        return found, at

    def number(self, at: int) -> int:
        """Four bytes as a number."""
        return int(struct.unpack(">I", self.data[at : at + 4])[0])

    def numbers(self, start: int, box: Box, kind: str, count: int) -> array[int]:
        """Numbers of a table within a box, of the array's `kind`."""
        found = array(kind)
        if count > MAX_SAMPLES or start + count * found.itemsize > box.end:
            raise ValueError("a table ends early")
        found.frombytes(bytes(self.data[start : start + count * found.itemsize]))
        if sys.byteorder == "little":
            found.byteswap()
        return found

    def count_samples(self, count: int) -> None:
        """Refuse files of very many samples, or of more samples than bytes."""
        self._effort.spend()
        self._samples += count
        if self._samples > min(MAX_SAMPLES, len(self.data)):
            raise ValueError("too many samples")

    def count_bytes(self, start: int, end: int) -> None:
        """Refuse files whose samples are larger than they, which would be read again and again."""
        self._sample_bytes += max(0, min(end, len(self.data)) - start)
        if self._sample_bytes > len(self.data):
            raise ValueError("samples overlap")

    # The tables of a track

    def chunks(self, track: Track) -> Iterator[Span]:
        """The chunks of a track's sample table."""
        if not ({b"stsz", b"stz2"} & set(track.tables) and {b"stco", b"co64"} & set(track.tables)):
            return
        wide = b"co64" in track.tables
        table = track.tables[b"co64" if wide else b"stco"]
        offsets = self.numbers(table.body + 8, table, "Q" if wide else "I", self.number(table.body + 4))
        sizes, each = self._sample_sizes(track)
        first = 0
        for offset, count in zip(offsets, self._samples_per_chunk(track, len(offsets)), strict=True):
            self.count_samples(count)
            if each:
                of_chunk = array("I", [each]) * count if track.units else None
                yield offset, offset + _constant_chunk(track, count, each), of_chunk
            else:
                of_chunk = sizes[first : first + count]
                yield offset, offset + sum(of_chunk), of_chunk
            first += count

    def _samples_per_chunk(self, track: Track, chunks: int) -> list[int]:
        counts: list[int] = []
        table = track.tables.get(b"stsc")
        if table is not None:
            runs = self.numbers(table.body + 8, table, "I", 3 * self.number(table.body + 4))
            for at in range(0, len(runs), 3):
                until = runs[at + 3] - 1 if at + 3 < len(runs) else chunks
                counts += [runs[at + 1]] * (min(until, chunks) - len(counts))
        return counts + [0] * (chunks - len(counts))

    def _sample_sizes(self, track: Track) -> tuple[array[int], int]:
        """The size of every sample, or the one that all have."""
        table = track.tables.get(b"stsz")
        if table is not None:
            each = self.number(table.body + 4)
            if each:
                return array("I"), each
            return self.numbers(table.body + 12, table, "I", self.number(table.body + 8)), 0
        table = track.tables[b"stz2"]
        bits, count = self.data[table.body + 7], self.number(table.body + 8)
        if bits == 16:
            return self.numbers(table.body + 12, table, "H", count), 0
        if bits not in (4, 8):
            raise ValueError("no table of sizes")
        raw = self.numbers(table.body + 12, table, "B", -(-count * bits // 8))
        return raw if bits == 8 else array("B", (half for byte in raw for half in (byte >> 4, byte & 15)))[:count], 0

    # Fragments

    def runs(self, fragment: Box, boxes: list[Box], defaults: dict[int, int], follows: int) -> tuple[int, list[Span]]:
        """The samples of one track in a fragment.

        Args:
            fragment: the box `moof`.
            boxes: of its box `traf`.
            defaults: size of a sample by track, where the fragment names none.
            follows: where the data of the track before end.

        Returns:
            The track's number, and its samples; the last end is where the data end.
        """
        header = next((box for box in boxes if box.kind == b"tfhd"), None)
        if header is None:
            raise ValueError("no header")
        flags, track = struct.unpack(">II", self.data[header.body : header.body + 8])
        at, base, size = header.body + 8, follows, defaults.get(track, 0)
        if flags & 0x1:
            (base,) = struct.unpack(">Q", self.data[at : at + 8])
            at += 8
        elif flags & 0x20000:
            base = fragment.start
        at += 4 * bool(flags & 0x2) + 4 * bool(flags & 0x8)
        if flags & 0x10:
            size = self.number(at)
        spans: list[Span] = []
        end = base
        for box in boxes:
            if box.kind == b"trun":
                spans.append(self._run(box, base, end, size))
                end = spans[-1][1]
        return track, spans

    def _run(self, run: Box, base: int, follows: int, size: int) -> Span:
        flags, count = struct.unpack(">II", self.data[run.body : run.body + 8])
        at, start = run.body + 8, follows
        if flags & 0x1:
            (offset,) = struct.unpack(">i", self.data[at : at + 4])
            start, at = base + offset, at + 4
        at += 4 * bool(flags & 0x4)
        before = int(bool(flags & 0x100))
        step = before + bool(flags & 0x200) + bool(flags & 0x400) + bool(flags & 0x800)
        self.count_samples(count)
        if start < 0:
            raise ValueError("a run outside the file")
        if not flags & 0x200:
            return start, start + size * count, array("I", [size]) * count
        sizes = self.numbers(at, run, "I", count * step)[before::step]
        return start, start + sum(sizes), sizes


def _constant_chunk(track: Track, count: int, each: int) -> int:
    """Bytes of a chunk whose samples are of one size, which QuickTime gives as 1 for uncompressed sound."""
    version, channels, bits, per_packet, per_frame = track.sound
    if track.handler == b"soun" and version == 1 and per_packet and per_frame:
        return -(-count * per_frame // per_packet)
    if track.handler == b"soun" and each == 1:
        return count * max(1, channels * bits // 8)
    return count * each
