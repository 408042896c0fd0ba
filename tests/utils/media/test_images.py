"""Pictures: every mode to the right colours, upright, within limits, damaged ones as far as they go."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from utils.errors import (
    DecoderLimitError,
    MediaCorruptError,
    MediaDimensionsError,
    MediaTooLongError,
    UnsupportedMediaError,
)
from utils.media import images
from utils.media.images import EXIF_ORIENTATION, decode_image, decode_moving
from utils.media.limits import Facts, MediaLimits
from utils.types import Pixels

LIMITS = MediaLimits()
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels_of(data: bytes) -> Pixels:
    return decode_image(data, LIMITS)[0].pixels


def textured(side: int = 256) -> Image.Image:
    noise = np.random.default_rng(7).integers(0, 256, (side, side, 3), np.uint8)
    return Image.fromarray(noise)


def near(pixel: Any, colour: tuple[int, int, int], tolerance: int = 3) -> bool:
    return bool(np.abs(np.asarray(pixel, int) - colour).max() <= tolerance)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_plain_pictures_from_bytes_path_and_file(kind: str, tmp_path: Path) -> None:
    data = saved(Image.new("RGB", (64, 48), (200, 100, 50)), kind)
    (tmp_path / "x.bin").write_bytes(data)
    for source in (data, tmp_path / "x.bin", io.BytesIO(data)):
        frame, facts = decode_image(source, LIMITS)
        assert facts == Facts(64, 48)
        assert (frame.index, frame.time_s, frame.pixels.shape, frame.pixels.dtype) == (0, 0.0, (48, 64, 3), np.uint8)
        assert near(frame.pixels[20, 30], (200, 100, 50))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_composited_on_white(kind: str) -> None:
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 20, 40))
    image.paste((0, 0, 0, 128), (0, 0, 10, 40))
    pixels = pixels_of(saved(image, kind, lossless=True))
    assert near(pixels[20, 30], WHITE)
    assert near(pixels[20, 15], RED)
    assert near(pixels[20, 5], (127, 127, 127))


def test_grey_with_alpha() -> None:
    pixels = pixels_of(saved(Image.new("LA", (40, 40), (0, 51)), "PNG"))
    assert near(pixels[0, 0], (204, 204, 204))


def test_grey_one_bit_and_palette() -> None:
    assert near(pixels_of(saved(Image.new("L", (40, 40), 77), "JPEG"))[5, 5], (77, 77, 77))
    assert near(pixels_of(saved(Image.new("1", (40, 40), 1), "PNG"))[5, 5], WHITE)
    palette = Image.new("P", (40, 40), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert near(pixels_of(saved(palette, "PNG"))[5, 5], (10, 200, 30), 0)
    assert near(pixels_of(saved(palette, "PNG", transparency=1))[5, 5], WHITE, 0)


def test_rgb_with_a_transparent_colour() -> None:
    image = Image.new("RGB", (40, 40), RED)
    image.paste(BLUE, (0, 0, 20, 40))
    pixels = pixels_of(saved(image, "PNG", transparency=RED))
    assert near(pixels[5, 5], BLUE, 0)
    assert near(pixels[5, 30], WHITE, 0)


def test_cmyk_with_and_without_the_adobe_marker() -> None:
    image = Image.new("CMYK", (64, 64), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    adobe = saved(image, "JPEG", quality=100)
    at = adobe.index(b"\xff\xee")
    assert adobe[at + 4 : at + 9] == b"Adobe"
    assert near(pixels_of(adobe)[30, 30], RED)
    # Without the marker the stored numbers are ink, not its inverse: full cyan becomes none, none becomes full.
    (length,) = struct.unpack(">H", adobe[at + 2 : at + 4])
    plain = adobe[:at] + adobe[at + 2 + length :]
    assert near(pixels_of(plain)[30, 30], (0, 0, 0))
    ink_free = saved(Image.new("CMYK", (64, 64), (255, 0, 0, 255)), "JPEG", quality=100)
    ink_free = ink_free[:at] + ink_free[at + 2 + length :]
    assert near(pixels_of(ink_free)[30, 30], (255, 0, 0))


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 128, 129, 257 * 100, 257 * 100 + 200, 65535]] * 40, np.uint16).repeat(8, axis=1)
    pixels = pixels_of(saved(Image.fromarray(values), "PNG"))
    assert pixels[0, ::8, 0].tolist() == [0, 0, 1, 100, 101, 255]
    assert (pixels[..., 0] == pixels[..., 2]).all()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_colour() -> None:
    row = b"\x00" + struct.pack(">HHH", 65535, 32896, 0) * 40
    assert near(pixels_of(png(40, 40, 16, 2, row * 40))[3, 3], (255, 128, 0), 1)


def quarters() -> Image.Image:
    """80 x 40: red and green above blue and white, so that each turn and flip gives another picture."""
    image = Image.new("RGB", (80, 40), RED)
    image.paste(GREEN, (40, 0, 80, 20))
    image.paste(BLUE, (0, 20, 40, 40))
    image.paste(WHITE, (40, 20, 80, 40))
    return image


# Corners of the upright picture, clockwise from the upper left, by what the tag says of row 0 and column 0 (Exif 2.32).
ORIENTATIONS = {
    1: (RED, GREEN, WHITE, BLUE),
    2: (GREEN, RED, BLUE, WHITE),
    3: (WHITE, BLUE, RED, GREEN),
    4: (BLUE, WHITE, GREEN, RED),
    5: (RED, BLUE, WHITE, GREEN),
    6: (BLUE, RED, GREEN, WHITE),
    7: (WHITE, GREEN, RED, BLUE),
    8: (GREEN, WHITE, BLUE, RED),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("value", ORIENTATIONS)
def test_exif_orientation(kind: str, value: int) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = value
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True}
    frame, facts = decode_image(saved(quarters(), kind, exif=exif, **options), LIMITS)
    assert (facts.width, facts.height) == ((80, 40) if value < 5 else (40, 80))
    corners = [frame.pixels[y, x] for y, x in ((2, 2), (2, -3), (-3, -3), (-3, 2))]
    for corner, colour in zip(corners, ORIENTATIONS[value], strict=True):
        assert near(corner, colour, 12)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_unreadable_exif_is_noticed(kind: str) -> None:
    data = saved(quarters(), kind, exif=b"Exif\x00\x00XX\x00*\x00\x00\x00\x08")
    frame, facts = decode_image(data, LIMITS)
    assert facts.notices == ("exif_unreadable",)
    assert frame.pixels.shape == (40, 80, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    first, second = Image.new("RGB", (40, 40), RED), Image.new("RGB", (40, 40), BLUE)
    frame, facts = decode_image(
        saved(first, kind, save_all=True, append_images=[second], duration=100, lossless=True), LIMITS
    )
    assert facts.notices == ("animated",)
    assert near(frame.pixels[5, 5], RED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_pictures_give_what_is_there(kind: str) -> None:
    whole = saved(textured(), kind, **({"quality": 95} if kind == "JPEG" else {}))
    frame, facts = decode_image(whole[: len(whole) // 2], LIMITS)
    assert facts.notices == ("truncated",)
    expected = pixels_of(whole)
    assert (frame.pixels[:64] == expected[:64]).all()
    assert not (frame.pixels[-32:] == expected[-32:]).all()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_header_alone_is_corrupt(kind: str) -> None:
    data = saved(textured(), kind)
    mark = {"JPEG": b"\xff\xda", "PNG": b"IDAT", "WEBP": b"VP8 "}[kind]  # where the pixels begin
    end = data.index(mark) + 14
    with pytest.raises(MediaCorruptError):
        decode_image(data[:end], LIMITS)
    with pytest.raises(MediaCorruptError):
        decode_image(data[:14], LIMITS)


def test_other_formats_are_refused_even_where_pillow_knows_them() -> None:
    with pytest.raises(MediaCorruptError):
        decode_image(saved(Image.new("RGB", (64, 64)), "JPEG2000"), LIMITS)


def test_too_small_a_picture() -> None:
    with pytest.raises(MediaDimensionsError, match="at least 32"):
        decode_image(saved(Image.new("RGB", (31, 400)), "PNG"), LIMITS)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("AVIF", {}), ("GIF", {}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"})],
)
def test_further_formats(kind: str, options: dict[str, Any]) -> None:
    frame, facts = decode_image(saved(Image.new("RGB", (64, 48), (200, 100, 50)), kind, **options), LIMITS)
    assert facts == Facts(64, 48)
    assert near(frame.pixels[20, 30], (200, 100, 50), 8)


@pytest.mark.parametrize("value", ORIENTATIONS)
def test_turned_tiff_and_avif(value: int) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = value
    for kind, options in (("TIFF", {}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"})):
        frame, facts = decode_image(saved(quarters(), kind, exif=exif, **options), LIMITS)
        assert (facts.width, facts.height) == ((80, 40) if value < 5 else (40, 80))
        corners = [frame.pixels[y, x] for y, x in ((2, 2), (2, -3), (-3, -3), (-3, 2))]
        for corner, colour in zip(corners, ORIENTATIONS[value], strict=True):
            assert near(corner, colour, 12), kind


def test_of_several_pages_the_first_with_a_notice() -> None:
    pages = [Image.new("RGB", (64, 48), colour) for colour in (RED, BLUE)]
    frame, facts = decode_image(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]), LIMITS)
    assert facts.notices == ("pages",)
    assert near(frame.pixels[5, 5], RED)
    smaller = pages[1].resize((32, 24))
    smaller.encoderinfo = {"tiffinfo": {254: 1}}  # a smaller copy of the first page
    assert decode_image(saved(pages[0], "TIFF", save_all=True, append_images=[smaller]), LIMITS)[1].notices == ()


def test_a_raw_picture_is_not_judged_by_its_preview() -> None:
    out = io.BytesIO()
    quarters().save(out, "TIFF", tiffinfo={254: 1})
    with pytest.raises(UnsupportedMediaError, match="raw picture"):
        decode_image(out.getvalue(), LIMITS)


def test_a_jpeg_beyond_the_limit_is_decoded_at_half_its_size() -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    data = saved(quarters().resize((301, 201)), "JPEG", quality=100, exif=exif)
    frame, facts = decode_image(data, MediaLimits(max_megapixels=0.05))
    assert frame.pixels.shape == (151, 101, 3)
    assert facts == Facts(201, 301, notices=("reduced",))
    for corner, colour in zip((frame.pixels[2, 2], frame.pixels[-3, -3]), (BLUE, GREEN), strict=True):
        assert near(corner, colour, 12)
    with pytest.raises(MediaDimensionsError):
        decode_image(data, MediaLimits(max_megapixels=0.014))
    with pytest.raises(MediaDimensionsError):
        decode_image(saved(quarters().resize((301, 201)), "PNG"), MediaLimits(max_megapixels=0.05))


def test_damage_that_the_decoder_glosses_over_is_told() -> None:
    blurred = textured().resize((700, 500), Image.Resampling.BICUBIC)
    for options in ({}, {"progressive": True}, {"subsampling": 0}):
        whole = saved(blurred, "JPEG", quality=90, **options)
        middle = len(whole) // 2
        assert decode_image(whole, LIMITS)[1].notices == ()
        for damaged in (whole[:middle] + whole[middle + 3000 :], whole[:middle] + b"\xff\xd9"):
            assert decode_image(damaged, LIMITS)[1].notices == ("truncated",)
    for mode in ("L", "CMYK"):
        assert decode_image(saved(blurred.convert(mode), "JPEG"), LIMITS)[1].notices == ()


def test_a_clip_behind_the_picture_is_told() -> None:
    photo = saved(textured(), "JPEG")
    clip = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42"
    assert decode_image(photo + clip, LIMITS)[1].notices == ("clip_behind",)
    assert decode_image(photo + bytes((1 << 20) - len(photo) - 6) + clip, LIMITS)[1].notices == ("clip_behind",)
    assert decode_image(photo + b"ftypmp42", LIMITS)[1].notices == ()


# Moving pictures: the frames, times and colours that a browser shows, and one picture where there is only one.

KINDS = {"GIF": "gif", "PNG": "apng", "WEBP": "webp", "AVIF": "av1"}


def level(index: int) -> int:
    return 40 + 20 * index


def moving(kind: str, count: int = 9, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    out = io.BytesIO()
    first, *more = (Image.new("RGB", size, (level(n), 10, 200 - level(n))) for n in range(count))
    first.save(out, kind, save_all=True, append_images=more, **{"duration": 100, "lossless": True, **options})
    return out.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_all_frames_with_their_times(kind: str) -> None:
    frames, facts = decode_moving(io.BytesIO(moving(kind)), 16, LIMITS)
    assert [round(frame.time_s, 3) for frame in frames] == [round(n / 10, 3) for n in range(9)]
    for frame in frames:
        assert frame.pixels.shape == (48, 64, 3)
        assert np.abs(frame.pixels[20, 30].astype(int) - (level(frame.index), 10, 200 - level(frame.index))).max() <= 8
    assert (facts.width, facts.height, facts.duration_s, facts.fps) == (64, 48, 0.9, 10)
    assert (facts.codec, facts.notices) == (KINDS[kind], ())


def test_a_few_are_spread_over_the_clip_and_a_long_one_gives_more() -> None:
    data = moving("GIF", 9, duration=1000)
    few = decode_moving(io.BytesIO(data), 3, LIMITS)[0]
    assert [frame.time_s for frame in few] == [1, 4, 7]
    assert len(decode_moving(io.BytesIO(data), 3, LIMITS, most=6)[0]) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_is_a_picture(kind: str) -> None:
    (frame,), facts = decode_moving(io.BytesIO(moving(kind, 1)), 16, LIMITS)
    assert (facts.duration_s, facts.fps, facts.codec) == (None, None, None)
    assert frame.pixels.shape == (48, 64, 3)


def test_what_is_transparent_is_white_and_what_stays_stays() -> None:
    out = io.BytesIO()
    whole, part = Image.new("RGBA", (64, 48), (250, 0, 0, 255)), Image.new("RGBA", (64, 48))
    part.paste((0, 0, 250, 255), (0, 0, 32, 48))
    whole.save(out, "PNG", save_all=True, append_images=[part, Image.new("RGBA", (64, 48))], duration=100, blend=1)
    second = decode_moving(out, 16, LIMITS)[0][1].pixels
    assert second[5, 5].tolist() == [0, 0, 250]
    assert second[5, 60].tolist() == [250, 0, 0]
    clear, half = io.BytesIO(), Image.new("RGBA", (64, 48), (0, 0, 0, 51))
    half.save(clear, "WEBP", save_all=True, append_images=[part], duration=100, lossless=True)
    assert decode_moving(clear, 16, LIMITS)[0][0].pixels[5, 60].tolist() == [204, 204, 204]


def test_hasty_frames_last_as_long_as_in_a_browser() -> None:
    assert decode_moving(io.BytesIO(moving("GIF", duration=0)), 16, LIMITS)[1].duration_s == pytest.approx(0.9)


def test_large_frames_are_scaled_down() -> None:
    frames, facts = decode_moving(io.BytesIO(moving("GIF", 2, (2400, 600))), 16, LIMITS)
    assert [frame.pixels.shape for frame in frames] == [(480, 1920, 3)] * 2
    assert (facts.width, facts.height) == (2400, 600)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaTooLongError):
        decode_moving(io.BytesIO(moving("GIF", duration=5000)), 4, MediaLimits(max_duration_s=30))
    monkeypatch.setattr(images, "MAX_FRAMES", 8)
    with pytest.raises(DecoderLimitError):
        decode_moving(io.BytesIO(moving("GIF")), 4, LIMITS)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_a_clip_that_ends_early_gives_what_is_there(kind: str) -> None:
    noise = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8)) for n in range(6)]
    out = io.BytesIO()
    noise[0].save(out, kind, save_all=True, append_images=noise[1:], duration=100)
    data = out.getvalue()
    frames, facts = decode_moving(io.BytesIO(data[: len(data) * 3 // 4]), 16, LIMITS)
    assert 1 <= len(frames) < 6
    assert "truncated" in facts.notices
