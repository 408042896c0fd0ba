"""User data within H.264 and H.265 streams: what a player needs stays, the rest becomes filler of the same length."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.media.clean_film import UserDataFilter

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
