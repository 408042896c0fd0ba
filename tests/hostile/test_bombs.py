"""Decompression bombs are refused at the header, and what is slow to read ends within the limits."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.hostile.attacks.bombs import (
    PICTURES,
    SLOW_PICTURES,
    SOUNDS,
    VIDEOS,
    animated_webp,
    jpeg_of_439_megapixels,
    tiny_packets,
)
from utils.config import MediaSettings, SandboxSettings
from utils.errors import MediaCorruptError, MediaError
from utils.media import decode_media, video
from utils.media.images import decode_image
from utils.media.limits import MediaLimits
from utils.media.packets import MAX_BROKEN, opened
from utils.media.sniff import sniff
from utils.types import MediaKind

LONG = {
    "FLV of a million packets of two bytes",
    "PNG in a million empty pieces",
    "PNG with a million texts behind the pixels",
}
LIMITS = SandboxSettings(cpu_s=2, wall_s=30)


def sniff_and_decode(data: bytes) -> None:
    sniff(data)
    decode_image(data, MediaLimits())


def test_the_bomb_of_the_issue_has_304_bytes() -> None:
    assert len(jpeg_of_439_megapixels()) == 304


@pytest.mark.parametrize("name", PICTURES)
def test_a_bomb_is_refused_at_its_header(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = PICTURES[name]()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as in the child: our own check must be enough
    started = time.thread_time()
    with pytest.raises(MediaError) as refused:
        sniff_and_decode(data)
    assert refused.value.code in ("media_dimensions", "decoder_limit", "unsupported_media", "media_corrupt")
    assert time.thread_time() - started < 1


@pytest.mark.parametrize("name", ["PNG of 50,000 x 50,000", "JPEG of 304 bytes declaring 439 Mpx"])
def test_the_child_refuses_a_bomb_with_its_code(name: str, tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(PICTURES[name]())
    with pytest.raises(MediaError) as refused:
        decode_media(tmp_path / "bomb", MediaSettings(), SandboxSettings())
    assert refused.value.code == "media_dimensions"


def test_a_short_animation_is_a_picture_with_a_notice() -> None:
    frame, facts = decode_image(animated_webp(900), MediaLimits())
    assert facts.notices == ("animated",)
    assert frame.pixels.shape == (40, 40, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds the decoder to its memory")
@pytest.mark.parametrize("name", [name for name in (*SLOW_PICTURES, *VIDEOS, *SOUNDS) if name not in LONG])
def test_slow_files_end_with_a_report_or_a_code(name: str, tmp_path: Path) -> None:
    data = (SLOW_PICTURES | VIDEOS | SOUNDS)[name]()
    (tmp_path / "slow").write_bytes(data)
    try:
        media = decode_media(tmp_path / "slow", MediaSettings(frames=4), LIMITS)
    except MediaError as error:
        codes = ("decoder_limit", "media_corrupt", "media_too_long", "media_dimensions", "unsupported_media")
        assert error.code in codes  # noqa: PT017
    else:
        assert media.info.kind is sniff(data).kind or sniff(data).moves
        assert len(media.frames) <= 4


def test_a_clip_of_packets_that_cannot_be_decoded_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    @contextlib.contextmanager
    def counting(*given: Any) -> Iterator[tuple[Any, Any]]:
        with opened(*given) as (source, stream):

            class Packets:
                def demux(self, stream: Any) -> Iterator[Any]:
                    for packet in source.demux(stream):
                        tried.append(packet.pts)
                        yield packet

            yield Packets(), stream

    monkeypatch.setattr(video, "opened", counting)  # of the decoding, not of the scan before it
    with pytest.raises(MediaCorruptError):
        video.decode_video(io.BytesIO(tiny_packets(5 * MAX_BROKEN)), 4, MediaLimits())
    assert MAX_BROKEN < len(tried) < 2 * MAX_BROKEN


def test_a_frame_that_declares_too_much_is_left_out(tmp_path: Path) -> None:
    """The stream begins small; the bomb in its middle is damage, and the frames around it are shown."""
    (tmp_path / "x").write_bytes(VIDEOS["AVI whose frames change their size"]())
    media = decode_media(tmp_path / "x", MediaSettings(frames=12), SandboxSettings())
    assert media.info.kind is MediaKind.VIDEO
    assert "truncated" in {notice.code for notice in media.notices}
    assert {frame.pixels.shape for frame in media.frames} == {(64, 96, 3), (480, 640, 3), (96, 64, 3)}


def test_a_seekable_stream_is_enough() -> None:
    """The header is judged from an open file, as in the child."""
    with pytest.raises(MediaError):
        decode_image(io.BytesIO(PICTURES["PNG of 50,000 x 50,000"]()), MediaLimits())
