"""Pictures: bytes in, one upright RGB frame out.

Runs in the sandboxed child for uploads and in the training process for data sets. The header is judged before any
pixel is decoded, and Pillow may use the three named formats only.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageChops, ImageFile

from utils.errors import MediaCorruptError, MediaDimensionsError, UnsupportedMediaError
from utils.media.headers import check_header
from utils.media.limits import Facts, MediaLimits
from utils.media.sniff import SNIFF_BYTES, sniff
from utils.types import Frame, Pixels

FORMATS = ("JPEG", "PNG", "WEBP")

EXIF_ORIENTATION = 0x0112

MIN_DECODED = 0.01
"""Share of a damaged picture that must have been decoded, for it to be worth an analysis."""

# What makes a picture upright, by the value of the EXIF orientation tag (Exif 2.32, table 6).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's parsers raise on damaged files (warnings where they are errors); all means the same to the user.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    KeyError, IndexError, TypeError, AttributeError, ArithmeticError, UserWarning,
)  # fmt: skip

_truncated_lock = threading.Lock()


def load_codecs() -> None:
    """Import what Pillow would import at the first picture, and leave the size check to `decode_image`.

    For the confined child, which can open no file afterwards.
    """
    Image.preinit()
    for plugin in ("Jpeg", "Mpo", "Png", "WebP", "Tiff"):  # TIFF's parser reads EXIF
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    Image.MAX_IMAGE_PIXELS = None


def decode_image(untrusted: bytes | Path | BinaryIO, limits: MediaLimits) -> tuple[Frame, Facts]:
    """Decode one picture.

    EXIF orientation is applied, alpha composited on white, 16 bit scaled to 8; CMYK, grey, palette and 1 bit become
    RGB. Embedded colour profiles are not applied. Of an animation the first frame is taken (notice `animated`); of a
    damaged file what could be decoded (notice `truncated`).

    Args:
        untrusted: the file's bytes, its path, or the open file.
        limits: what is accepted.

    Returns:
        The frame, (H, W, 3) uint8 RGB, upright, and what was measured.

    Raises:
        MediaDimensionsError: the header tells a size outside the limits; nothing was decoded.
        DecoderLimitError: an animation of too many frames, or too much metadata; nothing was decoded.
        MediaCorruptError: nothing could be decoded.
    """
    with contextlib.ExitStack() as stack:
        file: BinaryIO
        if isinstance(untrusted, bytes):
            file = io.BytesIO(untrusted)
        elif isinstance(untrusted, Path):
            file = stack.enter_context(untrusted.open("rb"))
        else:
            file = untrusted
        # Before Pillow opens it, for opening a WebP allocates the whole canvas, and metadata may cost more than pixels.
        check_header(file, _format_name(file), limits)
        pixels, notices = _decode(file, limits)
    height, width = pixels.shape[:2]
    return Frame(0, 0.0, pixels), Facts(width, height, notices=notices)


def _format_name(file: BinaryIO) -> str:
    file.seek(0)
    try:
        return sniff(file.read(SNIFF_BYTES)).name
    except UnsupportedMediaError as error:
        raise MediaCorruptError("The picture's header cannot be read.") from error


def _decode(file: BinaryIO, limits: MediaLimits) -> tuple[Pixels, tuple[str, ...]]:
    notices: list[str] = []
    image = _open(file, limits)
    if getattr(image, "is_animated", False) and image.format in ("PNG", "WEBP"):
        notices.append("animated")
    try:
        image.load()
    except _DAMAGE as strict_error:
        notices.append("truncated")
        image = _load_damaged(file, limits, strict_error)
    orientation = _orientation(image, notices)
    try:
        rgb = _to_rgb(image)
    except _DAMAGE as error:
        raise MediaCorruptError(f"The picture's pixels cannot be converted ({error}).") from error
    if "truncated" in notices:
        _require_content(np.asarray(rgb))
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return np.asarray(rgb, dtype=np.uint8), tuple(notices)


def _require_content(pixels: Pixels) -> None:
    """Refuse a cut-off picture of which there is nothing to see; the decoder fills what is missing with one colour."""
    decoded = (pixels != pixels[-1, -1]).any(axis=2).mean()
    if decoded < MIN_DECODED:
        raise MediaCorruptError("The picture ends right behind its header.")


def _open(file: BinaryIO, limits: MediaLimits) -> Image.Image:
    file.seek(0)
    try:
        image = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaDimensionsError(f"The picture is far larger than the limit ({error}).") from error
    except _DAMAGE as error:
        raise MediaCorruptError("The picture's header cannot be read.") from error
    limits.check_size(image.width, image.height)
    return image


def _load_damaged(file: BinaryIO, limits: MediaLimits, why: BaseException) -> Image.Image:
    image = _open(file, limits)
    try:
        with _tolerate_truncation():
            image.load()
    except _DAMAGE as error:
        raise MediaCorruptError(f"The picture's data cannot be decoded ({error}).") from why
    return image


@contextlib.contextmanager
def _tolerate_truncation() -> Iterator[None]:
    """Let Pillow decode incomplete files, for the length of a block: the switch is a global of the library."""
    with _truncated_lock:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _orientation(image: Image.Image, notices: list[str]) -> int:
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except _DAMAGE:
        notices.append("exif_unreadable")
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode that the three formats can give, as RGB with 8 bits."""
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Pillow inverts every CMYK JPEG, which is right only for those with Adobe's marker.
        image = ImageChops.invert(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Grey with 16 bits to RGB: 0..65535 onto 0..255, where Pillow's own conversion clips at 255."""
    values = np.asarray(image).astype(np.uint32)
    grey = ((values + 128) // 257).clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2))
