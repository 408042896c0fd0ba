"""HEIC: the picture that a phone shows, whatever it is made of, and bombs and damage with a code."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.utils.media.films import calm
from tests.utils.media.heics import ALPHA, Heic, heic
from tests.utils.media.test_display import CODINGS, TO_BT2020, encoded
from tests.utils.media.test_images import BLUE, GREEN, RED, WHITE, near, quarters
from utils.config import MediaSettings, SandboxSettings
from utils.errors import MediaCorruptError, MediaDimensionsError, MediaError, UnsupportedMediaError
from utils.media import decode_media, heif
from utils.media.display import WHITE as WHITE_LEVEL
from utils.media.images import decode_image
from utils.media.limits import Facts, MediaLimits
from utils.types import MediaKind, Pixels

LIMITS = MediaLimits()
PICTURE = np.asarray(quarters().resize((160, 80)))
CORNERS = (RED, GREEN, WHITE, BLUE)


def corners(pixels: Pixels) -> list[Pixels]:
    return [pixels[y, x] for y, x in ((6, 6), (6, -7), (-7, -7), (-7, 6))]


def shows(data: bytes, colours: tuple[tuple[int, int, int], ...], size: tuple[int, int] = (160, 80)) -> Facts:
    frame, facts = decode_image(data, LIMITS)
    assert (facts.width, facts.height) == size
    assert frame.pixels.shape == (size[1], size[0], 3)
    for corner, colour in zip(corners(frame.pixels), colours, strict=True):
        assert near(corner, colour, 12)
    return facts


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"heim"])
def test_one_picture_of_every_brand(brand: bytes) -> None:
    assert shows(heic(PICTURE, brand=brand), CORNERS).notices == ()


@pytest.mark.parametrize(
    ("properties", "colours"),
    [
        ([(b"irot", b"\1")], (GREEN, WHITE, BLUE, RED)),  # a quarter anticlockwise
        ([(b"irot", b"\2")], (WHITE, BLUE, RED, GREEN)),
        ([(b"irot", b"\3")], (BLUE, RED, GREEN, WHITE)),
        ([(b"imir", b"\0")], (BLUE, WHITE, GREEN, RED)),  # top and bottom change places
        ([(b"imir", b"\1")], (GREEN, RED, BLUE, WHITE)),
        ([(b"irot", b"\1"), (b"imir", b"\1")], (WHITE, GREEN, RED, BLUE)),
    ],
)
def test_turned_and_mirrored_as_its_properties_say_in_their_order(
    properties: list[tuple[bytes, bytes]], colours: tuple[tuple[int, int, int], ...]
) -> None:
    size = (80, 160) if properties[0] in ((b"irot", b"\1"), (b"irot", b"\3")) else (160, 80)
    shows(heic(PICTURE, *properties), colours, size)


def test_a_clean_aperture_is_cut_out() -> None:
    middle = struct.pack(">IIIIiIiI", 100, 1, 40, 1, 0, 1, 0, 1)
    shows(heic(PICTURE, (b"clap", middle)), CORNERS, (100, 40))


def test_tiles_are_put_together_and_what_hangs_over_is_cut_off() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (10, 16, 3), np.uint8).repeat(15, 0).repeat(15, 1)
    file = Heic()
    frame, facts = decode_image(file.save(file.grid(noise, 64)), LIMITS)
    assert (facts.width, facts.height, facts.notices) == (240, 150, ())
    assert np.abs(frame.pixels.astype(int) - noise).mean() < 3


def test_ten_bits() -> None:
    file = Heic()
    shows(file.save(file.picture(PICTURE, form="yuv420p10le")), CORNERS)


@pytest.mark.parametrize("name", ["pq", "hlg", "pq in AVIF", "hlg by its stream alone"])
def test_hdr_looks_as_in_sdr(name: str) -> None:
    photo = np.asarray(skimage.data.astronaut())[:256, 100:356]
    number, _, curve = CODINGS[name.split()[0]]
    codes = curve(WHITE_LEVEL * (photo / 255) ** 2.4 @ TO_BT2020.T)
    is_avif = "AVIF" in name
    with av.open(io.BytesIO(encoded_as("libsvtav1", codes) if is_avif else encoded(codes, name.split()[0]))) as source:
        packet = next(bytes(packet) for packet in source.demux(video=0) if packet.size)
        configuration = bytes(source.streams.video[0].codec_context.extradata)
    properties = [(b"av1C" if is_avif else b"hvcC", configuration), (b"ispe", struct.pack(">III", 0, 256, 256))]
    if "stream" not in name:
        properties.append((b"colr", b"nclx" + struct.pack(">HHHB", 9, number, 9, 0)))
    file = Heic()
    data = file.save(file.add(b"av01" if is_avif else b"hvc1", packet, properties), b"avif" if is_avif else b"heic")
    frame, facts = decode_image(data, LIMITS)
    assert facts.notices == ("hdr",)
    apart = np.abs(frame.pixels.astype(float) - photo)[photo.max(2) < 240]
    assert apart.mean() < 4
    assert apart.mean(0).max() < 6


def encoded_as(coder: str, codes: np.ndarray[Any, Any]) -> bytes:
    """Colours in 0..1 as a clip in 10 bit that says nothing of them."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as sink:
        stream: Any = sink.add_stream(coder, rate=10, options={"crf": "8", "preset": "8"})
        stream.height, stream.width, stream.pix_fmt = *codes.shape[:2], "yuv420p10le"
        frame = av.VideoFrame.from_ndarray(np.rint(65535 * codes.clip(0, 1)).astype(np.uint16), format="rgb48le")
        sink.mux(stream.encode(frame.reformat(format="yuv420p10le", dst_colorspace=9)))
        sink.mux(stream.encode(None))
    calm()
    return out.getvalue()


def test_alpha_is_composited_on_white_and_other_layers_are_passed_over() -> None:
    file = Heic()
    primary = file.picture(PICTURE)
    alpha = np.zeros((80, 160, 3), np.uint8)
    alpha[:, 80:] = 255
    for name in (b"urn:com:apple:photo:2020:aux:hdrgainmap\0", ALPHA):
        file.link(b"auxl", file.picture(alpha, (b"auxC", bytes(4) + name), hidden=True), primary)
    file.link(b"thmb", file.picture(PICTURE[:40, :80].copy()), primary)
    file.add(b"Exif", bytes(40))
    assert shows(file.save(primary), (WHITE, GREEN, WHITE, WHITE)).notices == ()


def test_a_picture_with_a_tone_map_is_the_base_picture() -> None:
    file = Heic()
    base = file.picture(PICTURE)
    mapped = file.add(b"tmap", bytes(20))
    file.link(b"dimg", mapped, base)
    shows(file.save(mapped), CORNERS)


def test_a_collection_shows_its_primary_picture_with_a_notice() -> None:
    file = Heic()
    file.picture(np.zeros((80, 160, 3), np.uint8))
    assert shows(file.save(file.picture(PICTURE)), CORNERS).notices == ("pages",)


def test_a_clip_behind_the_picture_is_told() -> None:
    clip = b"\0\0\0\x18ftypisom" + bytes(12)
    assert shows(heic(PICTURE) + struct.pack(">I", 8 + len(clip)) + b"mpvd" + clip, CORNERS).notices == ("clip_behind",)


def test_a_timed_sequence_is_a_clip(tmp_path: Path, encode_clip) -> None:
    clip = encode_clip("mp4", "libx265", codec_options={"x265-params": "log-level=none"})
    (tmp_path / "burst.heics").write_bytes(clip.replace(b"ftypisom", b"ftyphevc", 1))
    media = decode_media(tmp_path / "burst.heics", MediaSettings(), SandboxSettings())
    assert (media.info.kind, media.info.format, media.info.duration_s) == (MediaKind.VIDEO, "heic", 4.0)
    assert len(media.frames) == 16


def test_the_confined_child_decodes_it(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(heic(PICTURE))
    media = decode_media(tmp_path / "x", MediaSettings(), SandboxSettings())
    assert (media.info.kind, media.info.format, media.info.mime) == (MediaKind.IMAGE, "heic", "image/heic")


def test_bombs_and_strangers_are_refused() -> None:
    whole = heic(PICTURE)
    at = whole.index(b"ispe")
    with pytest.raises(MediaDimensionsError):
        decode_image(whole[: at + 8] + struct.pack(">II", 20_000, 20_000) + whole[at + 16 :], LIMITS)
    file = Heic()
    tile = file.picture(PICTURE, hidden=True)
    for layout, error in ((b"\0\0\xff\xff" + struct.pack(">HH", 40_000, 20_000), MediaDimensionsError),
                          (b"\0\0\xff\xff" + struct.pack(">HH", 160, 80), MediaCorruptError)):  # fmt: skip
        number = file.add(b"grid", layout)
        file.link(b"dimg", number, *[tile] * 4)
        with pytest.raises(error):
            decode_image(file.save(number), LIMITS)
    turning = file.add(b"iden", b"")
    file.link(b"dimg", turning, turning)
    for number in (turning, file.add(b"jpeg", bytes(100))):
        with pytest.raises(UnsupportedMediaError):
            decode_image(file.save(number), LIMITS)
    for broken in (whole.replace(b"pitm", b"free"), whole.replace(b"hvcC", b"free"), whole[:300]):
        with pytest.raises(MediaCorruptError):
            decode_image(broken, LIMITS)


SAMPLE = heic(PICTURE)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_bytes_give_a_picture_or_our_error(edits: list[tuple[float, int]]) -> None:
    damaged = bytearray(SAMPLE)
    for where, value in edits:
        damaged[min(int(where * len(damaged)), len(damaged) - 1)] = value
    try:
        image = heif.open_heic(io.BytesIO(bytes(damaged)), LIMITS)
    except MediaError as error:
        assert error.code in ("media_corrupt", "media_dimensions", "unsupported_media", "decoder_limit")  # noqa: PT017
    else:
        assert image.mode in ("RGB", "RGBA")
