"""Clean copies of films: every frame and every sample as before, no place, date, name, other track or hidden byte."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile.attacks import seeds
from tests.utils.media.conftest import encode
from tests.utils.media.films import KINDS, SECRET, decoded, film, remuxed, tags, told, with_text_track
from utils.config import MediaSettings, SandboxSettings
from utils.errors import DecoderLimitError, MediaCorruptError, MediaError
from utils.media import copy_media, start_fork_server
from utils.media.clean_film import UserDataFilter, copy_film
from utils.media.limits import MediaLimits
from utils.media.sniff import FORMATS, sniff

Copy = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A function that makes a copy in the confined child."""
    decoders = start_fork_server()
    source, target = (tmp_path_factory.mktemp("films") / name for name in ("source", "target"))

    def make(data: bytes) -> bytes:
        source.write_bytes(data)
        with target.open("wb") as file:
            copy_media(source, file, MediaSettings(), SandboxSettings(), decoders)
        return target.read_bytes()

    yield make
    if decoders is not None:
        decoders.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_and_sample_stays_and_the_rest_goes(kind: str, clean: Copy) -> None:
    data = told(kind)
    found = clean(data)
    assert SECRET in data
    for gone in (SECRET, b"2024-02-29", b"x264 - core", b"x265 (build"):
        assert gone not in found
    assert decoded(found) == decoded(data)
    assert sniff(found[:4096]) == sniff(data[:4096])
    assert not {text for text in tags(found) if "Lavf6" in text or "2024" in text}


@pytest.mark.parametrize("name", seeds.RECORDINGS)
def test_every_sample_of_a_recording_stays_and_its_tags_go(name: str, clean: Copy) -> None:
    data = seeds.recording(name, tags=dict.fromkeys(("title", "comment", "artist"), SECRET.decode()))
    copy = clean(data)
    assert SECRET not in copy
    assert SECRET.decode().encode("utf-16-le") not in copy
    assert SECRET.decode() not in tags(copy)
    assert sniff(copy) is sniff(data)
    assert decoded(copy) == decoded(data)


@pytest.mark.parametrize("muxer", ["mp4", "mov", "matroska"])
def test_a_track_that_is_neither_picture_nor_sound_goes_with_its_data(muxer: str, clean: Copy) -> None:
    data = with_text_track(muxer)
    found = clean(data)
    assert data.count(SECRET) == 2
    assert SECRET not in found
    with av.open(io.BytesIO(found)) as source:
        assert [stream.type for stream in source.streams] == ["video"]
    assert decoded(found) == decoded(data)


def test_what_hides_between_the_samples_and_in_foreign_boxes_goes(clean: Copy) -> None:
    data = told("MP4 H.264")
    box = struct.pack(">I4s", 8 + len(SECRET), b"uuid") + SECRET
    at = data.index(b"mdat") - 4
    (length,) = struct.unpack(">I", data[at : at + 4])
    longer = struct.pack(">I", length + len(SECRET)) + data[at + 4 : at + length] + SECRET
    hidden = data[:at] + longer + data[at + length :] + box  # a gap, and a box behind the end
    found = clean(hidden)
    assert SECRET not in found
    assert decoded(found) == decoded(data)


GROUPS = {"x264-params": "open-gop=1:keyint=10:bframes=3:scenecut=0"}
SHAPES = {
    "frames in another order": lambda: film("mp4", "libx264", bf="3"),
    "frames in another order, AVI": lambda: film("avi", "libx264", bf="3"),
    "interlaced": lambda: film("mp4", "libx264", flags="+ilme+ildct"),
    "a start that only a recovery point announces": lambda: remuxed(
        film("matroska", "libx264", **GROUPS), "matroska", first_key=1
    ),
    "an edit list that hides the beginning": lambda: remuxed(
        film("mp4", "libx264", bf="3", g="20"), "mp4", earlier_s=Fraction(13, 10)
    ),
    "H.265 with frames in another order": lambda: film("matroska", "libx265"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_order_beginning_and_edits_stay(shape: str, clean: Copy) -> None:
    data = SHAPES[shape]()
    assert decoded(clean(data)) == decoded(data) != []


def test_rotation_stays(clean: Copy) -> None:
    turned = encode("mp4", "libx264", count=1, rotation=90)
    with av.open(io.BytesIO(clean(turned))) as source:
        assert {frame.rotation for frame in source.decode(video=0)} == {90}


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A film some bytes of which are others, more often near its ends; sometimes it is cut off."""
    broken = bytearray(data[: chance.randrange(len(data))] if chance.random() < 0.3 else data)
    for _ in range(chance.randrange(1, 12)):
        if broken:
            edge = min(len(broken), 1500)
            for place in (len(broken), edge, edge):
                broken[chance.randrange(place)] = chance.randrange(256)
            broken[-chance.randrange(1, edge + 1)] = chance.randrange(256)
    return bytes(broken)


@pytest.mark.parametrize(
    "kind", ["MP4 H.264", "MP4 H.265", "MOV MPEG-4", "Matroska H.264", "AVI Motion JPEG", "FLV H.264"]
)
def test_no_damage_turns_metadata_into_pictures(kind: str) -> None:
    data, chance, refused = told(kind), random.Random(5), 0
    for _ in range(60):
        broken, out = damaged(data, chance), io.BytesIO()
        try:
            copy_film(io.BytesIO(broken), sniff(broken[:4096]), MediaLimits(), out)
        except (MediaError, MemoryError):
            refused += 1
        else:
            assert SECRET[3:12] not in out.getvalue()
    assert refused > 5


def test_an_avi_whose_picture_swallows_its_tags_is_refused() -> None:
    data = told("AVI MPEG-4")
    at = data.index(b"00dc", data.index(b"movi"))
    (size,) = struct.unpack("<I", data[at + 4 : at + 8])
    tags_ = b"LIST" + struct.pack("<I", 4 + len(SECRET)) + b"INFO" + SECRET
    broken = data[: at + 4] + struct.pack("<I", size + len(tags_)) + data[at + 8 : at + 8 + size] + tags_
    with pytest.raises(MediaCorruptError, match="damaged"):
        copy_film(io.BytesIO(broken + data[at + 8 + size :]), FORMATS["avi"], MediaLimits(), io.BytesIO())


@pytest.mark.parametrize("kind", ["MP4 in fragments", "Matroska H.264", "AVI MPEG-4", "FLV H.264"])
def test_a_film_that_is_cut_off_has_no_copy(kind: str, clean: Copy) -> None:
    with pytest.raises(MediaCorruptError):
        clean(told(kind)[:-2000])


def test_a_film_that_no_mp4_can_hold_has_no_copy(clean: Copy) -> None:
    with pytest.raises(MediaCorruptError, match="ValueError"):
        clean(film("mov", "cinepak").replace(b"ftypqt  ", b"ftypisom", 1))


def test_a_child_without_time_is_a_limit(tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(told("MP4 H.264"))
    with (tmp_path / "copy").open("wb") as file, pytest.raises(DecoderLimitError):
        copy_media(tmp_path / "film", file, MediaSettings(), SandboxSettings(wall_s=0.01))


# User data within H.264 and H.265 streams: what a player needs stays, the rest becomes filler of the same length.

HOME = b"\x05\x14" + bytes(range(1, 17)) + b"home"
RECOVERY = b"\x06\x01\xc0"
AVC, HEVC = b"\x01\x64\x00\x0a\xff", b"\x01" + bytes(20) + b"\x03\x00"


def filters(*, start_codes: bool) -> list[tuple[UserDataFilter, bytes, bytes]]:
    """For each codec a filter, and the heads of a unit of supplemental information and of a picture."""
    avc, hevc = (b"", b"") if start_codes else (AVC, HEVC)
    return [
        (UserDataFilter(avc, is_hevc=False), b"\x06", b"\x65"),
        (UserDataFilter(hevc, is_hevc=True), b"\x4e\x01", b"\x26\x01"),
    ]


@pytest.mark.parametrize("start_codes", [False, True])
@pytest.mark.parametrize("others", [b"", RECOVERY, b"\x90\x04\x00\x00\x03\x00\x00"])
def test_places_go_and_what_a_player_needs_stays(start_codes: bool, others: bytes) -> None:
    for units, head, slice_ in filters(start_codes=start_codes):
        parts = [head + others + HOME + b"\x80", slice_ + b"home" + bytes(range(1, 90)), head + HOME + others + b"\x80"]
        data = b"".join((b"\0\0\0\1" if start_codes else struct.pack(">I", len(part))) + part for part in parts)
        found = units.packet(data)
        assert len(found) == len(data)
        assert found.count(b"home") == 1
        assert parts[1] in found
        assert found.count(others) >= 2
        assert units.packet(found) == found


def test_what_is_needed_only_is_left_as_it_is() -> None:
    for units, head, _ in filters(start_codes=False):
        part = head + RECOVERY + b"\x80"
        data = struct.pack(">I", len(part)) + part
        assert units.packet(data) == data


def test_a_unit_longer_than_its_packet_is_refused() -> None:
    for units, head, _ in filters(start_codes=False):
        with pytest.raises(ValueError, match="longer"):
            units.packet(struct.pack(">I", 50) + head + HOME)


def test_configuration_records_of_h265_lose_their_arrays_of_user_data() -> None:
    place, others = b"\x4e\x01" + HOME + b"\x80", b"\x40\x01abc"
    arrays = [bytes([unit[0] >> 1]) + struct.pack(">HH", 1, len(unit)) + unit for unit in (others, place, others)]
    units = UserDataFilter(HEVC, is_hevc=True)
    record = HEVC[:22] + b"\3" + b"".join(arrays)
    assert units.configuration(record) == HEVC[:22] + b"\2" + arrays[0] + arrays[2]
    with pytest.raises(ValueError, match="cut off"):
        units.configuration(record[:-3])
    assert UserDataFilter(AVC, is_hevc=False).configuration(AVC) == AVC


@given(st.binary(max_size=700), st.booleans(), st.booleans())
def test_any_bytes_keep_their_length(content: bytes, is_hevc: bool, start_codes: bool) -> None:
    configuration = b"" if start_codes else HEVC if is_hevc else AVC
    head = b"\x4e\x01" if is_hevc else b"\x06"
    data = (b"\0\0\0\1" if start_codes else struct.pack(">I", len(head + content))) + head + content
    found = UserDataFilter(configuration, is_hevc=is_hevc).packet(data)
    assert len(found) == len(data)
