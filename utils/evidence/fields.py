"""The texts of a file's metadata, wherever they stand: PNG text, EXIF, XMP, IPTC, comments, marks of a few editors.

Runs in the confined child. Nothing is decoded, and everything that is looked at is bounded.
"""

from __future__ import annotations

import contextlib
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO
from xml.parsers import expat

from PIL import Image, IptcImagePlugin

from utils.evidence.marks import Field

MAX_TEXT = 20_000
"""Characters that are looked at of one text."""
MAX_FIELDS = 400
PICTURE_BYTES, EDGE_BYTES = 64_000_000, 4_000_000
"""What is searched for XMP and marks: so much of a picture, and of a film so much of its beginning and its end."""

_PILLOW = ("jpeg", "png", "webp", "tiff", "avif", "gif")
_TAGS = {
    0x010E: "imagedescription", 0x010F: "make", 0x0110: "model", 0x0131: "software", 0x013B: "artist",
    0x9C9B: "title", 0x9C9C: "comment", 0x9286: "usercomment", 0x9003: "datetimeoriginal", 0xA434: "lensmodel",
}  # fmt: skip
_EXIF_IFD = 0x8769
_IPTC = {(2, 65): "software", (2, 80): "artist", (2, 110): "credit", (2, 115): "source", (2, 120): "caption"}
_PACKET = re.compile(rb"<(x:xmpmeta|rdf:RDF)[\s>]")
_TIFF = re.compile(rb"Exif\0\0(?:II\*\0|MM\0\*)")
_SAMSUNG = b"PhotoEditor_Re_Edit_Data"
_FACESET = (b"source_landmarks", b"image_to_face_mat")
_XMP_KEY = "xml:com.adobe.xmp"
_STRUCTURE = frozenset(("li", "Alt", "Seq", "Bag", "Description"))
MAX_PACKETS, PACKET_BYTES, MAX_DEPTH = 8, 262_144, 64


def read_fields(file: BinaryIO, format_name: str, tags: list[tuple[str, str]], failed: list[str]) -> list[Field]:
    """The texts of a file.

    Args:
        file: open for reading; its position is changed.
        format_name: of the sniffed format.
        tags: key and text of each tag of a film or recording.
        failed: gets the name of each part that cannot be read; the others are read all the same.
    """

    def gather(part: str, read: Callable[..., Iterable[Field]], *given: Any) -> None:
        try:
            found.extend(read(*given))
        except Exception:  # noqa: BLE001 - whatever hostile metadata do to a parser
            failed.extend({part} - {*failed})

    file.seek(0)
    data = file.read(PICTURE_BYTES if not tags and format_name in (*_PILLOW, "heic", "bmp") else EDGE_BYTES)
    end = max(len(data), file.seek(0, io.SEEK_END) - EDGE_BYTES)
    file.seek(end)
    data += file.read(EDGE_BYTES)
    found = [Field("tag", key.lower(), text[:MAX_TEXT]) for key, text in tags]
    if format_name == "png":
        gather("png", _png, data)
    if format_name in _PILLOW:
        gather("picture", _pillow, file, format_name, gather)
    elif place := _TIFF.search(data):
        gather("exif", _loose_exif, data[place.start() : place.start() + EDGE_BYTES])
    held = (data, *(field.text.encode() for field in found if field.key == _XMP_KEY))
    packets = dict.fromkeys(packet for each in held for packet in _packets(each))
    for packet in [*packets][: 2 * MAX_PACKETS]:
        gather("xmp", _xmp, packet)
    if (place_of_edit := data.find(_SAMSUNG)) >= 0:
        found.append(Field("bytes", "samsung", _text(data[place_of_edit : place_of_edit + MAX_TEXT])))
    if all(name in data for name in _FACESET):
        found.append(Field("bytes", "deepfacelab", "landmarks of a set of faces"))
    return [field for field in found if field.key != _XMP_KEY][:MAX_FIELDS]


def _text(value: Any) -> str:
    """A value of EXIF, IPTC or PNG as text; nothing for what is none."""
    if isinstance(value, bytes):
        for head, coding in ((b"UNICODE\0", "utf-16"), (b"ASCII\0\0\0", "utf-8"), (b"JIS\0\0\0\0\0", "shift_jis")):
            if value.startswith(head):
                body = value[8 : 8 + 2 * MAX_TEXT]
                swapped = coding == "utf-16" and body[:1] == b"\0"
                return _tidy(body.decode("utf-16-be" if swapped else coding, "replace"))
        return _tidy(value[:MAX_TEXT].decode("utf-8", "replace"))
    return _tidy(value) if isinstance(value, str) else ""


def _tidy(text: str) -> str:
    return text[:MAX_TEXT].replace("\0", " ").strip()


def _png(data: bytes) -> Iterator[Field]:
    """The text chunks of a PNG, before and after its pixels (PNG third edition, 11.3.3)."""
    at = 8
    while at + 12 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + min(size, 8 * MAX_TEXT)]
        at += 12 + size
        key, _, rest = body.partition(b"\0")
        if kind == b"zTXt":
            rest = _inflated(rest[1:])
        elif kind == b"iTXt":
            compressed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
            rest = _inflated(rest) if compressed else rest
        elif kind != b"tEXt":
            continue
        name = key[:79].decode("latin-1").lower()
        yield Field("png", name, rest.decode("utf-8", "replace") if name == _XMP_KEY else _text(rest))


def _inflated(data: bytes) -> bytes:
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj().decompress(data, 4 * MAX_TEXT)
    return b""


def _pillow(file: BinaryIO, format_name: str, gather: Callable[..., None]) -> list[Field]:
    """The comment, after EXIF and IPTC were gathered, where Pillow knows the format."""
    file.seek(0)
    with Image.open(file, formats=(format_name.upper(),)) as image:
        gather("exif", lambda: _exif_fields(image.getexif()))
        if format_name in ("jpeg", "tiff"):
            gather("iptc", lambda: _iptc_fields(IptcImagePlugin.getiptcinfo(image) or {}))
        comment = _text(image.info.get("comment"))
    return [Field("comment", "comment", comment)] if comment else []


def _iptc_fields(info: dict[tuple[int, int], Any]) -> Iterator[Field]:
    for place, value in info.items():
        if place in _IPTC and (text := _text(value)):
            yield Field("iptc", _IPTC[place], text)


def _loose_exif(data: bytes) -> Iterator[Field]:
    exif = Image.Exif()
    exif.load(data)
    return _exif_fields(exif)


def _exif_fields(exif: Image.Exif) -> Iterator[Field]:
    for values in (exif, exif.get_ifd(_EXIF_IFD)):
        for tag, key in _TAGS.items():
            value = values.get(tag)
            if key in ("title", "comment") and isinstance(value, bytes):
                value = value.decode("utf-16-le", "replace")
            if text := _text(value):
                yield Field("exif", key, text)


def _packets(data: bytes) -> Iterator[bytes]:
    """The XMP packets in a file; of what only begins like one a few are looked at."""
    at = 0
    for _ in range(MAX_PACKETS):
        begun = _PACKET.search(data, at)
        if begun is None:
            return
        ending = b"</" + begun.group(1) + b">"
        end = data.find(ending, begun.end(), begun.end() + PACKET_BYTES)
        at = begun.end() if end < 0 else end
        if end >= 0:
            yield data[begun.start() : end + len(ending)]


def _xmp(packet: bytes) -> list[Field]:
    """The properties of an XMP packet by their local names; entities are refused, and what follows damage is left out.

    Source: ISO 16684-1, section 7 (RDF/XML serialisation).
    """
    found: list[Field] = []
    path: list[str] = []
    texts: list[list[str]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(path) >= MAX_DEPTH:
            raise ValueError("an XMP packet that is nested too deeply")
        path.append(_local(name))
        texts.append([])
        found.extend(Field("xmp", _local(key).lower(), _tidy(value)) for key, value in attributes.items())

    def end(_name: str) -> None:
        text, name = _tidy("".join(texts.pop())), path.pop()
        if text and name in _STRUCTURE:
            name = next((each for each in reversed(path) if each not in _STRUCTURE), name)
        if text:
            found.append(Field("xmp", name.lower(), text))

    def refuse(*_declared: object) -> None:
        raise ValueError("an XMP packet that declares entities")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda text: texts[-1].append(text)
    parser.EntityDeclHandler = refuse
    with contextlib.suppress(expat.ExpatError, ValueError):
        parser.Parse(packet, True)
    return found[:MAX_FIELDS]


def _local(name: str) -> str:
    return name.rpartition(" ")[2].rpartition(":")[2]
