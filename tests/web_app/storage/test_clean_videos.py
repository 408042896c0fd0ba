"""Videos that are handed out: the same pictures, no place, date, name, other track or hidden byte."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import av
import numpy as np
import pytest

from utils.errors import MediaCorruptError
from web_app.storage.clean import bare_parts
from web_app.storage.clean.effort import Effort
from web_app.storage.clean.nal import Units, messages
from web_app.storage.clean.parts import Blanking, Content, Zeros, size_of

SECRET = b"48.8584 N 2.2945 E"
MUXERS = {
    "mp4": ("mp4", "libx264", "aac", {"movflags": "use_metadata_tags"}),
    "fragments": ("mp4", "libx264", "aac", {"movflags": "frag_keyframe+empty_moov+use_metadata_tags"}),
    "moof": ("mp4", "libx264", "aac", {"movflags": "frag_keyframe+empty_moov+default_base_moof+use_metadata_tags"}),
    "mov": ("mov", "mpeg4", "pcm_s16le", {}),
    "matroska": ("matroska", "libx264", "aac", {}),
    "webm": ("webm", "libvpx", "libopus", {}),
    "live": ("webm", "libvpx", "libopus", {"live": "1"}),
    "avi": ("avi", "mpeg4", "pcm_s16le", {}),
    "flv": ("flv", "flv", "aac", {}),
}
FORMATS = {"fragments": "mp4", "moof": "mp4", "live": "webm"}
ASS_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize, PrimaryColour\n"
    b"Style: Default,Arial,16,&Hffffff\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
)
SUBTITLES = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip"}


def told(name: str) -> bytes:
    """A clip with sound that says where it was made: in its tags, its tracks' names, and a track of text."""
    muxer, codec, sound, options = MUXERS[name]
    out = io.BytesIO()
    with av.open(out, "w", format=muxer, container_options=options) as sink:
        for tag in ("title", "comment", "location", "artist"):
            sink.metadata[tag] = SECRET.decode()
        sink.metadata["creation_time"] = "2024-02-29T12:00:00"
        video = sink.add_stream(codec, rate=10)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.metadata["title"] = video.metadata["handler_name"] = SECRET.decode()
        audio = sink.add_stream(sound, rate=44100 if muxer == "flv" else 48000, layout="mono")
        for index in range(20):
            noise = np.random.default_rng(index).integers(0, 255, (64, 96, 3), np.uint8)
            sink.mux(video.encode(av.VideoFrame.from_ndarray(noise)))
        sink.mux(video.encode(None))
        planar = audio.format.name.endswith("p") or audio.format.is_planar
        kind = np.float32 if audio.format.name.startswith("flt") else np.int16
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), kind), audio.format.name, "mono")
        assert planar or kind is np.int16 or audio.format.name == "flt"
        frame.sample_rate = audio.rate
        sink.mux(audio.encode(frame))
        sink.mux(audio.encode(None))
    return out.getvalue()


def bare(data: bytes, name: str) -> bytes:
    content = Content(data, bare_parts(data, FORMATS.get(name, name)))
    found = b"".join(content)
    assert content.size == len(found)
    return found


def read(data: bytes) -> tuple[list[np.ndarray], list[np.ndarray], dict[str, str]]:
    """Pictures, sound and tags of a clip."""
    pictures, sound = [], []
    with av.open(io.BytesIO(data)) as source:
        tags = dict(source.metadata)
        for stream in source.streams:
            tags |= {f"{stream.type} {key}": value for key, value in stream.metadata.items()}
        for frame in source.decode(source.streams.video[0], source.streams.audio[0]):
            (pictures if isinstance(frame, av.VideoFrame) else sound).append(
                frame.to_ndarray(format="rgb24") if isinstance(frame, av.VideoFrame) else frame.to_ndarray()
            )
    return pictures, sound, tags


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) > 0 and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", MUXERS)
def test_pictures_and_sound_stay_and_the_rest_goes(name: str) -> None:
    data = told(name)
    found = bare(data, name)
    assert SECRET in data
    assert SECRET not in found
    assert b"Lavf" not in found
    before, after = read(data), read(found)
    assert same(before[0], after[0])
    assert same(before[1], after[1])
    shown = {key for key, value in after[2].items() if value.strip("\0")}
    assert shown <= {"major_brand", "minor_version", "compatible_brands", "encoder", "video language",
                     "audio language", "video vendor_id", "audio vendor_id"}  # fmt: skip
    assert not after[2].get("encoder")
    assert bare(found, name) == found


@pytest.mark.parametrize("name", ["mp4", "mov", "matroska"])
def test_a_track_that_is_neither_picture_nor_sound_goes_with_its_data(name: str) -> None:
    data = with_text_track(name)
    found = bare(data, name)
    assert data.count(SECRET) == 2
    assert SECRET not in found
    with av.open(io.BytesIO(data)) as before, av.open(io.BytesIO(found)) as after:
        assert [stream.type for stream in before.streams] == ["video", "subtitle"]
        assert [stream.type for stream in after.streams] == ["video"]
        assert same(pictures(before), pictures(after))


def with_text_track(name: str) -> bytes:
    """A clip with a second track of text, as drones and dashboard cameras write it."""
    out = io.BytesIO()
    with av.open(out, "w", format=name) as sink:
        video = sink.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        text = sink.add_stream(SUBTITLES[name])
        text.codec_context.subtitle_header = b"" if name == "matroska" else ASS_HEADER
        for index in range(10):
            noise = np.random.default_rng(index).integers(0, 255, (64, 96, 3), np.uint8)
            sink.mux(video.encode(av.VideoFrame.from_ndarray(noise)))
            if index in (2, 6):
                said = SECRET if name == "matroska" else struct.pack(">H", len(SECRET)) + SECRET
                packet = av.Packet(said)
                packet.stream, packet.pts, packet.dts, packet.duration = text, index * 100, index * 100, 100
                packet.time_base = text.time_base
                sink.mux(packet)
        sink.mux(video.encode(None))
    return out.getvalue()


def pictures(source: Any) -> list[np.ndarray]:
    return [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]


def test_what_hides_between_the_samples_and_in_foreign_boxes_goes() -> None:
    data = told("mp4")
    box = struct.pack(">I4s", 8 + len(SECRET), b"uuid") + SECRET
    at = data.index(b"mdat") - 4
    (length,) = struct.unpack(">I", data[at : at + 4])
    longer = struct.pack(">I", length + len(SECRET)) + data[at + 4 : at + length] + SECRET
    hidden = data[:at] + longer + data[at + length :] + box + SECRET  # a gap, a box, and behind the end
    found = bare(hidden, "mp4")
    assert SECRET not in found
    assert same(read(hidden)[0], read(found)[0])


def test_user_data_within_the_stream_become_filler() -> None:
    def unit(head: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(head) + len(body)) + head + body

    place = b"\x05" + bytes([16 + len(SECRET)]) + bytes(16) + SECRET + b"\x80"
    others = b"\x01\x02ab\x80"
    for units, sei, filler in ((Units(4, False), b"\x06", 0x0C), (Units(4, True), b"\x4e\x01", 0x4C)):
        slice_ = unit(b"\x65" if not units.h265 else b"\x26\x01", SECRET)
        data = unit(sei, others) + unit(sei, others[:-1] + place) + slice_
        found = dict(messages(data, 0, len(data), units, Effort()))
        start = len(unit(sei, others)) + 4
        assert list(found) == [start]
        assert (len(found[start]), found[start][0]) == (len(sei) + len(others) - 1 + len(place), filler)
        assert list(messages(data[: start + 9], 0, len(data), units, Effort())) == []  # cut off


@pytest.mark.parametrize("name", MUXERS)
def test_garbage_is_refused_or_read_and_never_crashes(name: str) -> None:
    chance = random.Random(5)
    data = told(name)
    refused = 0
    for _ in range(150):
        broken = bytearray(data[: chance.randrange(len(data))] if chance.random() < 0.4 else data)
        for _ in range(chance.randrange(1, 12)):
            if broken:
                broken[chance.randrange(len(broken))] = chance.randrange(256)
                broken[chance.randrange(min(len(broken), 600))] = chance.randrange(256)
        try:
            bare(bytes(broken), name)
        except MediaCorruptError:
            refused += 1
    assert refused > 5
    with pytest.raises(MediaCorruptError):
        bare(b"", name)


def test_a_film_that_is_cut_off_keeps_what_it_has() -> None:
    data = told("matroska")
    found = bare(data[:-2000], "matroska")
    assert SECRET not in found
    assert found[: len(found) - 3000] == bare(data, "matroska")[: len(found) - 3000]


def test_blanks_keep_the_length_and_do_not_overlap() -> None:
    data = bytes(range(200))
    blanks = Blanking(len(data))
    blanks.zero(10, 20)
    blanks.put(5, b"ab")
    blanks.zero(30, 30)
    assert blanks.parts() == [(0, 5), b"ab", (7, 10), Zeros(10), (20, 200)]
    assert size_of(blanks.parts()) == 200
    content = Content(data, blanks.parts())
    content.seek(6)
    assert (next(content)[:6], content.tell()) == (b"b\x07\x08\x09\0\0", 200)
    for start, end in ((19, 21), (199, 202)):
        broken = Blanking(len(data))
        broken.zero(10, 20)
        broken.zero(start, end)
        with pytest.raises(ValueError, match="part"):
            broken.parts()
