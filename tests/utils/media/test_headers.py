"""What a header declares: sizes, frames, metadata and edits, never an exception of its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile.attacks import bombs, seeds
from utils.config import MediaSettings
from utils.errors import DecoderLimitError, MediaDimensionsError, MediaTooLongError
from utils.media.headers import MAX_BLOCKS, MAX_FRAMES, Header, check_header, edit_count, is_truncated, read_header
from utils.media.limits import DURATION_GRACE_S, NOTICE_TEXTS, Facts, MediaLimits

PICTURES = seeds.pictures()
CLIPS = {name: seeds.clip(name) for name in ("mp4", "mov")}


@pytest.mark.parametrize("name", [name for name in PICTURES if name.startswith(("jpeg", "png", "apng", "webp"))])
def test_size_and_frames_of_healthy_pictures(name: str) -> None:
    kind = name.partition("-")[0].removeprefix("a")
    header = read_header(io.BytesIO(PICTURES[name]), kind)
    assert (header.width, header.height) == (96, 64)
    assert header.frames == (4 if name in ("apng", "webp-animated") else 1)
    assert header.blocks < 20
    check_header(io.BytesIO(PICTURES[name]), kind, MediaLimits())


def test_metadata_is_counted() -> None:
    jpeg = PICTURES["jpeg"]
    more = jpeg[:2] + b"\xff\xfe\x00\x0aabcdefgh" * 5 + jpeg[2:]
    plain, longer = (read_header(io.BytesIO(data), "jpeg") for data in (jpeg, more))
    assert (longer.blocks - plain.blocks, longer.metadata_bytes - plain.metadata_bytes) == (5, 50)


@pytest.mark.parametrize("name", ["APNG of 100,000 frames", "PNG with a million texts", "JPEG with 100,000 comments"])
def test_counting_ends_above_the_limit(name: str) -> None:
    kind = "jpeg" if name.startswith("JPEG") else "png"
    header = read_header(io.BytesIO(bombs.PICTURES[name]()), kind)
    assert header.frames <= MAX_FRAMES + 1
    assert header.blocks <= MAX_BLOCKS + 1
    with pytest.raises(DecoderLimitError):
        check_header(io.BytesIO(bombs.PICTURES[name]()), kind, MediaLimits())


def test_an_animation_of_no_frames_is_one_picture() -> None:
    data = seeds.pictures()["apng"]
    at = data.index(b"acTL") + 4
    assert read_header(io.BytesIO(data[:at] + bytes(4) + data[at + 4 :]), "png").frames == 1


def test_sizes_outside_the_limits() -> None:
    with pytest.raises(MediaDimensionsError):
        check_header(io.BytesIO(bombs.jpeg_of_439_megapixels()), "jpeg", MediaLimits())
    with pytest.raises(MediaDimensionsError):
        check_header(io.BytesIO(PICTURES["png"]), "png", MediaLimits(min_side_px=65))


@pytest.mark.parametrize("name", CLIPS)
def test_edits(name: str) -> None:
    assert edit_count(io.BytesIO(CLIPS[name])) == 1
    check_header(io.BytesIO(CLIPS[name]), name, MediaLimits())


def test_a_long_edit_list_is_refused() -> None:
    data = io.BytesIO(bombs.VIDEOS["MP4 with 500,000 edits"]())
    assert edit_count(data) == 500_000
    with pytest.raises(DecoderLimitError, match="edit list"):
        check_header(data, "mp4", MediaLimits())


@given(st.sampled_from(("jpeg", "png", "webp", "avi")), st.binary(max_size=300))
def test_any_bytes_are_read(kind: str, data: bytes) -> None:
    starts = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", "webp": b"RIFF\0\0\0\0WEBPVP8X"}
    assert isinstance(read_header(io.BytesIO(starts.get(kind, b"") + data), kind), Header)


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_any_boxes_are_counted(data: bytes, size: int) -> None:
    head = size.to_bytes(4, "big") + b"moov\0\0\0\x40trak\0\0\0\x30edts\0\0\0\x28elst"
    assert edit_count(io.BytesIO(head + data)) >= 0


# The limits: exactly at the border is allowed, one step beyond is not.


def test_defaults_are_those_of_the_settings() -> None:
    assert MediaLimits.of(MediaSettings()) == MediaLimits()


def test_size_at_and_beyond_the_border() -> None:
    limits = MediaLimits(max_megapixels=0.01, min_side_px=50)
    limits.check_size(100, 100)
    limits.check_size(200, 50)
    with pytest.raises(MediaDimensionsError, match=r"101 x 100 pixels are more than the 0.01 megapixels"):
        limits.check_size(101, 100)
    with pytest.raises(MediaDimensionsError, match="at least 50"):
        limits.check_size(49, 100)
    with pytest.raises(MediaDimensionsError):
        limits.check_size(100, 0)


def test_duration_at_and_beyond_the_border() -> None:
    limits = MediaLimits(max_duration_s=10.0)
    limits.check_duration(10.0 + DURATION_GRACE_S)
    with pytest.raises(MediaTooLongError, match=r"10\.6 seconds"):
        limits.check_duration(10.6)


def test_notices_carry_their_sentence() -> None:
    (notice,) = Facts(1, 1, notices=("animated",)).as_notices()
    assert (notice.code, notice.text) == ("animated", NOTICE_TEXTS["animated"])


# Cut-off files are known by their own sizes, in each container, at any place behind the header.

NAMES = ["mp4", "mov", "matroska", "webm", "avi", "flv"]


@pytest.mark.parametrize("name", NAMES)
def test_whole_files_and_cut_ones(name: str, clips: dict[str, bytes]) -> None:
    whole = clips[name]
    assert not is_truncated(io.BytesIO(whole), name)
    for share in (0.5, 0.8, 0.999):
        assert is_truncated(io.BytesIO(whole[: int(len(whole) * share)]), name)


def test_open_sizes_count_as_complete(encode_clip: Callable[..., bytes]) -> None:
    live = encode_clip("webm", "libvpx", count=4, container_options={"live": "1"})
    assert not is_truncated(io.BytesIO(live), "webm")
    assert not is_truncated(io.BytesIO(b"\x00\x00\x00\x00mdat" + bytes(50)), "mov")


@pytest.mark.parametrize("name", NAMES)
def test_sizes_beyond_every_disk(name: str, clips: dict[str, bytes], tmp_path: Path) -> None:
    heads = {"matroska": clips["matroska"][:4], "webm": clips["webm"][:4]}
    huge = heads.get(name, b"\0\0\0\1ftyp") + b"\x01" + b"\xff" * 6 + b"\xfe" + bytes(60)
    path = tmp_path / "huge"
    path.write_bytes(huge)
    with path.open("rb") as file:  # a disk refuses to seek there, where bytes in memory do not
        assert is_truncated(file, name) or name == "avi"


def test_64_bit_boxes() -> None:
    box = b"\x00\x00\x00\x01mdat" + (1000).to_bytes(8, "big")
    assert is_truncated(io.BytesIO(box + bytes(900)), "mp4")
    assert not is_truncated(io.BytesIO(box + bytes(984)), "mp4")


@given(st.sampled_from(NAMES), st.binary(max_size=100))
def test_any_bytes_give_an_answer(name: str, data: bytes) -> None:
    assert is_truncated(io.BytesIO(data), name) in (True, False)
