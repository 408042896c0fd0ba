"""Clean copies of pictures: the same pixels and orientation, nothing that their makers wrote beside them."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from tests.hostile.attacks import seeds
from tests.utils.media.heics import ALPHA, Heic, box
from utils.config import MediaSettings, SandboxSettings
from utils.errors import MediaCorruptError
from utils.media import clean_picture, copy_media
from utils.media.clean_picture import orientation_only, read_orientation
from utils.media.images import decode_image, write_again
from utils.media.limits import MediaLimits
from utils.media.sandbox import PICTURE_CPU_S

SECRET = b"48.8584 N 2.2945 E"
FORMATS = ("jpeg", "png", "webp")
strip = partial(clean_picture.strip, limits=MediaLimits())


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 255, (24, 40, 3), np.uint8))


def told(media_format: str, orientation: int = 6) -> bytes:
    """A picture that says where it was taken, in each way that its format knows."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = SECRET.decode()
    exif.get_ifd(0x8825)[1] = SECRET.decode()
    more: dict[str, object] = {"exif": exif.tobytes()}
    if media_format == "png":
        info = PngInfo()
        info.add_text("Comment", SECRET.decode())
        info.add_itxt("XML:com.adobe.xmp", SECRET.decode())
        more["pnginfo"] = info
    else:
        more["xmp"] = b"<x>" + SECRET + b"</x>"
    if media_format == "jpeg":
        more |= {"comment": SECRET, "progressive": True}
    if media_format == "webp":
        more["lossless"] = True
    out = io.BytesIO()
    picture().save(out, media_format, **more)
    return out.getvalue() + SECRET  # and behind the end


@pytest.mark.parametrize("media_format", FORMATS)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pixels_and_orientation_stay_and_the_rest_goes(media_format: str, orientation: int) -> None:
    data = told(media_format, orientation)
    found = strip(data, media_format)
    assert SECRET in data
    assert SECRET not in found
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(found))
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert after.getexif().get(0x0112, 1) == orientation
    assert set(after.getexif()) <= {0x0112}
    assert ImageOps.exif_transpose(after).size == ImageOps.exif_transpose(before).size
    assert not {"xmp", "comment", "Comment", "XML:com.adobe.xmp"} & set(after.info)
    assert strip(found, media_format) == found


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_webp_header_announces_no_more_than_there_is(orientation: int) -> None:
    found = strip(told("webp", orientation), "webp")
    exif, xmp = 0x08, 0x04
    assert found[12:16] == b"VP8X"
    assert found[20] & (exif | xmp) == (exif if orientation != 1 else 0)


def test_segments_between_scans_and_foreign_ones_go_and_colours_stay() -> None:
    profile = b"ICC_PROFILE\0\x01\x01" + b"p" * 40

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">HH", 0xFF00 | marker, len(body) + 2) + body

    plain = io.BytesIO()
    picture().save(plain, "jpeg")
    data = plain.getvalue()
    added = segment(0xED, b"Photoshop 3.0\0" + SECRET) + segment(0xE2, b"MPF\0" + SECRET) + segment(0xE2, profile)
    inner = segment(0xFE, SECRET)
    found = strip(data[:2] + added + data[2:-2] + inner + data[-2:], "jpeg")
    assert SECRET not in found
    assert profile in found
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found))), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("media_format", FORMATS)
def test_garbage_is_refused_or_read_and_never_crashes(media_format: str) -> None:
    chance = random.Random(5)
    data = told(media_format)
    refused = 0
    for _ in range(600):
        broken = bytearray(data[: chance.randrange(len(data))] if chance.random() < 0.5 else data)
        for _ in range(chance.randrange(1, 12)):
            if broken:
                broken[chance.randrange(min(len(broken), 300))] = chance.randrange(256)
        try:
            strip(bytes(broken), media_format)
        except MediaCorruptError:
            refused += 1
    assert refused > 50
    for nothing in (b"", b"\xff\xd8", b"RIFF\x04\0\0\0WEBP", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(MediaCorruptError):
            strip(nothing, media_format)


@pytest.mark.parametrize("media_format", ["jpeg", "png"])
def test_a_picture_that_is_cut_off_keeps_what_it_has(media_format: str) -> None:
    data = told(media_format)[: -len(SECRET) - 200]
    found = strip(data, media_format)
    assert SECRET not in found
    whole = strip(told(media_format), media_format)
    assert whole.startswith(found)
    assert len(found) > len(whole) - 1500


def test_an_orientation_is_read_in_both_byte_orders_and_nonsense_is_upright() -> None:
    assert read_orientation(orientation_only(8)) == 8
    big = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 5, 0, 0)
    assert read_orientation(big) == 5
    for strange in (b"", b"II", b"XX" + big[2:], orientation_only(9), big[:12], big[:4] + b"\xff" * 20):
        assert read_orientation(strange) == 1


ENDLESS = {
    "JPEG scan with a million fill bytes": (
        "jpeg", lambda: seeds.save("JPEG")[:-2] + b"\xff" * 1_000_000 + b"\0\xff\xd9",
    ),
    "JPEG with fill bytes before a marker": ("jpeg", lambda: b"\xff\xd8" + b"\xff" * 8_000_000),
    "JPEG with 110,000 comments": ("jpeg", lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 110_000),
    "WebP with 110,000 chunks": ("webp", lambda: b"RIFF\xff\xff\xff\x7fWEBP" + b"ABCD\0\0\0\0" * 110_000),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_a_picture_that_looks_like_endless_work_is_done_in_time(name: str) -> None:
    media_format, build = ENDLESS[name]
    begun = time.process_time()
    try:
        strip(build(), media_format)
    except MediaCorruptError:
        assert "scan" not in name
    else:
        assert "scan" in name  # that one is a picture
    assert time.process_time() - begun < PICTURE_CPU_S


def moving_gif() -> bytes:
    """Three frames that are repeated, with a comment and an application's data."""
    out = io.BytesIO()
    frames = [Image.fromarray(np.full((24, 40), 60 * n, np.uint8)).convert("P") for n in range(3)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=[50, 70, 90], loop=0, comment=SECRET)
    head = out.getvalue()
    at = head.index(b"\x21\xfe")
    application = b"\x21\xff\x0bXMP DataXMP" + bytes([len(SECRET)]) + SECRET + b"\0"
    return head[:at] + application + head[at:] + SECRET


def test_a_gif_keeps_its_frames_their_times_and_its_loops() -> None:
    data = moving_gif()
    found = strip(data, "gif")
    assert data.count(SECRET) == 3
    assert SECRET not in found
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(found))
    assert (getattr(after, "n_frames", 1), after.info["loop"]) == (3, 0)
    for number in range(3):
        before.seek(number)
        after.seek(number)
        assert after.info["duration"] == before.info["duration"]
        assert np.array_equal(np.asarray(after.convert("RGB")), np.asarray(before.convert("RGB")))
    for broken in (b"", b"GIF89a", found[:40], b"GIF89a" + bytes(7) + b"\x55"):
        with pytest.raises(MediaCorruptError):
            strip(broken, "gif")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_a_tiff_is_written_again_with_its_pages_pixels_and_colours(mode: str) -> None:
    first = picture().convert("L").convert("I").convert("I;16") if mode == "I;16" else picture().convert(mode)
    out = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() if mode == "RGB" else None
    first.save(
        out, "TIFF", save_all=True, append_images=[first.rotate(180)], icc_profile=profile, description=SECRET.decode(),
        tiffinfo={274: 6, 271: SECRET.decode(), 700: SECRET},
    )  # fmt: skip
    found = write_again(io.BytesIO(out.getvalue()), "tiff", MediaLimits(min_side_px=8))
    assert SECRET in out.getvalue()
    assert SECRET not in found
    before, after = Image.open(io.BytesIO(out.getvalue())), Image.open(io.BytesIO(found))
    assert (getattr(after, "n_frames", 1), after.mode) == (2, before.mode)
    assert after.info.get("icc_profile") == profile
    for number in range(2):
        before.seek(number)
        after.seek(number)
        assert np.array_equal(np.asarray(after), np.asarray(ImageOps.exif_transpose(before)))


def test_a_bmp_is_written_again_and_what_lies_behind_it_goes() -> None:
    for mode in ("1", "L", "P", "RGB"):
        out = io.BytesIO()
        picture().convert(mode).save(out, "BMP")
        found = write_again(io.BytesIO(out.getvalue() + SECRET), "bmp", MediaLimits(min_side_px=8))
        assert SECRET not in found
        shown = np.asarray(Image.open(io.BytesIO(out.getvalue())).convert("RGB"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(found)).convert("RGB")), shown)


def test_a_tiff_that_is_cut_off_has_no_copy() -> None:
    out = io.BytesIO()
    picture().save(out, "TIFF")
    with pytest.raises(MediaCorruptError):
        write_again(io.BytesIO(out.getvalue()[:300]), "tiff", MediaLimits(min_side_px=8))


# Clean copies of HEIC and AVIF: every pixel as before, and no place, name, preview or appendix.

LIMITS = MediaLimits()
PICTURE = np.random.default_rng(3).integers(0, 256, (8, 10, 3), np.uint8).repeat(12, 0).repeat(12, 1)


def told_heic() -> bytes:
    """A turned picture in tiles, with alpha, that says where it was taken in each way that its format knows."""
    file = Heic()
    primary = file.grid(PICTURE, 64, (b"irot", b"\1"), (b"udes", bytes(4) + SECRET))
    file.link(b"auxl", file.picture(PICTURE, (b"auxC", bytes(4) + ALPHA), hidden=True), primary)
    preview = file.add(b"hvc1", SECRET * 3)
    file.link(b"thmb", preview, primary)
    for kind in (b"Exif", b"mime", b"uri "):
        file.link(b"cdsc", file.add(kind, SECRET), primary)
    return file.save(primary) + box(b"uuid", SECRET) + box(b"mpvd", SECRET) + SECRET


def told_avif() -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    Image.fromarray(PICTURE).save(out, "AVIF", quality=90, exif=exif.tobytes(), xmp=b"<x>" + SECRET + b"</x>")
    return out.getvalue() + box(b"free", SECRET)


@pytest.mark.parametrize("told", [told_heic, told_avif])
def test_pixels_stay_and_the_rest_goes(told) -> None:
    data = told()
    found = strip(data, "heic")
    assert SECRET in data
    assert SECRET not in found
    before, after = (decode_image(each, LIMITS) for each in (data, found))
    assert np.array_equal(before[0].pixels, after[0].pixels)
    assert before[1] == after[1]
    assert strip(found, "heic") == found


def test_what_the_coder_wrote_into_the_stream_goes() -> None:
    file = Heic()
    data = file.save(file.picture(PICTURE))
    assert b"x265" in data
    assert b"x265" not in strip(data, "heic")


@pytest.mark.parametrize("told", [told_heic, told_avif])
def test_the_confined_child_makes_it(told, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(told())
    out = io.BytesIO()
    copy_media(path, out, MediaSettings(), SandboxSettings())
    assert out.getvalue() == strip(told(), "heic")


def test_doubts_and_sequences_are_refused() -> None:
    whole = told_heic()
    moving = io.BytesIO()
    first = Image.fromarray(PICTURE)
    first.save(moving, "AVIF", save_all=True, append_images=[first.rotate(180)])
    for broken in (b"", whole[:40], whole[: len(whole) // 2], moving.getvalue(), struct.pack(">I4s", 8, b"meta")):
        with pytest.raises(MediaCorruptError):
            strip(broken, "heic")


def test_damage_is_refused_or_copied_and_never_crashes() -> None:
    rng = random.Random(4)
    whole, copied = told_avif(), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] = rng.randrange(256)
        with contextlib.suppress(MediaCorruptError):
            copied += len(strip(bytes(damaged), "heic")) > 0
    assert copied > 50
