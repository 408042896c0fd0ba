"""Pictures without what their makers wrote beside the pixels: Exif, XMP, IPTC, GPS, comments, previews, appendices.

The orientation stays, in an Exif block of our own that holds nothing else. The file is taken apart by a few lines of
arithmetic and put together again; no pixel is decoded or encoded again, and what is not known is left out. In HEIC and
AVIF, items and boxes that no viewer needs are blanked where they lie, so that every other byte keeps its place. It runs
in the confined child, which bounds its time.

Sources: ITU-T T.81 annex B, W3C PNG (Third Edition), RFC 9649 (WebP), GIF89a; of HEIC and AVIF as `heif.py`.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from utils.errors import MediaCorruptError
from utils.media.clean_film import UserDataFilter
from utils.media.display import DAMAGE
from utils.media.headers import boxes
from utils.media.heif import HeifItems
from utils.media.limits import MediaLimits

MAX_PARTS = 100_000  # a file of more is no photograph
ORIENTATION = 0x0112
EXIF_HEAD = b"Exif\0\0"
_ICC_HEAD = b"ICC_PROFILE\0"
_JFIF_LENGTH = 16  # of a header without a preview
_FILL = re.compile(rb"\xff*")
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # without a repetition, which would try each of many fill bytes
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"pHYs",
     b"acTL", b"fcTL", b"fdAT")
)  # fmt: skip
_WEBP_KEPT = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04
_GIF_LOOPS, _GIF_LOOPS_BYTES = (b"NETSCAPE2.0", b"ANIMEXTS1.0"), 19
_SHOWN = (b"hvc1", b"hev1", b"av01", b"grid", b"iden", b"iovl", b"tmap")
_PROPERTIES = frozenset(
    (b"ispe", b"pixi", b"hvcC", b"av1C", b"colr", b"irot", b"imir", b"clap", b"pasp", b"auxC", b"a1op", b"a1lx",
     b"lsel", b"clli", b"mdcv", b"rloc")
)  # fmt: skip
_WHOLE = frozenset((b"pitm", b"iloc", b"dinf", b"grpl", b"iprp", b"iref", b"iinf", b"idat", b"hdlr"))
_HANDLER_BYTES = 24  # of an hdlr box, before its name


def strip(untrusted: bytes, format_name: str, limits: MediaLimits) -> bytes:
    """A picture without its metadata.

    Raises:
        MediaCorruptError: the structure leaves a doubt about what is what, or it is a timed sequence.
    """
    try:
        if format_name in ("heic", "avif"):
            return _heif(untrusted, HeifItems(io.BytesIO(untrusted), limits))
        return b"".join(_READERS[format_name](untrusted))
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise MediaCorruptError(f"What is content and what was added to it cannot be told apart ({error}).") from None


def read_orientation(tiff: bytes) -> int:
    """The orientation 1 to 8 that an Exif block names; 1 where it names none that can be read."""
    exif = Image.Exif()
    try:
        exif.load(tiff)
        value = exif.get(ORIENTATION)
    except DAMAGE:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def orientation_only(orientation: int) -> bytes:
    """An Exif block (TIFF) that says the orientation and nothing else."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)


def _jpeg(data: bytes) -> list[bytes]:
    if data[:2] != b"\xff\xd8":
        raise ValueError("no picture")
    parts: list[bytes] = []
    orientation, at, scans = 1, 2, 0
    while len(parts) < MAX_PARTS:
        if scans and at + 4 > len(data) and data[at : at + 2] != b"\xff\xd9":  # cut off; decoders show what is there
            return _with_jpeg_orientation(parts, orientation)
        if data[at] != 0xFF:
            raise ValueError("no marker")
        at = _fill_end(data, at) - 1
        marker = data[at + 1]
        if marker == 0xD9:  # what follows the end is no part of the picture
            return _with_jpeg_orientation([*parts, b"\xff\xd9"], orientation)
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        end = at + 2 + length
        if scans and end > len(data):
            return _with_jpeg_orientation(parts, orientation)
        if length < 2 or end > len(data) or not (0xC0 <= marker <= 0xFE) or 0xD0 <= marker <= 0xD8:
            raise ValueError("no segment")
        if marker == 0xE1 and data[at + 4 : at + 10] == EXIF_HEAD:
            found = read_orientation(data[at + 10 : end])
            orientation = found if orientation == 1 else orientation
        if _jpeg_kept(marker, length, data[at + 4 : at + 16]):
            parts.append(data[at:end])
        at = end
        if marker == 0xDA:
            scan_end = _SCAN_END.search(data, at)
            stop = scan_end.start() if scan_end else len(data)
            parts.append(data[at:stop])
            at, scans = stop, scans + 1
    raise ValueError("too many parts")


def _fill_end(data: bytes, at: int) -> int:
    found = _FILL.match(data, at)
    return found.end() if found else at


def _jpeg_kept(marker: int, length: int, head: bytes) -> bool:
    if marker == 0xE0:
        return head.startswith(b"JFIF\0") and length == _JFIF_LENGTH
    if marker == 0xE2:
        return head.startswith(_ICC_HEAD)
    if marker == 0xEE:
        return head.startswith(b"Adobe") and length == 14
    return not (0xE0 <= marker <= 0xEF or marker >= 0xF0)  # 0xFE is a comment


def _with_jpeg_orientation(parts: list[bytes], orientation: int) -> list[bytes]:
    if orientation == 1:
        return [b"\xff\xd8", *parts]
    block = EXIF_HEAD + orientation_only(orientation)
    return [b"\xff\xd8", struct.pack(">HH", 0xFFE1, len(block) + 2) + block, *parts]


def _png(data: bytes) -> list[bytes]:
    if data[:8] != _PNG_HEAD or data[12:16] != b"IHDR":
        raise ValueError("no picture")
    parts: list[bytes] = [_PNG_HEAD]
    orientation, at = 1, 8
    while at + 8 <= len(data) and len(parts) < MAX_PARTS:
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if not kind.isalpha():
            raise ValueError("no chunk")
        if end > len(data):  # cut off; decoders show what is there
            if kind == b"IDAT":
                parts.append(data[at:])
            break
        if kind == b"eXIf":
            orientation = read_orientation(data[at + 8 : end - 4])
        if kind in _PNG_KEPT:
            parts.append(data[at:end])
        at = end
        if kind == b"IEND":
            break
    if len(parts) >= MAX_PARTS:
        raise ValueError("too many parts")
    if orientation != 1:
        body = b"eXIf" + orientation_only(orientation)
        parts.insert(2, struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
    return parts


def _webp(data: bytes) -> list[bytes]:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("no picture")
    parts: list[bytes] = []
    orientation, at, head = 1, 12, -1
    last = min(len(data), 8 + struct.unpack("<I", data[4:8])[0])  # what follows is no part of the picture
    while at + 8 <= last and len(parts) < MAX_PARTS:
        kind = data[at : at + 4]
        (length,) = struct.unpack("<I", data[at + 4 : at + 8])
        end = min(at + 8 + length + (length & 1), last)
        if not kind.rstrip(b" ").isalnum():
            raise ValueError("no chunk")
        if kind == b"EXIF":
            block = data[at + 8 : at + 8 + length]
            orientation = read_orientation(block.removeprefix(EXIF_HEAD))
        elif kind == b"VP8X":
            if length != 10 or end != at + 18:
                raise ValueError("no extended header")
            head = len(parts)
            parts.append(data[at:end])
        elif kind in _WEBP_KEPT:
            parts.append(data[at:end])
        at = end
    if not parts or len(parts) >= MAX_PARTS:
        raise ValueError("no pixels, or too many parts")
    if head >= 0:
        extended = bytearray(parts[head])
        extended[8] &= ~(_WEBP_EXIF | _WEBP_XMP) & 0xFF
        if orientation != 1:
            extended[8] |= _WEBP_EXIF
            block = orientation_only(orientation)
            parts.append(b"EXIF" + struct.pack("<I", len(block)) + block)
        parts[head] = bytes(extended)
    return [b"RIFF" + struct.pack("<I", 4 + sum(map(len, parts))) + b"WEBP", *parts]


def _gif(data: bytes) -> list[bytes]:
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        raise ValueError("no picture")
    at = 13 + _gif_table(data[10])
    parts = [data[:at]]
    while len(parts) < MAX_PARTS:
        kind, label = data[at], data[at + 1] if at + 1 < len(data) else 0
        if kind == 0x3B:
            return [*parts, b";"]
        if kind not in (0x21, 0x2C):
            raise ValueError("no block")
        end = at + 2 if kind == 0x21 else at + 11 + _gif_table(data[at + 9])
        while data[end]:
            end += 1 + data[end]
        end += 1
        loops = label == 0xFF and data[at + 3 : at + 14] in _GIF_LOOPS and end - at == _GIF_LOOPS_BYTES
        if kind == 0x2C or label == 0xF9 or loops:
            parts.append(data[at:end])
        at = end
    raise ValueError("too many parts")


def _gif_table(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_READERS = {"jpeg": _jpeg, "png": _png, "webp": _webp, "gif": _gif}


def _heif(data: bytes, heif: HeifItems) -> bytes:
    if heif.primary not in heif.items:
        raise ValueError("no picture")
    out = bytearray(data)
    previews = {first for kind, first, _ in heif.links if kind == b"thmb"}
    gone = {number for number, item in heif.items.items() if item.kind not in _SHOWN or number in previews}
    kept: list[tuple[int, int]] = []
    kept_in_idat: list[tuple[int, int]] = []
    for item in (item for number, item in heif.items.items() if number not in gone):
        (kept_in_idat if item.in_idat else kept).extend((at, at + length) for at, length in item.places)
        configuration = item.get(b"hvcC")
        for at, length in item.places if configuration and not item.in_idat else ():
            unit_filter = UserDataFilter(configuration, is_hevc=True)
            out[at : at + length] = unit_filter.packet(data[at : at + length])
    last = 0
    for name, at, start, end in _places(data, 0, len(data)):
        if end > len(data):
            if name in (b"ftyp", b"meta", b"mdat", b"moov"):
                raise ValueError("it ends early")
            break
        last = end
        if name == b"meta":
            _heif_meta(out, data, start + 4, end, gone, kept_in_idat)
        elif name == b"mdat":
            _blank(out, start, end, kept)
        elif name == b"moov":
            raise ValueError("a timed sequence")
        elif name != b"ftyp":
            _free(out, at, start, end)
    return bytes(out[:last])


def _heif_meta(
    out: bytearray, data: bytes, start: int, end: int, gone: set[int], kept_in_idat: list[tuple[int, int]]
) -> None:
    for name, at, body, stop in _places(data, start, end):
        if name not in _WHOLE:
            _free(out, at, body, stop)
        elif name == b"hdlr":
            _blank(out, body + _HANDLER_BYTES, stop, [])
        elif name == b"idat":
            _blank(out, body, stop, [(body + first, body + last) for first, last in kept_in_idat])
        elif name == b"iinf":
            for _, _, entry, entry_end in _places(data, body + (8 if data[body] else 6), stop):
                kind = entry + (8 if data[entry] > 2 else 6) + 2
                if data[entry] < 2:
                    raise ValueError("items of an old kind")
                _blank(out, kind + 4, entry_end, [])  # its name
                if int.from_bytes(data[entry + 4 : kind - 2], "big") in gone:
                    out[kind : kind + 4] = b"free"
        elif name == b"iref":
            wide = 4 if data[body] else 2
            for _, link, first, _ in _places(data, body + 4, stop):
                if int.from_bytes(data[first : first + wide], "big") in gone:
                    out[link + 4 : link + 8] = b"free"
        elif name == b"iprp":
            for part, _, inside, inside_end in _places(data, body, stop):
                for known, place, first, last in _places(data, inside, inside_end) if part == b"ipco" else ():
                    if known == b"hvcC":
                        clean = UserDataFilter(data[first:last], is_hevc=True).configuration(data[first:last])
                        out[first:last] = clean.ljust(last - first, b"\0")
                    elif known not in _PROPERTIES:
                        _free(out, place, first, last)


def _places(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Name, beginning, beginning of the body and end of each box."""
    for name, start, stop in boxes(io.BytesIO(data), at, end):
        yield name, at, start, stop
        at = stop


def _free(out: bytearray, at: int, start: int, end: int) -> None:
    """Make a box one that is passed over."""
    out[at + 4 : at + 8] = b"free"
    _blank(out, start, end, [])


def _blank(out: bytearray, start: int, end: int, kept: list[tuple[int, int]]) -> None:
    """Zeros from `start` to `end` but where something is kept."""
    end = min(end, len(out))
    for first, last in [*sorted(kept), (end, end)]:
        if first > start:
            out[start : min(first, end)] = bytes(min(first, end) - start)
        start = max(start, last)
