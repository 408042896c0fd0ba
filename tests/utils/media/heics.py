"""HEIC files written by hand: pictures coded by x265, the items, grids and properties around them."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import av
import numpy as np

from utils.types import Pixels

Property = tuple[bytes, bytes]
ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"


def box(name: bytes, *parts: bytes) -> bytes:
    """A box of ISO/IEC 14496-12."""
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + name + body


def full(name: bytes, version: int, *parts: bytes, flags: int = 0) -> bytes:
    """A box with version and flags."""
    return box(name, struct.pack(">I", version << 24 | flags), *parts)


def coded(pixels: Pixels, form: str = "yuv444p") -> tuple[bytes, bytes]:
    """A picture as one HEVC frame: decoder configuration and data."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as sink:
        stream = sink.add_stream("libx265", rate=1)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], form
        stream.options = {"x265-params": "log-level=none:qp=4:keyint=1"}
        sink.mux(stream.encode(av.VideoFrame.from_ndarray(pixels).reformat(format=form)))
        sink.mux(stream.encode(None))
    with av.open(io.BytesIO(out.getvalue())) as source:
        (packet,) = (bytes(p) for p in source.demux(video=0) if p.size)
        return bytes(source.streams.video[0].codec_context.extradata), packet


class Heic:
    """Collects items; `save` gives the file."""

    def __init__(self) -> None:
        self._infos: list[bytes] = []
        self._data: list[bytes] = []
        self._links: list[bytes] = []
        self._properties: list[list[Property]] = []

    def add(self, kind: bytes, data: bytes, properties: Sequence[Property] = (), *, hidden: bool = False) -> int:
        """An item; its number."""
        number = len(self._infos) + 1
        self._infos.append(full(b"infe", 2, struct.pack(">HH", number, 0), kind, b"\0", flags=int(hidden)))
        self._data.append(data)
        self._properties.append(list(properties))
        return number

    def picture(self, pixels: Pixels, *more: Property, form: str = "yuv444p", hidden: bool = False) -> int:
        """A coded picture."""
        configuration, data = coded(pixels, form)
        size = struct.pack(">III", 0, pixels.shape[1], pixels.shape[0])
        return self.add(b"hvc1", data, [(b"hvcC", configuration), (b"ispe", size), *more], hidden=hidden)

    def grid(self, pixels: Pixels, side: int, *more: Property) -> int:
        """A picture in square tiles, the last ones filled up."""
        height, width = pixels.shape[:2]
        rows, columns = -(-height // side), -(-width // side)
        padded = np.pad(pixels, ((0, rows * side - height), (0, columns * side - width), (0, 0)), "edge")
        tiles = [
            self.picture(np.ascontiguousarray(padded[y : y + side, x : x + side]), hidden=True)
            for y in range(0, rows * side, side)
            for x in range(0, columns * side, side)
        ]
        layout = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
        number = self.add(b"grid", layout, [(b"ispe", struct.pack(">III", 0, width, height)), *more])
        self.link(b"dimg", number, *tiles)
        return number

    def link(self, name: bytes, first: int, *others: int) -> None:
        """A reference from one item to others."""
        self._links.append(box(name, struct.pack(f">HH{len(others)}H", first, len(others), *others)))

    def save(self, primary: int, brand: bytes = b"heic") -> bytes:
        """The file that shows one of the items."""
        known = [each for properties in self._properties for each in properties]
        places = iter(range(1, len(known) + 1))
        entries = [
            struct.pack(">HB", number, len(properties)) + bytes(next(places) for _ in properties)
            for number, properties in enumerate(self._properties, 1)
        ]
        head = box(b"ftyp", brand, bytes(4), b"mif1", brand)

        def meta(start: int) -> bytes:
            spots, at = [], start
            for number, data in enumerate(self._data, 1):
                spots.append(struct.pack(">HHHII", number, 0, 1, at, len(data)))
                at += len(data)
            return full(
                b"meta",
                0,
                full(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
                full(b"pitm", 0, struct.pack(">H", primary)),
                full(b"iloc", 0, b"\x44\0", struct.pack(">H", len(spots)), *spots),
                full(b"iinf", 0, struct.pack(">H", len(self._infos)), *self._infos),
                full(b"iref", 0, *self._links),
                box(
                    b"iprp",
                    box(b"ipco", *(box(name, body) for name, body in known)),
                    full(b"ipma", 0, struct.pack(">I", len(entries)), *entries),
                ),
            )

        start = len(head) + len(meta(0)) + 8
        return head + meta(start) + box(b"mdat", *self._data)


def heic(pixels: Pixels, *properties: Property, brand: bytes = b"heic") -> bytes:
    """One picture as a file."""
    file = Heic()
    return file.save(file.picture(pixels, *properties), brand)
