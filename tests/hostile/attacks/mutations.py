"""Healthy files made malformed: cut, flipped, filled, spliced, with headers that lie; repeatable by their seed."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator

Change = Callable[[random.Random, bytes], bytes]

EXTREMES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
BOXES = (
    b"ftyp", b"moov", b"mvhd", b"trak", b"tkhd", b"edts", b"elst", b"mdia", b"mdhd", b"hdlr", b"minf", b"stbl",
         b"stsd", b"avc1", b"avcC", b"mp4v", b"esds", b"stts", b"stss", b"ctts", b"stsc", b"stsz", b"stco", b"mdat",
)  # fmt: skip
CHUNKS = (b"avih", b"strh", b"strf", b"movi", b"idx1", b"00dc", b"LIST", b"RIFF", b"VP8X", b"VP8 ", b"VP8L", b"ANIM",
          b"ANMF", b"ALPH", b"EXIF", b"ICCP")  # fmt: skip


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(1, len(data))]


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 4, 16, 64))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_near_the_start(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 4, 8))):
        out[rng.randrange(min(len(out), 600))] ^= 1 << rng.randrange(8)
    return bytes(out)


def fill(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    length = min(rng.choice((1, 4, 16, 256, 2000)), len(data) - at)
    kind = rng.randrange(3)
    filling = rng.randbytes(length) if kind == 2 else bytes([255 * kind]) * length
    return data[:at] + filling + data[at + length :]


def drop(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice((1, 4, 16, 256)) :]


def insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.choice((1, 4, 16, 256))) + data[at:]


def repeat(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at : at + rng.choice((8, 64, 1024))] * rng.choice((2, 9, 50)) + data[at:]


def swap(rng: random.Random, data: bytes) -> bytes:
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:a] + data[b:] + data[a:b]


def word_lies(rng: random.Random, data: bytes) -> bytes:
    """An extreme value in a place where a number may stand."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        width = rng.choice((2, 4))
        at = rng.randrange(min(len(out) - width, 2000))
        value = rng.choice(EXTREMES) & ((1 << 8 * width) - 1)
        out[at : at + width] = value.to_bytes(width, rng.choice(("big", "little")))
    return bytes(out)


def header_lies(rng: random.Random, data: bytes) -> bytes:
    """A size, count or length of the format itself says something else."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_lies(rng, data)
    if data.startswith(b"\x89PNG"):
        return _png_lies(rng, data)
    names = CHUNKS if data.startswith(b"RIFF") else BOXES
    places = [at for name in names for at in _places(data, name)]
    if not places:
        return word_lies(rng, data)
    out = bytearray(data)
    at = rng.choice(places) + rng.choice((-4, 4, 8, 12, 16, 20, 24, 28))
    if 0 <= at <= len(out) - 4:
        order = ">I" if names is BOXES else "<I"
        out[at : at + 4] = struct.pack(order, rng.choice((*EXTREMES, rng.randrange(2**32), rng.randrange(5000))))
    return bytes(out)


def _places(data: bytes, name: bytes) -> Iterator[int]:
    at = data.find(name)
    while at >= 0:
        yield at
        at = data.find(name, at + 1)


def _jpeg_lies(rng: random.Random, data: bytes) -> bytes:
    markers = [at for n in (0xC0, 0xC2, 0xC4, 0xDB, 0xDA, 0xE0, 0xE1, 0xE2) for at in _places(data, bytes((0xFF, n)))]
    out = bytearray(data)
    at = rng.choice(markers) + rng.choice((1, 2, 4, 5, 7, 9, 10, 11))
    if at + 2 <= len(out):
        out[at : at + 2] = struct.pack(">H", rng.choice((*EXTREMES, rng.randrange(2**16))) & 0xFFFF)
    return bytes(out)


def _png_lies(rng: random.Random, data: bytes) -> bytes:
    """A field of IHDR or another chunk changes, and the checksum is made right again: a decoder believes it."""
    out, at = [data[:8]], 8
    chunks = []
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], bytearray(data[at + 8 : at + 8 + length])))
        at += 12 + length
    name, body = rng.choice(chunks)
    if body:
        body[rng.randrange(min(len(body), 30))] = rng.choice((0, 1, 4, 127, 128, 255))
    if rng.random() < 0.3:
        chunks.insert(rng.randrange(len(chunks)), rng.choice(chunks))
    for name, body in chunks:
        out.append(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))
    return b"".join(out)


CHANGES: tuple[Change, ...] = (
    cut, flip_bits, flip_near_the_start, fill, drop, insert, repeat, swap, word_lies, header_lies, header_lies,
)  # fmt: skip


def sixteenths(data: bytes) -> Iterator[bytes]:
    """The file cut at every sixteenth."""
    for part in range(1, 16):
        yield data[: len(data) * part // 16]


def mutations(seeds: dict[str, bytes], count: int, seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """Malformed files: each seed cut at every sixteenth, then single and double changes in turn.

    Args:
        seeds: healthy files by name.
        count: how many in all.
        seed: of the generator.

    Yields:
        A name that says what was done, and the bytes.
    """
    rng = random.Random(seed)
    made = 0
    for name, data in seeds.items():
        for part, short in enumerate(sixteenths(data), start=1):
            if made < count // 2:
                made += 1
                yield f"{name} cut at {part}/16", short
    names = list(seeds)
    for number in range(made, count):
        name = names[number % len(names)]
        change = CHANGES[number // len(names) % len(CHANGES)]
        data = change(rng, seeds[name])
        if number % 5 == 4 and len(data) > 16:
            data = rng.choice(CHANGES)(rng, data)
        yield f"{name} {change.__name__} #{number}", data
