"""What a viewer shows is what is judged: profiles, gamma and ink to sRGB, and nothing changed that is sRGB already."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from tests.utils.media.test_images import LIMITS, near, pixels_of, saved, textured
from utils.media.images import decode_moving

# Colorants of sRGB and of Display P3 for the white of profiles, D50 (their published profiles).
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
P3 = ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841))


def profile(colorants: tuple[tuple[float, float, float], ...], gamma: float, space: bytes = b"RGB ") -> bytes:
    """An ICC profile of three colorants or of grey, with one curve (ICC.1:2010)."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    name = b"A profile of ours\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249),
        b"kTRC": (curve := b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"),
    }
    for colour, xyz in zip(b"rgb", colorants, strict=False):
        tags[bytes([colour]) + b"XYZ"], tags[bytes([colour]) + b"TRC"] = b"XYZ " + bytes(4) + fixed(*xyz), curve
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += padded
    head = struct.pack(">I4sI4s4s4s12s4s28s", 132 + len(table) - 4 + len(body), bytes(4), 0x02100000, b"mntr", space,
                       b"XYZ ", bytes(12), b"acsp", bytes(28)) + fixed(0.9642, 1, 0.8249) + bytes(48)  # fmt: skip
    return head + table + body


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_wide_colour_space_is_brought_to_srgb(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind in ("JPEG", "AVIF") else {}
    image = Image.new("RGB", (64, 48), (200, 100, 80))
    stored = pixels_of(saved(image, kind, **options))
    shown = pixels_of(saved(image, kind, icc_profile=profile(P3, 2.2), **options))
    assert near(stored[20, 30], (200, 100, 80), 4)
    linear = (np.array([200, 100, 80]) / 255) ** 2.2 @ np.array(P3) @ np.linalg.inv(np.array(SRGB))
    expected = 255 * np.where(linear > 0.0031, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    assert near(shown[20, 30], tuple(expected), 4)
    assert shown[20, 30, 0] - stored[20, 30, 0] > 8


def test_the_profile_holds_for_moving_pictures_and_under_transparency() -> None:
    image = Image.new("RGBA", (64, 48), (200, 100, 80, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 48))
    other = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    out, still = io.BytesIO(), saved(image, "PNG", icc_profile=profile(P3, 2.2))
    image.save(out, "PNG", save_all=True, append_images=[other], duration=100, icc_profile=profile(P3, 2.2))
    (frame, _), _ = decode_moving(out, 4, LIMITS)
    assert (frame.pixels == pixels_of(still)).all()
    assert frame.pixels[20, 30, 0] > 208
    assert frame.pixels[20, 5].tolist() == [255, 255, 255]


def test_what_is_srgb_already_and_what_is_no_profile_change_nothing() -> None:
    plain = pixels_of(saved(textured(), "PNG"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for other in (srgb, bytes(700), b"no profile", profile((), 1.0, b"GRAY")):
        assert (pixels_of(saved(textured(), "PNG", icc_profile=other)) == plain).all()


def test_grey_with_a_curve_of_its_own() -> None:
    data = saved(Image.new("L", (40, 40), 128), "PNG", icc_profile=profile((), 1.0, b"GRAY"))
    assert near(pixels_of(data)[5, 5], (188, 188, 188), 2)


@pytest.mark.parametrize(("gamma", "shown"), [(1.0, 188), (0.45455, 128), (0.55, 143)])
def test_the_gamma_of_a_png(gamma: float, shown: int) -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", round(gamma * 100_000)))
    for mode, colour in (("RGB", (128, 128, 128)), ("L", 128), ("RGBA", (128, 128, 128, 255))):
        data = saved(Image.new(mode, (40, 40), colour), "PNG", pnginfo=info)
        assert near(pixels_of(data)[5, 5], (shown, shown, shown), 2)
