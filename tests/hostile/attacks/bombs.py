"""Small files that would cost a naive reader its memory or its time, each built by a function.

`PICTURES` must be refused at the header in under 100 ms; `SLOW_PICTURES`, `VIDEOS` and `SOUNDS` must end with a report
or a coded error within the limits.
"""

from __future__ import annotations

import fractions
import functools
import io
import struct
import zlib
from collections.abc import Callable

import av
import numpy as np
from PIL import Image

from tests.hostile.attacks.seeds import clip, drawing, recording, save
from tests.utils.media.heics import Heic, heic

Build = Callable[[], bytes]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ROWS = zlib.compress((b"\0" + bytes(120)) * 40)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(*chunks: bytes, width: int = 40, height: int = 40, behind: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return _SIGNATURE + header + b"".join(chunks) + _chunk(b"IDAT", _ROWS) + behind + _chunk(b"IEND", b"")


def _jpeg_segments(*segments: tuple[int, bytes]) -> bytes:
    jpeg = save("JPEG")
    extra = b"".join(bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return jpeg[:2] + extra + jpeg[2:]


def jpeg_of_439_megapixels() -> bytes:
    """304 bytes that declare 20,953 x 20,953 pixels."""
    head = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    frame = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 20953, 20953) + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
    tables = b"\xff\xdb\x00\x43\x00" + bytes([1]) * 64
    scan = b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00"
    return (head + tables + frame + scan).ljust(302, b"\x55") + b"\xff\xd9"


def animated_png(frames: int = 100_000) -> bytes:
    out = [_chunk(b"acTL", struct.pack(">II", frames, 0))]
    for index in range(frames - 1):
        control = struct.pack(">IIIIIHHBB", 2 * index, 1, 1, 0, 0, 1, 10, 0, 0)
        out += [_chunk(b"fcTL", control), _chunk(b"fdAT", struct.pack(">I", 2 * index + 1) + _ROWS[:10])]
    return _png(out[0], behind=b"".join(out[1:]))


def animated_webp(frames: int = 100_000) -> bytes:
    out = io.BytesIO()
    flat = [Image.new("RGB", (40, 40), (shade, 0, 0)) for shade in (1, 200)]
    flat[0].save(out, "WEBP", save_all=True, append_images=flat[1:], lossless=True)
    two = out.getvalue()
    at = two.index(b"ANMF")
    head, frame = two[12:at], two[at : at + 8 + int.from_bytes(two[at + 4 : at + 8], "little")]
    body = head + frame * frames
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def animated_gif(frames: int = 100_000) -> bytes:
    frame = b"\x21\xf9\x04\x00\x01\x00\x00\x00\x2c" + bytes(4) + b"\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"
    return b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + bytes(6) + frame * frames + b"\x3b"


def _webp_canvas() -> bytes:
    webp = bytearray(save("WEBP", "RGBA", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"))
    webp[24:30] = b"\xff\xff\x00" * 2
    return bytes(webp)


@functools.cache
def _zeros() -> bytes:
    return zlib.compress(bytes(200_000_000), 1)


def _patched(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    at = data.index(box) + offset
    return data[:at] + value + data[at + len(value) :]


def _large_tiff() -> bytes:
    """Its first two fields, width and height, say 60,000."""
    data = save("TIFF")
    at = int.from_bytes(data[4:8], "little") + 2
    fields = struct.pack("<HHIIHHII", 256, 4, 1, 60_000, 257, 4, 1, 60_000)
    return data[:at] + fields + data[at + 24 :]


def _large_heif(data: bytes) -> bytes:
    return _patched(data, b"ispe", 8, struct.pack(">II", 60_000, 60_000))


def _grown_gif() -> bytes:
    """Its second frame reaches far beyond the first."""
    data = save("GIF", "P", save_all=True, append_images=[drawing(shift=5).convert("P")], duration=100)
    at = data.index(b"\x2c", data.rindex(b"\x21\xf9\x04"))
    return data[: at + 5] + struct.pack("<HH", 40_000, 40_000) + data[at + 9 :]


def _many_large_frames(frames: int = 500, side: int = 4000) -> bytes:
    """The same flat frame again and again."""
    out = io.BytesIO()
    Image.new("L", (side, side)).save(out, "GIF")
    data = out.getvalue()
    at = data.index(b"\x2c\0\0\0\0")
    return data[:at] + (b"\x21\xf9\x04\0\x0a\0\0\0" + data[at:-1]) * frames + b";"


def _pages_in_a_circle() -> bytes:
    """A TIFF whose first page is followed by itself."""
    data = save("TIFF")
    at = int.from_bytes(data[4:8], "little")
    end = at + 2 + 12 * int.from_bytes(data[at : at + 2], "little")
    return data[:end] + struct.pack("<I", at) + data[end + 4 :]


def _many_tiles() -> bytes:
    """A HEIC of 33 Mpx in 8,192 tiles, all of them the same."""
    file = Heic()
    tile = file.picture(np.asarray(drawing(64, 64)), hidden=True)
    number = file.add(b"grid", bytes((0, 1, 255, 31)) + struct.pack(">II", 32 * 64, 256 * 64))
    file.link(b"dimg", number, *[tile] * (256 * 32))
    return file.save(number)


PICTURES: dict[str, Build] = {
    "BMP of 60,000 x 60,000": lambda: _patched(save("BMP"), b"BM", 18, struct.pack("<ii", 60_000, 60_000)),
    "TIFF of 60,000 x 60,000": _large_tiff,
    "GIF of 60,000 x 60,000": lambda: _patched(save("GIF", "P"), b"GIF8", 6, struct.pack("<HH", 60_000, 60_000)),
    "HEIC of 60,000 x 60,000": lambda: _large_heif(heic(np.asarray(drawing()))),
    "AVIF of 60,000 x 60,000": lambda: _large_heif(save("AVIF")),
    "JPEG of 304 bytes declaring 439 Mpx": jpeg_of_439_megapixels,
    "PNG of 50,000 x 50,000": lambda: _png(width=50_000, height=50_000),
    "PNG of 2^31 x 2^31": lambda: _png(width=2**31 - 1, height=2**31 - 1),
    "WebP canvas of 65,536 x 65,536": _webp_canvas,
    "lossy WebP of 16,383 x 16,383": lambda: _patched(save("WEBP"), b"RIFF", 26, struct.pack("<HH", 16_383, 16_383)),
    "lossless WebP of 16,383 x 16,383": lambda: _patched(
        save("WEBP", lossless=True), b"RIFF", 21, struct.pack("<I", 16_382 | 16_382 << 14)
    ),
    "PNG just above 50 Mpx": lambda: _png(width=8_000, height=7_000),
    "GIF of 100,000 frames": animated_gif,
    "APNG of 100,000 frames": animated_png,
    "WebP of 100,000 frames": animated_webp,
    "PNG with an ICC profile of 200 MB in 870 kB": lambda: _png(_chunk(b"iCCP", b"a\0\0" + _zeros())),
    "PNG with a text of 200 MB in 870 kB": lambda: _png(_chunk(b"zTXt", b"a\0\0" + _zeros())),
    "PNG with an XMP of 200 MB in 870 kB": lambda: _png(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + _zeros())),
    "PNG with an EXIF of 50 MB": lambda: _png(_chunk(b"eXIf", b"MM\0*".ljust(50_000_000, b"\xff"))),
    "PNG with a million texts": lambda: _png(_chunk(b"tEXt", b"k\0v") * 1_000_000),
    "JPEG with 65 MB of ICC": lambda: _jpeg_segments(*[(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65_000))] * 1000),
    "JPEG with 65 MB of EXIF": lambda: _jpeg_segments(*[(0xE1, b"Exif\0\0" + bytes(65_000))] * 1000),
    "JPEG with 100,000 comments": lambda: _jpeg_segments(*[(0xFE, b"")] * 100_000),
}


def _many_scans(scans: int = 2000) -> bytes:
    """A progressive JPEG of 25 Mpx whose last scan comes again and again: each goes over the whole picture."""
    out = io.BytesIO()
    Image.new("L", (5000, 5000), 128).save(out, "JPEG", progressive=True)
    jpeg = out.getvalue()
    at = jpeg.rindex(b"\xff\xda")
    return jpeg[:at] + jpeg[at:-2] * scans + jpeg[-2:]


SLOW_PICTURES: dict[str, Build] = {
    "GIF that grows to 40,000 x 40,000": _grown_gif,
    "GIF of 500 frames of 16 Mpx": _many_large_frames,
    "TIFF whose pages go round": _pages_in_a_circle,
    "HEIC of 8,192 tiles": _many_tiles,
    "progressive JPEG of 2,000 scans": _many_scans,
    "PNG with 150 texts of 1 MB each in 150 kB": lambda: _png(
        _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 150
    ),
    "PNG with a million texts behind the pixels": lambda: _png(behind=_chunk(b"tEXt", b"k\0v") * 1_000_000),
    "PNG in a million empty pieces": lambda: _png(_chunk(b"IDAT", b"") * 1_000_000),
    "JPEG with an endless EXIF chain": lambda: _jpeg_segments(
        (0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\1\x87\x69\0\4\0\0\0\1\0\0\0\x08\0\0\0\x08")
    ),
}


def _endless_duration() -> bytes:
    data = clip("mp4")
    for box in (b"mvhd", b"mdhd"):
        data = _patched(data, box, 20, b"\x7f\xff\xff\xff")
    return _patched(data, b"tkhd", 24, b"\x7f\xff\xff\xff")


def _nested_boxes(depth: int = 100_000) -> bytes:
    out = clip("mp4")
    return out + b"".join(struct.pack(">I", 8 * (depth - n)) + b"moov" for n in range(depth))


def _edit_list(entries: int = 500_000) -> bytes:
    data = clip("mp4")
    at = data.index(b"elst") - 4
    old = int.from_bytes(data[at : at + 4], "big")
    new = struct.pack(">I4sII", 16 + 12 * entries, b"elst", 0, entries) + struct.pack(">IiI", 1, 0, 65536) * entries
    out = bytearray(data[:at] + new + data[at + old :])
    for box in (b"edts", b"trak", b"moov"):
        place = out.rindex(box, 0, at + 4)
        out[place - 4 : place] = struct.pack(">I", int.from_bytes(out[place - 4 : place], "big") + len(new) - old)
    return bytes(out)


def _changing_sizes() -> bytes:
    """An AVI of JPEG frames: small, larger, and one whose header declares 439 megapixels."""
    out = io.BytesIO()
    with av.open(out, "w", format="avi") as sink:
        stream = sink.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for index in range(12):
            frame = io.BytesIO()
            drawing(*((96, 64), (640, 480), (64, 96))[index % 3]).save(frame, "JPEG")
            packet = av.Packet(jpeg_of_439_megapixels() if index == 7 else frame.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, fractions.Fraction(1, 10)
            sink.mux(packet)
    return out.getvalue()


def tiny_packets(count: int = 1_000_000) -> bytes:
    """An FLV of so many video tags of two bytes each."""
    data = clip("flv")
    at = 13
    while data[at] != 9:
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    tags = [
        struct.pack(">B3s3sB3sBBI", 9, b"\0\0\2", (n // 4).to_bytes(3, "big"), 0, bytes(3), 0x22, 0, 13)
        for n in range(count)
    ]
    return data[:at] + b"".join(tags)


def _matroska_voids(count: int = 2_000_000) -> bytes:
    data = clip("matroska")
    at = data.index(b"\x18\x53\x80\x67")
    return data[: at + 4] + b"\x01" + b"\xff" * 7 + b"\xec\x80" * count + data[at + 12 :]


def _matroska_long_void() -> bytes:
    data = clip("matroska")
    at = data.index(b"\x18\x53\x80\x67")
    return data[: at + 4] + b"\x01" + b"\xff" * 7 + b"\xec\x01" + b"\xff" * 6 + b"\xfe" + data[at + 12 :]


def _matroska_deep(depth: int = 100_000) -> bytes:
    """Tags within tags, each of unknown size."""
    data = clip("matroska")
    at = data.index(b"\x18\x53\x80\x67")
    return (
        data[: at + 4] + b"\x01" + b"\xff" * 7 + (b"\x12\x54\xc3\x67\xff" + b"\x73\x73\xff" + b"\x67\xc8\xff") * depth
    )


def _avi_lies() -> bytes:
    data = bytearray(clip("avi"))
    at = data.index(b"avih") + 8
    data[at : at + 40] = b"\xff\xff\xff\x7f" * 10
    at = data.index(b"strh") + 8 + 20
    data[at : at + 20] = b"\xff\xff\xff\x7f" * 5
    return bytes(data)


def _flv_script() -> bytes:
    """Script data of objects within objects."""
    body = b"\x02\x00\x0aonMetaData" + b"\x03\x00\x01a" * 200_000
    tag = struct.pack(">B3s3sB3s", 18, len(body).to_bytes(3, "big"), bytes(3), 0, bytes(3)) + body
    return b"FLV\x01\x01\0\0\0\x09\0\0\0\0" + tag + struct.pack(">I", len(tag)) + clip("flv")[13:]


VIDEOS: dict[str, Build] = {
    "MP4 declaring 24 days": _endless_duration,
    "MP4 with 100,000 nested boxes": _nested_boxes,
    "MP4 with 500,000 edits": _edit_list,
    "MP4 with 2^32 samples of one length": lambda: _patched(clip("mp4"), b"stts", 12, b"\xff\xff\xff\xff"),
    "MP4 with 2^32 sample sizes": lambda: _patched(clip("mp4"), b"stsz", 12, b"\xff\xff\xff\xff"),
    "MOV of 65,535 x 65,535": lambda: _patched(clip("mov"), b"mp4v", 28, b"\xff\xff\xff\xff"),
    "AVI whose frames change their size": _changing_sizes,
    "AVI with a lying header": _avi_lies,
    "FLV of a million packets of two bytes": tiny_packets,
    "FLV with 200,000 nested objects": _flv_script,
    "Matroska with two million Void elements": _matroska_voids,
    "Matroska with a Void of 2^56 bytes": _matroska_long_void,
    "Matroska with 100,000 nested tags": _matroska_deep,
}


def _wav(rate: int, channels: int, data_bytes: int, body: bytes) -> bytes:
    head = struct.pack("<HHIIHH", 1, channels, rate, (rate * channels) % 2**32, channels % 2**16, 8)
    chunks = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", data_bytes) + body
    return b"RIFF" + struct.pack("<I", min(data_bytes + 36, 2**32 - 1)) + chunks


def _flac_of_unknown_length() -> bytes:
    """Twenty minutes of nothing in 100 kB; the header does not say how many samples there are."""
    data = bytearray(recording("flac", np.zeros(44100 * 1200, np.float32)))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def _id3(size: int) -> bytes:
    return b"ID3\x04\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def _pages() -> bytes:
    page = b"OggS\0\0" + bytes(8) + b"abcd" + bytes(8) + b"\1\0"
    return recording("oga") + page * 300_000


SOUNDS: dict[str, Build] = {
    "AMR of eleven hours in 2 MB": lambda: b"#!AMR\n" + b"\x7c" * 2_000_000,
    "FLAC of unknown length": _flac_of_unknown_length,
    "WAV of 4 GB in 44 bytes": lambda: _wav(16000, 1, 0xFFFFFFF0, b""),
    "WAV of 65,535 channels": lambda: _wav(48000, 65535, 65535, bytes(65535)),
    "WAV of 2^32 Hz": lambda: _wav(0xFFFFFFFF, 1, 4000, bytes(4000)),
    "WAV of one sample a second": lambda: _wav(1, 1, 4000, bytes(4000)),
    "MP3 behind 256 MB of tags that are not there": lambda: _id3(2**28 - 1) + recording("mp3"),
    "MP3 behind a million empty tags": lambda: _id3(0) * 1_000_000 + recording("mp3"),
    "Ogg with 300,000 empty pages": _pages,
    "M4A with 500,000 edits": lambda: _edit_list().replace(b"ftypisom", b"ftypM4A ", 1),
    "M4A with 2^32 samples of one length": lambda: _patched(recording("m4a"), b"stts", 12, b"\xff\xff\xff\xff"),
}
