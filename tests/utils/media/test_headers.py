"""What a header declares: sizes, frames, metadata and edits, never an exception of its own."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile.attacks import bombs, seeds
from utils.errors import DecoderLimitError, MediaDimensionsError
from utils.media.headers import MAX_BLOCKS, MAX_FRAMES, Header, check_header, edit_count, read_header
from utils.media.limits import MediaLimits

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
