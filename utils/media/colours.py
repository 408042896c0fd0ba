"""The colours of a picture as a viewer shows them: any mode, profile and gamma to 8 bit sRGB, alpha over white.

Called by `images.py` and `animation.py` with what Pillow has decoded.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageChops, ImageCms

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
