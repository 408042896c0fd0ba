"""Content decides: what each format's first bytes say, and what the refused ones are called."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.hostile.attacks import seeds
from tests.utils.media.conftest import CLIPS
from utils.errors import BadRequestError, EmptyFileError, UnsupportedMediaError, error_of
from utils.media.sniff import FORMATS, SUFFIXES, sniff, titles
from utils.types import MediaKind


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif", "gif", "bmp", "tiff"])
def test_pictures_as_pillow_writes_them(name: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 40)).save(out, name)
    found = sniff(out.getvalue())
    assert (found.name, found.kind, found.mime) == (name, MediaKind.IMAGE, f"image/{name}")


@pytest.mark.parametrize("name", CLIPS)
def test_videos_as_ffmpeg_writes_them(name: str, clips: dict[str, bytes]) -> None:
    assert sniff(clips[name][:4096]) is FORMATS[name]
    assert FORMATS[name].kind is MediaKind.VIDEO


@pytest.mark.parametrize(
    ("muxer", "encoder", "options", "name"),
    [
        ("mpeg", "mpeg2video", {}, "mpeg"),
        ("mpeg1video", "mpeg1video", {}, "mpegvideo"),
        ("mpegts", "libx264", {"mpegts_m2ts_mode": "1"}, "mpegts"),
    ],
)
def test_streams_of_discs_and_cameras(
    muxer: str, encoder: str, options: dict[str, str], name: str, encode_clip: Callable[..., bytes]
) -> None:
    data = encode_clip(muxer, encoder, rate=25, container_options=options)
    assert sniff(data[:4096]) is FORMATS[name]


@pytest.mark.parametrize("options", [{}, {"mpegts_m2ts_mode": "1"}])
def test_a_transport_stream_may_begin_within_a_packet(
    options: dict[str, str], encode_clip: Callable[..., bytes]
) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    data = encode_clip("mpegts", "libx264", picture=picture, container_options=options)
    assert len(data) > 5000
    for start in (1, 100, 187):
        assert sniff(data[start : start + 4096]) is FORMATS["mpegts"]


def test_words_that_begin_like_a_picture_are_none() -> None:
    with pytest.raises(UnsupportedMediaError):
        sniff(b"BMW and other cars")


def test_a_picture_of_two_brands_is_told_by_the_compatible_one() -> None:
    assert sniff(b"\x00\x00\x00\x1cftypmif1" + bytes(4) + b"mif1avifmiaf").name == "avif"
    for head in (b"\x18ftypmif1" + bytes(4) + b"mif1heicavif", b"\x10ftypheix" + bytes(4), b"\x10ftyphevc" + bytes(4)):
        assert sniff(bytes(3) + head).name == "heic"


def test_one_table_of_names_for_page_folders_and_errors() -> None:
    assert SUFFIXES[MediaKind.IMAGE].isdisjoint(SUFFIXES[MediaKind.VIDEO])
    assert frozenset().union(*SUFFIXES.values()) == {f".{e}" for each in FORMATS.values() for e in each.endings}
    for each in FORMATS.values():
        assert each.title in titles(each.kind)
        assert f" {each.title}" in UnsupportedMediaError.remedy


@pytest.mark.parametrize("name", seeds.RECORDINGS)
def test_recordings_as_ffmpeg_writes_them(name: str) -> None:
    found = sniff(seeds.recording(name)[:4096])
    containers = {"webm-alone": "webm", "mp4-alone": "mp4", "3gp-alone": "mp4"}  # their tracks are not looked at here
    assert found.name == containers.get(name, name.partition("-")[0])
    assert found.kind is (MediaKind.VIDEO if name in containers else MediaKind.AUDIO)


def test_sound_without_a_container_begins_with_a_frame() -> None:
    mp3 = seeds.recording("mp3")
    size = sum(byte << shift for byte, shift in zip(mp3[6:10], (21, 14, 7, 0), strict=True))
    assert sniff(mp3[10 + size :]).name == "mp3"
    with pytest.raises(UnsupportedMediaError, match="an AIFF recording"):
        sniff(b"FORM\0\0\0\x20AIFFCOMM")
    assert sniff(b"#!AMR-WB\n" + bytes(20)).name == "amr"


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
        (b"just words", "a text"),
        (b"RIFF\x00\x00\x00\x00AIFF", "RIFF file"),
        (b"\xff\xfe" + "words".encode("utf-16-le"), "no format"),
        (b"\xff\xfb\xff\xff" + bytes(20), "no format"),
        (b"\x00\x00\x00\x18ftypM4P " + bytes(8), "protected audio file"),
        (b"\x00\x00\x00\x01\x67\x64\x00\x1f", "a bare H.264 stream"),
        (b"\x00\x00\x01\x09\xf0\x00\x00\x01", "a bare H.264 stream"),
        (b"\x00\x00\x00\x01\x40\x01\x0c\x01", "a bare H.265 stream"),
        (b"\x1a\x45\xdf\xa3\x84\x42\x82\x81x", "EBML file"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51" + bytes(20), "JPEG 2000"),
        (b"8BPS\0\1" + bytes(20), "Photoshop"),
        (bytes(64), "no format"),
    ],
)
def test_refused_and_named(head: bytes, looks_like: str) -> None:
    with pytest.raises(UnsupportedMediaError) as caught:
        sniff(head)
    assert looks_like in caught.value.detail
    assert caught.value.status == 415


def test_an_empty_file_is_told_as_the_server_tells_it() -> None:
    with pytest.raises(EmptyFileError, match="The file has 0 bytes") as caught:
        sniff(b"")
    assert (caught.value.code, caught.value.status) == ("bad_request", 400)
    assert isinstance(error_of("bad_request", "x"), BadRequestError)
    assert not isinstance(error_of("bad_request", "x"), EmptyFileError)


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
    except (EmptyFileError, UnsupportedMediaError) as error:
        assert error.detail  # noqa: PT017 - both outcomes are right
    else:
        assert found in FORMATS.values()
