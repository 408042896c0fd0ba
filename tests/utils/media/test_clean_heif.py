"""Clean copies of HEIC and AVIF: every pixel as before, and no place, name, preview or appendix."""

from __future__ import annotations

import contextlib
import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.utils.media.heics import ALPHA, Heic, box
from utils.config import MediaSettings, SandboxSettings
from utils.errors import MediaCorruptError
from utils.media import copy_media
from utils.media.clean_picture import strip
from utils.media.images import decode_image
from utils.media.limits import MediaLimits

SECRET = b"48.8584 N 2.2945 E"
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
    found = strip(data, "heic", LIMITS)
    assert SECRET in data
    assert SECRET not in found
    before, after = (decode_image(each, LIMITS) for each in (data, found))
    assert np.array_equal(before[0].pixels, after[0].pixels)
    assert before[1] == after[1]
    assert strip(found, "heic", LIMITS) == found


def test_what_the_coder_wrote_into_the_stream_goes() -> None:
    file = Heic()
    data = file.save(file.picture(PICTURE))
    assert b"x265" in data
    assert b"x265" not in strip(data, "heic", LIMITS)


@pytest.mark.parametrize("told", [told_heic, told_avif])
def test_the_confined_child_makes_it(told, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(told())
    out = io.BytesIO()
    copy_media(path, out, MediaSettings(), SandboxSettings())
    assert out.getvalue() == strip(told(), "heic", LIMITS)


def test_doubts_and_sequences_are_refused() -> None:
    whole = told_heic()
    moving = io.BytesIO()
    first = Image.fromarray(PICTURE)
    first.save(moving, "AVIF", save_all=True, append_images=[first.rotate(180)])
    for broken in (b"", whole[:40], whole[: len(whole) // 2], moving.getvalue(), struct.pack(">I4s", 8, b"meta")):
        with pytest.raises(MediaCorruptError):
            strip(broken, "heic", LIMITS)


def test_damage_is_refused_or_copied_and_never_crashes() -> None:
    rng = random.Random(4)
    whole, copied = told_avif(), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] = rng.randrange(256)
        with contextlib.suppress(MediaCorruptError):
            copied += len(strip(bytes(damaged), "heic", LIMITS)) > 0
    assert copied > 50
