"""Cut-off files are known by their own sizes, in each container, at any place behind the header."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.media.headers import is_truncated

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
