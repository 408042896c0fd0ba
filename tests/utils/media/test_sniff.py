"""Content decides: what each format's first bytes say, and what the refused ones are called."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from utils.errors import UnsupportedMediaError
from utils.media.sniff import FORMATS, sniff
from utils.types import MediaKind


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_pictures_as_pillow_writes_them(name: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 40)).save(out, name)
    found = sniff(out.getvalue())
    assert (found.name, found.kind, found.mime) == (name, MediaKind.IMAGE, f"image/{name}")


@pytest.mark.parametrize("name", ["mp4", "mov", "matroska", "webm", "avi", "flv"])
def test_videos_as_ffmpeg_writes_them(name: str, clips: dict[str, bytes]) -> None:
    assert sniff(clips[name][:4096]) is FORMATS[name]
    assert FORMATS[name].kind is MediaKind.VIDEO


@pytest.mark.parametrize("atom", [b"moov", b"mdat", b"wide", b"free"])
def test_quicktime_without_ftyp(atom: bytes) -> None:
    assert sniff(b"\x00\x00\x00\x08" + atom + b"\x00\x00\x10\x00mdat").name == "mov"


def test_an_atom_smaller_than_its_own_head_is_no_quicktime() -> None:
    with pytest.raises(UnsupportedMediaError):
        sniff(b"\x00\x00\x00\x04moov")


@pytest.mark.parametrize(
    ("head", "looks_like"),
    [
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "a text"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:10\nhttp://example.org/a.ts\n", "a text"),
        (b"  <svg/>", "a text"),
        (b"%PDF-1.7", "PDF document"),
        (b"PK\x03\x04" + bytes(20), "ZIP archive"),
        (b"GIF89a", "GIF picture"),
        (b"just words", "a text"),
        (b"", "an empty file"),
        (b"RIFF\x00\x00\x00\x00WAVE", "WAV file"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(8), "HEIC picture"),
        (b"\x00\x00\x00\x18ftypmif1" + bytes(8), "HEIC picture"),
        (b"\x00\x00\x00\x18ftypavif" + bytes(8), "AVIF picture"),
        (b"\x00\x00\x00\x18ftypM4A " + bytes(8), "audio file"),
        (b"\x00\x00\x00\x01\x67\x64\x00\x1f", "a bare H.264 stream"),
        (b"\x00\x00\x01\x09\xf0\x00\x00\x01", "a bare H.264 stream"),
        (b"\x00\x00\x00\x01\x40\x01\x0c\x01", "a bare H.265 stream"),
        (b"\x1a\x45\xdf\xa3\x84\x42\x82\x81x", "EBML file"),
        (bytes(64), "no format"),
    ],
)
def test_refused_and_named(head: bytes, looks_like: str) -> None:
    with pytest.raises(UnsupportedMediaError) as caught:
        sniff(head)
    assert looks_like in caught.value.detail
    assert caught.value.status == 415


def test_a_bare_stream_comes_with_the_command_that_wraps_it(encode_clip: Callable[..., bytes]) -> None:
    with pytest.raises(UnsupportedMediaError, match=r"-c copy FILE\.mp4") as caught:
        sniff(encode_clip("h264", "libx264"))
    assert caught.value.facts["looks_like"] == "a bare H.264 stream"


def test_doctype_is_found_behind_other_elements_and_padding() -> None:
    def header(doctype: bytes) -> bytes:
        body = b"\x42\x86\x81\x01" + b"\xec\x82\x00\x00" + b"\x42\x82" + bytes([0x80 | len(doctype)]) + doctype
        return b"\x1a\x45\xdf\xa3" + bytes([0x80 | len(body)]) + body

    assert sniff(header(b"webm\x00")).name == "webm"
    assert sniff(header(b"matroska")).name == "matroska"


_MAGICS = [b"", b"\x1a\x45\xdf\xa3", b"RIFF\x00\x00\x00\x00", b"\x00\x00\x00\x18ftyp", b"\xff\xd8", b"<?xml", b"FLV"]


@given(st.sampled_from(_MAGICS), st.binary(max_size=200))
def test_arbitrary_bytes_give_a_format_or_our_error(magic: bytes, rest: bytes) -> None:
    try:
        found = sniff(magic + rest)
    except UnsupportedMediaError as error:
        assert error.detail  # noqa: PT017 - both outcomes are right
    else:
        assert found in FORMATS.values()
