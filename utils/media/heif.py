"""HEIC pictures, and HDR ones in AVIF: the items of an ISO file, decoded by FFmpeg and put together as the file says.

Runs in the confined child, called by `images.py`; libheif would start threads, which the child may not. Thumbnails,
depth and gain maps are passed over.

Source: ISO/IEC 14496-12, section 8.11 (items), ISO/IEC 23008-12, sections 6.5 (properties) and 6.6 (grids).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import av
import numpy as np
from PIL import Image

from utils.errors import DecoderLimitError, MediaCorruptError, UnsupportedMediaError
from utils.media.display import HLG, PQ, is_hdr, to_sdr
from utils.media.headers import boxes
from utils.media.limits import MediaLimits
from utils.media.packets import raise_for_memory
from utils.types import Pixels

SEQUENCES = (b"hevc", b"hevx", b"hevm", b"hevs", b"msf1", b"avis")
"""Major brands of files with a timed sequence, which is a clip."""

MAX_META_BYTES = 2_000_000
"""Of what describes the items; a picture of 48 megapixels in tiles has some kB."""

_CODED, _DERIVED = (b"hvc1", b"hev1", b"av01"), (b"iden", b"tmap")
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")
_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
_MIRRORS = (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_LEFT_RIGHT)


def is_sequence(untrusted_file: BinaryIO) -> bool:
    """Whether the file is, by its major brand, a timed sequence rather than a picture."""
    untrusted_file.seek(8)
    return untrusted_file.read(4) in SEQUENCES


def is_hdr_picture(untrusted_file: BinaryIO, limits: MediaLimits) -> bool:
    """Whether the primary picture of a HEIC or AVIF file says that its colours are HDR; False where nothing is said."""
    try:
        items = HeifItems(untrusted_file, limits)
        return is_hdr(*items.colours(items.primary)[1::-1])
    except (ValueError, IndexError, KeyError, struct.error):
        return False


def open_heic(untrusted_file: BinaryIO, limits: MediaLimits) -> Image.Image:
    """Decode the primary picture of a HEIC or AVIF file, HDR brought to SDR.

    Returns:
        The picture as it is shown, RGB or RGBA; in its `info` the `icc_profile`, whether the file holds `others` beside
        it, whether it is `damaged` and was `hdr`.

    Raises:
        UnsupportedMediaError: it is coded with something else than HEVC or AV1.
        MediaDimensionsError: outside the limits, by its header.
        MediaCorruptError: its structure or its pixels cannot be read.
    """
    try:
        heic = HeifItems(untrusted_file, limits)
        image = heic.picture(heic.primary)
    except (ValueError, IndexError, KeyError, ZeroDivisionError, struct.error, av.error.FFmpegError) as error:
        raise_for_memory(error)
        raise MediaCorruptError(f"The HEIC picture cannot be read ({error}).") from error
    image.info |= {"others": heic.has_others(), "damaged": heic.damaged, "hdr": heic.is_hdr}
    return image


@dataclass
class _Item:
    """One item of the file: what it is, where its bytes lie, and what belongs to it."""

    kind: bytes = b""
    hidden: bool = False
    in_idat: bool = False
    places: list[tuple[int, int]] = field(default_factory=list)
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)

    def get(self, name: bytes) -> bytes:
        """The first property of a name; nothing where there is none."""
        return next((body for found, body in self.properties if found == name), b"")


class HeifItems:
    """The items of a file, by their numbers."""

    def __init__(self, file: BinaryIO, limits: MediaLimits) -> None:
        self._file, self._limits = file, limits
        self.items: dict[int, _Item] = {}
        self.links: list[tuple[bytes, int, list[int]]] = []
        self._idat = b""
        self.primary = -1
        self.damaged = self.is_hdr = False
        self._shown: tuple[int, int, int, int] = (0, 0, 0, 0)
        readers = {b"pitm": self._read_primary, b"iinf": self._read_kinds, b"iloc": self._read_places}
        readers |= {b"iprp": self._read_properties, b"iref": self._read_links}
        for name, body in _inside(_meta(file)[4:]):
            if name == b"idat":
                self._idat = body
            elif name in readers:
                readers[name](body)

    def _item(self, number: int) -> _Item:
        return self.items.setdefault(number, _Item())

    def _read_primary(self, body: bytes) -> None:
        self.primary = int.from_bytes(body[4 : 8 if body[0] else 6], "big")

    def _read_kinds(self, body: bytes) -> None:
        for name, entry in _inside(body[8 if body[0] else 6 :]):
            if name == b"infe" and entry[0] >= 2:
                at = 8 if entry[0] > 2 else 6
                item = self._item(int.from_bytes(entry[4:at], "big"))
                item.kind, item.hidden = entry[at + 2 : at + 6], bool(entry[3] & 1)

    def _read_places(self, body: bytes) -> None:
        version, fields = body[0], io.BytesIO(body[4:])
        sizes = _number(fields, 2)
        offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        for _ in range(_number(fields, 4 if version == 2 else 2)):
            item = self._item(_number(fields, 4 if version == 2 else 2))
            item.in_idat = version > 0 and _number(fields, 2) & 15 == 1
            _number(fields, 2)  # the file itself
            start = _number(fields, base)
            for _ in range(_number(fields, 2)):
                _number(fields, index if version > 0 else 0)
                item.places.append((start + _number(fields, offset), _number(fields, length)))

    def _read_properties(self, body: bytes) -> None:
        parts = list(_inside(body))
        known = [each for name, inside in parts if name == b"ipco" for each in _inside(inside)]
        for _, links in (part for part in parts if part[0] == b"ipma"):
            fields, wide = io.BytesIO(links[4:]), 2 if links[3] & 1 else 1
            for _ in range(_number(fields, 4)):
                item = self._item(_number(fields, 4 if links[0] else 2))
                for _ in range(_number(fields, 1)):
                    index = _number(fields, wide) & (0x7FFF if wide == 2 else 0x7F)  # the first bit: essential
                    item.properties += known[index - 1 : index] if index else []

    def _read_links(self, body: bytes) -> None:
        for name, entry in _inside(body[4:]):
            fields, wide = io.BytesIO(entry), 4 if body[0] else 2
            first = _number(fields, wide)
            self.links.append((name, first, [_number(fields, wide) for _ in range(_number(fields, 2))]))

    def _linked(self, name: bytes, first: int) -> list[int]:
        return next((others for kind, start, others in self.links if (kind, start) == (name, first)), [])

    def has_others(self) -> bool:
        """Whether another picture stands beside the primary one: no part, thumbnail or map of any."""
        owned = {self.primary}
        for kind, first, others in self.links:
            owned |= set(others) if kind == b"dimg" else {first} if kind in (b"thmb", b"auxl") else set()
        rest = [item for number, item in self.items.items() if number not in owned]
        return any(item.kind in (*_CODED, b"grid") and not item.hidden for item in rest)

    def colours(self, number: int) -> tuple[int, int, int, int]:
        """Primaries, transfer, matrix (ITU-T H.273) and whether its range is full, as an item says; else zeros."""
        told = (body for name, body in self.items[number].properties if name == b"colr" and body[:4] == b"nclx")
        primaries, transfer, matrix, is_full = struct.unpack(">HHHB", next(told, bytes(11))[4:11])
        return primaries, transfer, matrix, is_full >> 7

    def picture(self, number: int, depth: int = 0) -> Image.Image:
        """An item as it is shown; one that is derived from another by way of that one."""
        item = self.items[number]
        if item.kind in _DERIVED and depth < 2:
            image = self.picture(self._linked(b"dimg", number)[0], depth + 1)
        else:
            self._shown = self.colours(number)
            image = Image.fromarray(self._pixels(item, number, "rgb24"))
            for kind, first, others in self.links:
                if kind == b"auxl" and number in others and self.items[first].get(b"auxC")[4:].startswith(_ALPHA):
                    image.putalpha(Image.fromarray(self._pixels(self.items[first], first, "gray")).resize(image.size))
        profiles = (body[4:] for name, body in item.properties if name == b"colr" and body[:4] in (b"prof", b"rICC"))
        kept = None if is_hdr(*self._shown[1::-1]) else next(profiles, image.info.get("icc_profile"))
        for name, body in item.properties:  # in their order
            image = _changed(image, name, body)
        image.info["icc_profile"] = kept
        return image

    def _pixels(self, item: _Item, number: int, form: str) -> Pixels:
        """The pixels of a coded item or a grid of such, before turns and mirrors."""
        if item.kind in _CODED:
            return self._decode(item, form)
        if item.kind != b"grid":
            raise UnsupportedMediaError(
                "The picture is HEIF, but not coded with HEVC or AV1.", looks_like="a HEIF picture"
            )
        layout, tiles = self._bytes(item), self._linked(b"dimg", number)
        rows, columns = layout[2] + 1, layout[3] + 1
        width, height = struct.unpack(">II" if layout[1] & 1 else ">HH", layout[4 : 12 if layout[1] & 1 else 8])
        self._limits.check_size(width, height)
        whole = np.zeros((height, width, *((3,) if form == "rgb24" else ())), np.uint8)
        high, wide = self._decode(self.items[tiles[0]], form).shape[:2]
        fits = height <= rows * high < height + high and width <= columns * wide < width + wide
        if not fits or len(tiles) != rows * columns:
            raise ValueError("a grid that its tiles do not fill")
        for at, tile in enumerate(tiles):
            y, x = at // columns * high, at % columns * wide
            pixels = self._decode(self.items[tile], form)[: height - y, : width - x]
            whole[y : y + high, x : x + wide] = pixels
        return whole

    def _decode(self, item: _Item, form: str) -> Pixels:
        width, height = struct.unpack(">II", item.get(b"ispe")[4:12])
        self._limits.check_size(width, height)
        is_av1 = item.kind == b"av01"
        context = av.CodecContext.create("libdav1d" if is_av1 else "hevc", "r")
        context.extradata, context.thread_count = item.get(b"av1C" if is_av1 else b"hvcC"), 1
        context.options = {"max_pixels": str(self._limits.max_pixels)}
        frames: list[Any] = [*context.decode(av.Packet(self._bytes(item))), *context.decode(None)]
        if item.kind not in _CODED or [(frame.width, frame.height) for frame in frames] != [(width, height)]:
            raise ValueError("a picture of another size")
        frame = frames[0]
        self.damaged = self.damaged or bool(frame.is_corrupt)
        primaries, transfer, matrix, is_full = self._shown
        if matrix not in (0, 2) and form != "gray":  # 2: unspecified
            frame.colorspace, frame.color_range = matrix, 2 if is_full else 1
        else:
            primaries, transfer = primaries or frame.color_primaries, transfer or frame.color_trc
        if form != "gray" and is_hdr(transfer, primaries):
            self.is_hdr = transfer in (PQ, HLG)
            return to_sdr(frame.reformat(format="rgb48le", threads=1).to_ndarray(), transfer, primaries)
        return np.asarray(frame.reformat(format=form, threads=1).to_ndarray(), np.uint8)

    def _bytes(self, item: _Item) -> bytes:
        source, parts = io.BytesIO(self._idat) if item.in_idat else self._file, []
        for start, length in item.places:
            source.seek(start)
            parts.append(source.read(length))
        return b"".join(parts)


def _meta(file: BinaryIO) -> bytes:
    """The body of the file's `meta` box."""
    for name, start, end in boxes(file, 0, file.seek(0, 2)):
        if name == b"meta":
            if end - start > MAX_META_BYTES:
                raise DecoderLimitError(f"More than {MAX_META_BYTES // 10**6} MB describe the picture.")
            file.seek(start)
            return file.read(end - start)
    raise ValueError("nothing describes its items")


def _inside(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each box."""
    return ((name, data[start:end]) for name, start, end in boxes(io.BytesIO(data), 0, len(data)))


def _number(fields: BinaryIO, count: int) -> int:
    data = fields.read(count)
    if len(data) < count:
        raise ValueError("a box is cut off")
    return int.from_bytes(data, "big")


def _changed(image: Image.Image, name: bytes, body: bytes) -> Image.Image:
    """A picture after one of the properties that change how it is shown; as it was after any other."""
    if name == b"irot" and body[0] & 3:
        return image.transpose(_TURNS[(body[0] & 3) - 1])
    if name == b"imir":
        return image.transpose(_MIRRORS[body[0] & 1])
    if name == b"clap":
        numbers = struct.unpack(">IIIIiIiI", body[:32])
        width, height, across, down = (numbers[n] / numbers[n + 1] for n in (0, 2, 4, 6))
        left, top = (image.width - width) / 2 + across, (image.height - height) / 2 + down
        box = (round(left), round(top), round(left + width), round(top + height))
        if 0 <= box[0] < box[2] <= image.width and 0 <= box[1] < box[3] <= image.height:
            return image.crop(box)
    return image
