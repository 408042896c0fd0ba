"""A frame as a viewer shows it: HDR and wide colours in SDR, square pixels, no combing."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageCms, PngImagePlugin

from tests.utils.media.conftest import encode
from tests.utils.media.test_images import LIMITS, near, pixels_of, saved, textured
from utils.media.display import BT2020, HLG, PQ, WHITE, display_size
from utils.media.images import decode_moving
from utils.media.limits import MediaLimits
from utils.media.video import decode_video

Array = np.ndarray[Any, Any]
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.088, 0.8956]])


def as_pq(light: Array) -> Array:
    """SMPTE ST 2084 of light in cd/m²."""
    power = (light / 10000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def as_hlg(light: Array) -> Array:
    """ARIB STD-B67 of light in cd/m², as a display of 1000 cd/m² shows it."""
    luminance = (light / 1000 @ [0.2627, 0.678, 0.0593])[..., None]
    scene = light / 1000 * np.maximum(luminance, 1e-9) ** (1 / 1.2 - 1)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


def as_bt1886(light: Array) -> Array:
    return np.asarray((light / WHITE) ** (1 / 2.4))


CODINGS: dict[str, tuple[int, str, Callable[[Array], Array]]] = {
    "pq": (PQ, "smpte2084", as_pq),
    "hlg": (HLG, "arib-std-b67", as_hlg),
    "bt2020 in SDR": (14, "bt2020-10", as_bt1886),
}


def encoded(codes: Array, name: str) -> bytes:
    """Colours in 0..1 as a clip of HEVC in 10 bit, BT.2020."""
    number, transfer, _ = CODINGS[name]
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as sink:
        stream: Any = sink.add_stream("libx265", rate=10)
        stream.height, stream.width, stream.pix_fmt = *codes.shape[:2], "yuv420p10le"
        colours = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
        stream.options = {"crf": "8", "preset": "ultrafast", "x265-params": f"log-level=error:range=limited:{colours}"}
        stream.codec_context.color_trc, stream.codec_context.color_primaries = number, BT2020
        stream.codec_context.colorspace = 9
        frame = av.VideoFrame.from_ndarray(np.rint(65535 * codes.clip(0, 1)).astype(np.uint16), format="rgb48le")
        for _ in range(4):
            sink.mux(stream.encode(frame.reformat(format="yuv420p10le", dst_colorspace=9)))
        sink.mux(stream.encode(None))
    return out.getvalue()


@pytest.mark.parametrize("name", CODINGS)
def test_wide_colours_look_as_in_sdr(name: str) -> None:
    photo = np.asarray(skimage.data.astronaut())[:256, 100:356]
    light = WHITE * (photo / 255) ** 2.4 @ TO_BT2020.T
    (frame, *_), facts = decode_video(io.BytesIO(encoded(CODINGS[name][2](light), name)), 4, MediaLimits())
    assert facts.notices == (() if "SDR" in name else ("hdr",))
    apart = np.abs(frame.pixels.astype(float) - photo)
    below = photo.max(2) < 240  # brighter parts give way to what is brighter still
    assert apart[below].mean() < 4
    assert np.abs(apart[below].mean(0)).max() < 5


def test_what_is_brighter_than_white_stays_apart() -> None:
    light = np.repeat(np.geomspace(100, 1000, 64), 8)[None, :, None] * np.ones((64, 1, 3))
    (frame, *_), _ = decode_video(io.BytesIO(encoded(as_pq(light), "pq")), 4, MediaLimits())
    levels = frame.pixels[32, 4::8].mean(1)
    assert (np.diff(levels) > -1.5).all()
    assert levels[0] == pytest.approx(255 * (100 / WHITE) ** (1 / 2.4), abs=4)
    assert 235 < np.interp(WHITE, light[0, 4::8, 0], levels) < levels[-1] <= 255


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(2), (192, 64)), (Fraction(1, 3), (96, 192)), (Fraction(50), (96, 64))]
)
def test_pixels_are_square(aspect: Fraction, size: tuple[int, int]) -> None:
    """As with a pixel of 50 to 1 in the header, which no camera writes."""
    disc = np.hypot(*np.mgrid[-32:32, -48:48]) < 20
    grey = np.repeat(np.where(disc, 255, 0).astype(np.uint8)[..., None], 3, 2)
    clip = encode("matroska", "libx264", count=4, picture=grey, aspect=aspect)
    (frame, *_), facts = decode_video(io.BytesIO(clip), 4, MediaLimits())
    assert (facts.width, facts.height) == size
    assert frame.pixels.shape == (size[1], size[0], 3)
    rows, columns = np.nonzero(frame.pixels[:, :, 0] > 127)
    across, down = np.ptp(columns) / size[0] * 96, np.ptp(rows) / size[1] * 64
    assert across == pytest.approx(down, abs=3)


def test_nothing_said_of_pixels_changes_no_size() -> None:
    frame = av.VideoFrame(96, 64, "yuv420p")
    assert display_size(frame, None) == display_size(frame, Fraction(0)) == (96, 64)
    assert display_size(frame, Fraction(4, 3)) == (128, 64)


@pytest.mark.parametrize("interlaced", [True, False])
def test_no_combing_is_left_of_interlaced_frames(interlaced: bool) -> None:
    """A bar that has moved on by the second field, whose lines lie between those of the first."""

    def bar(index: int) -> Array:
        picture = np.full((96, 128, 3), 40, np.uint8)
        for field in (0, 1):
            left = 10 + 10 * index + 5 * field
            picture[field::2, left : left + 20] = 220
        return picture

    options = {"crf": "5", "x264-params": "tff=1" if interlaced else ""}
    clip = encode("mp4", "libx264", count=8, rate=25, size=(128, 96), picture=bar, codec_options=options)
    frames, facts = decode_video(io.BytesIO(clip), 8, MediaLimits())
    assert (len(frames), facts.width, facts.height) == (8, 128, 96)
    combing = [np.abs(np.diff(f.pixels[10:-10].mean(2), axis=0)).mean() for f in frames]
    assert (max(combing) < 1.5) if interlaced else (min(combing) > 8)


ONE = 65536
MATRICES = {
    "upright": ((ONE, 0, 0, 0, ONE), lambda image: image),
    "turned": ((0, ONE, 0, -ONE, 0), lambda image: np.rot90(image, -1)),
    "on its head": ((-ONE, 0, 0, 0, -ONE), lambda image: np.rot90(image, 2)),
    "turned back": ((0, -ONE, 0, ONE, 0), np.rot90),
    "mirrored": ((-ONE, 0, 0, 0, ONE), np.fliplr),
    "upside down": ((ONE, 0, 0, 0, -ONE), np.flipud),
    "mirrored and turned": ((0, ONE, 0, ONE, 0), lambda image: image.transpose(1, 0, 2)),
    "mirrored and turned back": ((0, -ONE, 0, -ONE, 0), lambda image: np.rot90(image.transpose(1, 0, 2), 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_turns_and_mirrors_of_the_container(name: str) -> None:
    """As ISO/IEC 14496-12, 8.3.2 has them; cameras at the front write mirrors."""
    matrix, expected = MATRICES[name]
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:16, :24], picture[:16, 72:], picture[48:, :24] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    data = bytearray(encode("mp4", "libx264", count=4, picture=picture, codec_options={"crf": "5"}))
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 20] = struct.pack(">5i", *matrix)
    (frame, *_), facts = decode_video(io.BytesIO(bytes(data)), 4, MediaLimits())
    shown = expected(picture)
    assert (facts.height, facts.width) == frame.pixels.shape[:2] == shown.shape[:2]
    assert np.abs(frame.pixels.astype(int) - shown).mean() < 4


# What a viewer shows is what is judged: profiles, gamma and ink to sRGB, and nothing changed that is sRGB already.

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
