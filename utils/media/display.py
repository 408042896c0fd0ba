"""Pixels as a viewer shows them: frames of a video deinterlaced, with square pixels, upright, in SDR; pictures in sRGB.

Called by `video.py` for each frame that is kept, by `heif.py` for HDR pictures, and by `images.py` with what Pillow has
decoded. HDR (PQ, HLG, BT.2020) is brought
to SDR BT.709 as ITU-R BT.2408 relates them: its reference white, 203 cd/m², is the white of SDR; only what is brighter
is compressed.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import zlib
from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np
from PIL import Image, ImageChops, ImageCms

from utils.types import Floats, Pixels

PQ, HLG, BT2020 = 16, 18, 9
"""Transfer characteristics and primaries by their numbers in ITU-T H.273."""
WHITE = 203.0
"""cd/m² of HDR reference white (ITU-R BT.2408)."""
KNEE = 0.9
"""Share of SDR white from which brighter parts are compressed."""
MOST_STRETCH = 8
"""Pixels that are said to be longer than this are taken for a fault of the header."""
TO_BT709 = np.array([[1.6605, -0.1246, -0.0182], [-0.5876, 1.1329, -0.1006], [-0.0728, -0.0083, 1.1187]], np.float32)
"""Linear BT.2020 to BT.709 (ITU-R BT.2087), for colours in rows."""
LUMINANCE = np.array([0.2627, 0.678, 0.0593], np.float32)
"""Of linear BT.2020."""
CODES = 65536
BRIGHTEST = 16.0
"""What is brighter, times reference white, is taken for this bright."""

# What Pillow's parsers raise on damaged files (warnings where they are errors); all means the same to the user.
DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    KeyError, IndexError, TypeError, AttributeError, ArithmeticError, RuntimeError, UserWarning,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip

_SRGB = ImageCms.createProfile("sRGB")
_SPACES = {"RGB": "RGB", "RGBA": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_PLAIN = ("L", "LA", "RGB", "RGBA")
_SAME_GAMMA = 0.05  # so near 1 / 2.2, the picture is meant for a screen as it is


def display_size(frame: Any, aspect: Fraction | None) -> tuple[int, int]:
    """Width and height with square pixels, before any turn; the short side of a pixel is stretched.

    Args:
        aspect: width of a pixel by its height; None where nothing is said.
    """
    if not aspect or not 1 / MOST_STRETCH <= aspect <= MOST_STRETCH:
        aspect = Fraction(1)
    return max(frame.width, round(frame.width * aspect)), max(frame.height, round(frame.height / aspect))


def to_display(frame: Any, aspect: Fraction | None, most_side: int) -> tuple[Pixels, tuple[int, int]]:
    """Pixels of a frame, upright and not larger than `most_side`, and its upright size before scaling.

    Args:
        most_side: longest side of the answer, pixels.
    """
    width, height = display_size(frame, aspect)
    across, (rows, columns) = _axes(frame)
    if frame.interlaced_frame:
        frame = _deinterlaced(frame)
    scale = min(1.0, most_side / max(width, height))
    size = {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}
    how: dict[str, Any] = {"threads": 1}
    if tuple(size.values()) != (frame.width, frame.height):
        how |= size | {"interpolation": "AREA" if scale < 1 else "BICUBIC"}
    if is_hdr(frame.color_trc, frame.color_primaries):
        rgb = to_sdr(frame.reformat(format="rgb48le", **how).to_ndarray(), frame.color_trc, frame.color_primaries)
    else:
        rgb = frame.reformat(format="rgb24", **how).to_ndarray()
    turned = rgb.transpose(1, 0, 2) if across else rgb
    return np.ascontiguousarray(turned[::rows, ::columns]), (height, width) if across else (width, height)


def _axes(frame: Any) -> tuple[bool, tuple[int, int]]:
    """Whether rows and columns change places, then the steps along both: turns and mirrors of the display matrix.

    Source: ISO/IEC 14496-12, 8.3.2: a place (x, y) is shown at (ax + cy, bx + dy).
    """
    found = (struct.unpack("=9i", bytes(data)) for data in frame.side_data if data.type.name == "DISPLAYMATRIX")
    a, b, _, c, d, *_ = next(found, (1, 0, 0, 0, 1))
    across = abs(b) > abs(a)
    x, y = (c, b) if across else (a, d)
    return across, (-1 if y < 0 else 1, -1 if x < 0 else 1)


def _deinterlaced(frame: Any) -> Any:
    """The first field of a frame, with the lines between its own interpolated along edges."""
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    graph.link_nodes(source, graph.add("estdif", "mode=frame"), graph.add("buffersink")).configure()
    graph.vpush(frame)
    graph.vpush(None)
    return graph.vpull()


def is_hdr(transfer: int, primaries: int) -> bool:
    """Whether colours, named by their numbers in ITU-T H.273, are brought to SDR."""
    return transfer in (PQ, HLG) or primaries == BT2020


def to_sdr(rgb: Any, transfer: int, primaries: int) -> Pixels:
    """Gamma-coded HDR or BT.2020, (H, W, 3) uint16, as SDR BT.709 with colours at half the resolution as there."""
    light = np.take(_linear(transfer), rgb)  # 1 is reference white
    if transfer == HLG:  # the system gamma of a display of 1000 cd/m² (ITU-R BT.2100)
        light *= 1000 / WHITE * np.maximum(light @ LUMINANCE, 1e-6)[..., None] ** np.float32(0.2)
    if primaries == BT2020:
        light = light @ TO_BT709
    root = np.sqrt(np.clip(light, 0, BRIGHTEST, out=light), out=light)  # steps as fine as the eye's
    root *= (CODES - 1) / BRIGHTEST**0.5
    codes = np.take(_codes(KNEE if transfer in (PQ, HLG) else 1), root.astype(np.uint16))
    as_sdr = av.VideoFrame.from_ndarray(codes, format="rgb24").reformat(format="yuv420p", threads=1)  # its colours too
    return np.asarray(as_sdr.reformat(format="rgb24", threads=1).to_ndarray(), np.uint8)


@functools.cache
def _linear(transfer: int) -> Floats:
    """Linear light of each code value, 1 for white; HLG's is that of the scene (ITU-R BT.2100, BT.1886)."""
    code = np.linspace(0, 1, CODES)
    if transfer == HLG:
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    elif transfer == PQ:
        power = code ** (1 / 78.84375)
        light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
        light *= 10000 / WHITE
    else:
        light = code**2.4
    return light.astype(np.float32)


@functools.cache
def _codes(knee: float) -> Pixels:
    """Code values 0..255 (ITU-R BT.1886) of linear light, by its square root up to `BRIGHTEST`."""
    light = BRIGHTEST * np.linspace(0, 1, CODES) ** 2
    over, room = np.maximum(light - knee, 0), 1 - knee
    light = np.minimum(light, knee) + room * over / (over + room + 1e-9)
    return np.asarray(np.rint(255 * light ** (1 / 2.4)), np.uint8)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode that the formats can give, as RGB with 8 bits."""
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Pillow inverts every CMYK JPEG, which is right only for those with Adobe's marker.
        image = ImageChops.invert(image)
    image = _to_srgb(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_srgb(image: Image.Image) -> Image.Image:
    """The picture in the colours of sRGB, by its ICC profile or the gamma of a PNG; as it is where that is none."""
    if profile := image.info.get("icc_profile"):
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
        with contextlib.suppress(*DAMAGE, ImageCms.PyCMSError):
            source = ImageCms.getOpenProfile(io.BytesIO(profile))
            name = (source.profile.profile_description or "").lower()
            if _SPACES.get(image.mode) == source.profile.xcolor_space.strip() and "srgb" not in name:
                mode = image.mode if image.mode == "RGBA" else "RGB"
                return ImageCms.profileToProfile(image, source, _SRGB, outputMode=mode) or image
        return image
    gamma = image.info.get("gamma") or 0
    if gamma > 0 and abs(gamma * 2.2 - 1) > _SAME_GAMMA and "srgb" not in image.info and image.mode in _PLAIN:
        curve = [round(255 * (code / 255) ** (1 / 2.2 / gamma)) for code in range(256)]
        return image.point([code if band == "A" else curve[code] for band in image.getbands() for code in range(256)])
    return image


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Grey with 16 bits to RGB: 0..65535 onto 0..255, where Pillow's own conversion clips at 255."""
    values = np.asarray(image).astype(np.uint32)
    grey = ((values + 128) // 257).clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2))
