"""User data within H.264 and H.265 streams go from every container, and no file costs a web process without end."""

from __future__ import annotations

import io
import struct
import time

import av
import numpy as np
import pytest

from benchmarks.hostile import seeds
from utils.errors import MediaCorruptError
from web_app.storage.clean import bare_parts
from web_app.storage.clean.effort import FILM_STEPS, Effort
from web_app.storage.clean.flv import bare as bare_flv
from web_app.storage.clean.nal import Units, configured, messages
from web_app.storage.clean.parts import Content

ENCODERS = {"libx264": b"x264 - core", "libx265": b"x265 (build"}
CONTAINERS = [
    ("mp4", "libx264"), ("mov", "libx264"), ("matroska", "libx264"), ("avi", "libx264"), ("flv", "libx264"),
    ("mp4", "libx265"), ("matroska", "libx265"), ("flv", "libx265"),
]  # fmt: skip


def film(container: str, encoder: str, frames: int = 10) -> bytes:
    """A clip whose encoder wrote its settings into the stream."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as sink:
        stream = sink.add_stream(encoder, rate=10, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(frames):
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(seeds.drawing(shift=index)))))
        sink.mux(stream.encode(None))
    return out.getvalue()


def bare(data: bytes, name: str) -> bytes:
    return b"".join(Content(data, bare_parts(data, name)))


def pictures(data: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(data)) as source:
        return [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]


@pytest.mark.parametrize(("container", "encoder"), CONTAINERS)
@pytest.mark.parametrize("frames", [1, 10])
def test_user_data_go_from_the_stream_and_pictures_stay(container: str, encoder: str, frames: int) -> None:
    data = film(container, encoder, frames)
    found = bare(data, container)
    assert ENCODERS[encoder] in data
    assert ENCODERS[encoder] not in found
    before, after = pictures(data), pictures(found)
    assert len(before) == len(after) == frames
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert bare(found, container) == found


def test_pictures_that_cannot_be_looked_into_are_not_handed_out() -> None:
    data = film("matroska", "libx264")
    at = data.index(b"\xa3", data.index(b"\x1f\x43\xb6\x75"))  # the first block of a cluster
    flags = at + 1 + (9 - data[at + 1].bit_length()) + 3
    laced = data[:flags] + bytes([data[flags] | 0x02]) + data[flags + 1 :]
    with pytest.raises(MediaCorruptError):
        bare(laced, "matroska")
    packed = data.replace(b"\x63\xa2", b"\x6d\x80", 1)  # the configuration becomes a list of encodings
    with pytest.raises(MediaCorruptError):
        bare(packed, "matroska")


def test_units_divided_by_start_codes() -> None:
    place = b"\x06\x05\x14" + bytes(range(1, 17)) + b"home" + b"\x80"
    slice_ = b"\x65" + bytes(range(1, 40))
    data = b"\0\0\0\1" + place + b"\0\0\0\1" + slice_ + b"\0\0\1" + place
    found = dict(messages(data, 0, len(data), Units(0, h265=False), Effort()))
    assert list(found) == [4, len(data) - len(place)]
    assert set(map(len, found.values())) == {len(place)}
    assert {filler[0] for filler in found.values()} == {0x0C}


def test_configuration_records_of_h265() -> None:
    place = b"\x4e\x01\x05\x14" + bytes(range(1, 17)) + b"home" + b"\x80"
    others = b"\x40\x01abc"
    arrays = b"".join(
        bytes([unit[0] >> 1]) + struct.pack(">HH", 1, len(unit)) + unit for unit in (others, place, others)
    )
    record = b"\1" + bytes(20) + b"\3\3" + arrays
    found = list(configured(b"xx" + record, 2, 2 + len(record), Units(4, h265=True), Effort()))
    assert [(at, len(filler), filler[0]) for at, filler in found] == [(2 + record.index(place), len(place), 0x4C)]
    assert list(configured(record[:30], 0, 30, Units(4, h265=True), Effort())) == []
    assert list(configured(record, 0, len(record), Units(4, h265=False), Effort())) == []


def test_enhanced_tags_of_flv() -> None:
    def tag(body: bytes) -> bytes:
        head = b"\x09" + len(body).to_bytes(3, "big") + bytes(7)
        return head + body + struct.pack(">I", len(head) + len(body))

    place = b"\x4e\x01\x05\x14" + bytes(range(1, 17)) + b"home" + b"\x80"
    unit = struct.pack(">I", len(place)) + place
    record = b"\1" + bytes(20) + b"\3\0"
    head = b"FLV\x01\x01\0\0\0\x09\0\0\0\0"
    configuration = tag(b"\x90hvc1" + record)
    data = head + configuration + tag(b"\x91hvc1\0\0\0" + unit) + tag(b"\x93hvc1" + unit)
    assert data.count(b"home") == 2
    assert b"home" not in bare(data, "flv")
    assert len(bare(data, "flv")) == len(data)
    with pytest.raises(ValueError, match="before"):
        bare_flv(data.replace(configuration, b""), Effort())


# Files that would keep a web process busy for minutes or days


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def _movie(chunks: int, size: int, media: bytes) -> bytes:
    """An MP4 whose samples are `chunks` times the same bytes."""
    entry = _box(b"avc1", bytes(78) + _box(b"avcC", b"\1\x64\0\x0a\xff\xe1\0\0\0"))
    head = _box(b"ftyp", b"isom\0\0\0\0")
    table = (
        _box(b"stsd", struct.pack(">II", 0, 1) + entry)
        + _box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1))
        + _box(b"stsz", struct.pack(">III", 0, 0, chunks) + struct.pack(">I", size) * chunks)
        + _box(b"stco", struct.pack(">II", 0, chunks) + struct.pack(">I", len(head) + 8) * chunks)
    )
    media_box = _box(b"hdlr", bytes(8) + b"vide" + bytes(13)) + _box(b"minf", _box(b"stbl", table))
    track = _box(b"tkhd", bytes(12) + struct.pack(">I", 1) + bytes(68)) + _box(b"mdia", media_box)
    return head + _box(b"mdat", media) + _box(b"moov", _box(b"trak", track))


def _nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = _box(b"mdia", inner)
    return _box(b"ftyp", b"isom\0\0\0\0") + _box(b"moov", _box(b"trak", inner))


def _matroska(cluster: bytes) -> bytes:
    def element(identity: str, body: bytes) -> bytes:
        return bytes.fromhex(identity) + (1 << 28 | len(body)).to_bytes(4, "big") + body

    track = element("AE", element("D7", b"\1") + element("83", b"\1") + element("86", b"V_VP8"))
    head = element("1A45DFA3", element("4282", b"webm"))
    return head + element("18538067", element("1654AE6B", track) + element("1F43B675", cluster))


def _png_of_texts(count: int) -> bytes:
    png = seeds.save("PNG")
    return png[:33] + b"\0\0\0\0tEXt\0\0\0\0" * count + png[33:]


ENDLESS = {
    "JPEG scan with a million fill bytes": (
        "jpeg", lambda: seeds.save("JPEG")[:-2] + b"\xff" * 1_000_000 + b"\0\xff\xd9",
    ),
    "JPEG with fill bytes before a marker": ("jpeg", lambda: b"\xff\xd8" + b"\xff" * 8_000_000),
    "JPEG with 60,000 comments": ("jpeg", lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 60_000),
    "PNG with 60,000 texts": ("png", lambda: _png_of_texts(60_000)),
    "WebP with 60,000 chunks": (
        "webp", lambda: b"RIFF\xff\xff\xff\x7fWEBP" + b"ABCD\0\0\0\0" * 60_000,
    ),
    "MP4 of 20,000 samples that are all the same 80 kB": ("mp4", lambda: _movie(20_000, 80_000, bytes(80_000))),
    "MP4 of 60,000 empty units": ("mp4", lambda: _movie(1, 240_000, bytes(240_000))),
    "MP4 with 3,000 nested boxes": ("mp4", lambda: _nested(3000)),
    "Matroska of 60,000 elements": ("webm", lambda: _matroska(b"\xa7\x80" * 60_000)),
    "AVI of 60,000 chunks": (
        "avi", lambda: b"RIFF" + struct.pack("<I", 480_004) + b"AVI " + b"ABCD\0\0\0\0" * 60_000,
    ),
    "FLV of 60,000 tags": ("flv", lambda: b"FLV\1\5\0\0\0\x09" + bytes(4) + (b"\x12" + bytes(14)) * 60_000),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_a_file_that_is_endless_work_is_given_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web_app.storage.clean.PICTURE_STEPS", 20_000)  # seconds otherwise, for each
    monkeypatch.setattr("web_app.storage.clean.FILM_STEPS", 20_000)
    media_format, build = ENDLESS[name]
    data = build()
    begun = time.perf_counter()
    try:
        bare_parts(data, media_format)
    except MediaCorruptError:
        assert "scan" not in name
    else:
        assert "scan" in name  # that one is a picture, and costs nothing
    assert time.perf_counter() - begun < 60  # hours and days, before


def test_the_shipped_limits_end_in_time_and_suffice_for_films() -> None:
    begun = time.perf_counter()
    with pytest.raises(MediaCorruptError):
        bare_parts(_matroska(b"\xa7\x80" * (FILM_STEPS + 10)), "webm")
    assert time.perf_counter() - begun < 60
    frames, sound = 7200 * 25, 7200 * 47
    assert frames * 3 + sound < FILM_STEPS


def test_steps_are_counted() -> None:
    effort = Effort(3)
    effort.spend(2)
    effort.spend()
    with pytest.raises(ValueError, match="work"):
        effort.spend()
