"""HEIC and AVIF pictures without what does not show: places, names, previews, appendices.

Items and boxes that no viewer needs are blanked where they lie, so that every other byte keeps its place and no pixel
is coded again. It runs in the confined child, called by `child.py`.

Source: as `heif.py`.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from utils.errors import MediaCorruptError
from utils.media.heif import HeifItems
from utils.media.limits import MediaLimits
from utils.media.mp4 import boxes
from utils.media.user_data import UserDataFilter

_SHOWN = (b"hvc1", b"hev1", b"av01", b"grid", b"iden", b"iovl", b"tmap")
_PROPERTIES = frozenset(
    (b"ispe", b"pixi", b"hvcC", b"av1C", b"colr", b"irot", b"imir", b"clap", b"pasp", b"auxC", b"a1op", b"a1lx",
     b"lsel", b"clli", b"mdcv", b"rloc")
)  # fmt: skip
_WHOLE = frozenset((b"pitm", b"iloc", b"dinf", b"grpl", b"iprp", b"iref", b"iinf", b"idat", b"hdlr"))
_HANDLER_BYTES = 24  # of an hdlr box, before its name


def strip_heif(untrusted: bytes, limits: MediaLimits) -> bytes:
    """A HEIC or AVIF picture, blanked but for what shows it.

    Raises:
        MediaCorruptError: its structure cannot be read, or it holds a timed sequence.
    """
    try:
        return _strip(untrusted, HeifItems(io.BytesIO(untrusted), limits))
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise MediaCorruptError(f"What is content and what was added to it cannot be told apart ({error}).") from None


def _strip(data: bytes, heif: HeifItems) -> bytes:
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
            _strip_meta(out, data, start + 4, end, gone, kept_in_idat)
        elif name == b"mdat":
            _blank(out, start, end, kept)
        elif name == b"moov":
            raise ValueError("a timed sequence")
        elif name != b"ftyp":
            _free(out, at, start, end)
    return bytes(out[:last])


def _strip_meta(
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
