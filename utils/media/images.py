"""Pictures, still or moving: bytes in, upright RGB frames out.

Runs in the sandboxed child for uploads and in the training process for data sets. The header is judged before any
pixel is decoded, and Pillow may use the sniffed format only. Of a GIF, APNG, animated WebP or AVIF sequence every frame
is decoded, for most show only what differs from the one before.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from PIL import AvifImagePlugin, Image, ImageFile

from utils.errors import DecoderLimitError, MediaCorruptError, MediaDimensionsError, UnsupportedMediaError
from utils.media import heif, video
from utils.media.display import DAMAGE, to_rgb
from utils.media.headers import MAX_FRAMES, check_header, whole_frames
from utils.media.limits import FULL_SIZE_FRAMES, MAX_VIDEO_SIDE, Facts, MediaLimits
from utils.media.packets import raise_for_memory
from utils.media.sniff import SNIFF_BYTES, sniff
from utils.types import Frame, Pixels

PLUGINS = ("Jpeg", "Mpo", "Png", "WebP", "Avif", "Gif", "Bmp", "Tiff")  # TIFF's parser reads EXIF as well

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

_TURNED = (5, 6, 7, 8)
_ANIMATED = ("PNG", "WEBP", "GIF", "AVIF")
_BITS, _SUBFILE_TYPE = 258, 254
_CLIP_BYTES = 12
_CLIP = re.compile(rb"\0\0\0[\x10-\x60]ftyp(?:isom|iso[2-9]|mp4[12]|avc1|qt  |MSNV|M4V )")

_CODECS = {"png": "apng", "avif": "av1"}
_HASTY_MS, _USUAL_MS = 10, 100
"""Browsers show a frame that asks for no more than the first for as long as the second."""

_truncated_lock = threading.Lock()


@functools.cache  # forked children find it done
def load_codecs() -> None:
    """Import what Pillow would import at the first picture, and leave the size check to `decode_image`.

    For the confined child, which can open no file afterwards.
    """
    Image.preinit()
    for plugin in PLUGINS:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    video.load_codecs()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the child may start none
    Image.MAX_IMAGE_PIXELS = None


def decode_image(untrusted: bytes | Path | BinaryIO, limits: MediaLimits) -> tuple[Frame, Facts]:
    """Decode one picture.

    EXIF orientation is applied, alpha composited on white, 16 bit scaled to 8; CMYK, grey, palette and 1 bit become
    RGB, an embedded colour profile or gamma sRGB. Of an animation the first frame is taken (notice `animated`), of
    several pages or pictures the first or the primary one (`pages`), of a damaged file what could be decoded
    (`truncated`). A JPEG beyond the limit is decoded at half its size (`reduced`); a clip in the file is told
    (`clip_behind`).

    Args:
        untrusted: the file's bytes, its path, or the open file.

    Returns:
        The frame, (H, W, 3) uint8 RGB, upright, and what was measured (`width`, `height`: upright, before reducing).

    Raises:
        MediaDimensionsError: the header tells a size outside the limits; nothing was decoded.
        DecoderLimitError: an animation of too many frames, or too much metadata; nothing was decoded.
        MediaCorruptError: nothing could be decoded.
    """
    with opened(untrusted, limits) as (file, name):
        pixels, size, notices = _decode(file, name, limits)
    return Frame(0, 0.0, pixels), Facts(*size, notices=notices)


@contextlib.contextmanager
def opened(untrusted: bytes | Path | BinaryIO, limits: MediaLimits) -> Iterator[tuple[BinaryIO, str]]:
    """The file and the name of its format, after a look at its header; see `decode_image`."""
    with contextlib.ExitStack() as stack:
        file: BinaryIO
        if isinstance(untrusted, bytes):
            file = io.BytesIO(untrusted)
        elif isinstance(untrusted, Path):
            file = stack.enter_context(untrusted.open("rb"))
        else:
            file = untrusted
        file.seek(0)
        try:
            name = sniff(file.read(SNIFF_BYTES)).name
        except UnsupportedMediaError as error:
            raise MediaCorruptError("The picture's header cannot be read.") from error
        # Before Pillow opens it, for opening a WebP allocates the whole canvas, and metadata may cost more than pixels.
        check_header(file, name, limits)
        if name == "tiff":  # libtiff would open the file once more, which the child may not
            file.seek(0)
            file = io.BytesIO(file.read())
        yield file, name


def _decode(file: BinaryIO, name: str, limits: MediaLimits) -> tuple[Pixels, tuple[int, int], tuple[str, ...]]:
    notices: list[str] = []
    image = open_picture(file, name, limits)
    width, height = image.size
    if getattr(image, "is_animated", False) and image.format in _ANIMATED:
        notices.append("animated")
    if image.info.get("others") or (image.format == "TIFF" and _has_pages(image)):
        notices.append("pages")
        image.seek(0)
    if image.info.get("hdr"):
        notices.append("hdr")
    if name in ("jpeg", "heic") and _has_clip(file):
        notices.append("clip_behind")
    if limits.is_reduced(width, height):
        notices.append("reduced")
        image.draft(None, (width // 2, height // 2))
    try:
        image.load()
    except DAMAGE as strict_error:
        notices.append("truncated")
        image = _load_damaged(file, name, limits, strict_error)
    orientation = _orientation(image, notices)
    try:
        rgb = to_rgb(image)
    except DAMAGE as error:
        raise MediaCorruptError(f"The picture's pixels cannot be converted ({error}).") from error
    if "truncated" in notices:
        _require_content(np.asarray(rgb))
    elif image.info.get("damaged") or (name == "jpeg" and "reduced" not in notices and _is_glossed_over(file)):
        notices.append("truncated")
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    size = (height, width) if orientation in _TURNED else (width, height)
    return np.asarray(rgb, dtype=np.uint8), size, tuple(notices)


def _has_clip(file: BinaryIO) -> bool:
    """Whether an MP4 or MOV lies within or behind the picture."""
    file.seek(0)
    end = b""
    while block := file.read(1 << 20):
        if _CLIP.search(end + block):
            return True
        end = block[-_CLIP_BYTES + 1 :]
    return False


def _is_glossed_over(file: BinaryIO) -> bool:
    """Whether the data of a JPEG are damaged, which Pillow's decoder does not tell: it guesses and goes on."""
    file.seek(0)
    context = av.CodecContext.create("mjpeg", "r")
    context.thread_count = 1
    context.options = {"err_detect": "+explode+bitstream+buffer", "skip_idct": "all", "lowres": "3"}
    try:
        for packet in (av.Packet(file.read()), None):
            context.decode(packet)
    except av.error.InvalidDataError:
        return True
    except av.error.FFmpegError as error:  # a kind that it does not know
        raise_for_memory(error)
    return False


def _has_pages(image: Image.Image) -> bool:
    """Whether a TIFF holds another page that is no smaller copy and no mask of the first (TIFF 6.0, NewSubfileType)."""
    with contextlib.suppress(*DAMAGE):
        image.seek(1)
        return not image.tag_v2.get(_SUBFILE_TYPE, 0) & 5  # type: ignore[attr-defined]
    return False


def _require_content(pixels: Pixels) -> None:
    """Refuse a cut-off picture of which there is nothing to see; the decoder fills what is missing with one colour."""
    decoded = (pixels != pixels[-1, -1]).any(axis=2).mean()
    if decoded < MIN_DECODED:
        raise MediaCorruptError("The picture ends right behind its header.")


def open_picture(file: BinaryIO, name: str, limits: MediaLimits) -> Image.Image:
    """A picture within the limits, its pixels not decoded yet; see `decode_image` for what is raised."""
    file.seek(0)
    if name == "heic" or (name == "avif" and not heif.is_sequence(file) and heif.is_hdr_picture(file, limits)):
        return heif.open_heic(file, limits)
    try:
        image: Image.Image = Image.open(file, formats=(name.upper(),))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaDimensionsError(f"The picture is far larger than the limit ({error}).") from error
    except DAMAGE as error:
        if name == "webp" and (whole := whole_frames(file)):
            image = open_picture(whole, name, limits)
            image.info["damaged"] = True
            return image
        raise MediaCorruptError("The picture's header cannot be read, or it ends early.") from error
    if name == "tiff" and image.tag_v2.get(_SUBFILE_TYPE, 0) & 1:  # type: ignore[attr-defined]
        raise UnsupportedMediaError("The file looks like a raw picture, of which only a preview is read; develop it.")
    limits.check_size(image.width, image.height, reducible=name == "jpeg")
    return image


def write_again(untrusted_file: BinaryIO, name: str, limits: MediaLimits) -> bytes:
    """A BMP or TIFF with the same pixels and colours in all its pages, upright, and nothing else.

    Raises:
        MediaError: as `decode_image`; MediaCorruptError also where not every bit of its pixels can be written.
    """
    with opened(untrusted_file, limits) as (file, _):
        image, pages = open_picture(file, name, limits), []
        try:
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                limits.check_size(*image.size)
                if name == "tiff" and max(image.tag_v2.get(_BITS, (8,))) > 8 and len(image.getbands()) > 1:  # type: ignore[attr-defined]
                    raise MediaCorruptError("A TIFF of more than 8 bits a colour cannot be written again.")
                image.load()
                pages.append(image.convert("RGB") if image.mode == "YCbCr" else image.copy())
                pages[-1].info = {k: v for k, v in image.info.items() if k in ("icc_profile", "transparency")}
            options = {"compression": "tiff_lzw", "save_all": len(pages) > 1, "append_images": pages[1:]}
            out = io.BytesIO()
            pages[0].save(out, name.upper(), **(options if name == "tiff" else {}))
        except DAMAGE as error:
            raise MediaCorruptError(f"The picture cannot be written again ({error}).") from error
    return out.getvalue()


def _load_damaged(file: BinaryIO, name: str, limits: MediaLimits, why: BaseException) -> Image.Image:
    image = open_picture(file, name, limits)
    if limits.is_reduced(*image.size):
        image.draft(None, (image.width // 2, image.height // 2))
    try:
        with _tolerate_truncation():
            image.load()
    except DAMAGE as error:
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
    except DAMAGE:
        notices.append("exif_unreadable")
        return 1
    return value if isinstance(value, int) else 1


def decode_moving(
    untrusted_file: BinaryIO, frames: int, limits: MediaLimits, *, most: int = 0
) -> tuple[tuple[Frame, ...], Facts]:
    """Decode a picture, or frames that are spread evenly over a clip in a picture's format.

    Args:
        frames: how many at least; a clip with fewer gives all it has.
        most: of a clip that lasts more seconds than `frames`, one frame a second up to so many.

    Returns:
        The frames, (H, W, 3) uint8 RGB, times in seconds, and what was measured; of a picture as `decode_image`.

    Raises:
        MediaError: as `decode_image`; also MediaTooLongError and, above `MAX_FRAMES` frames, DecoderLimitError.
    """
    with opened(untrusted_file, limits) as (file, name):
        image = open_picture(file, name, limits)
        total, size = _count(image), image.size
        if total > 1:
            taken, duration_s, shown = _decode_all(image, total, frames, limits, most)
            if taken:
                fps = round(shown / duration_s, 4)
                notices = () if shown == total and not image.info.get("damaged") else ("truncated",)
                return taken, Facts(*size, round(duration_s, 6), fps, _CODECS.get(name, name), notices)
    frame, facts = decode_image(untrusted_file, limits)
    return (frame,), facts


def _count(image: Image.Image) -> int:
    try:
        total = int(getattr(image, "n_frames", 1))
    except DAMAGE:
        return 1
    if total > MAX_FRAMES:
        raise DecoderLimitError(f"The animation has more than {MAX_FRAMES} frames.")
    return total


def _decode_all(
    image: Image.Image, total: int, frames: int, limits: MediaLimits, most: int
) -> tuple[tuple[Frame, ...], float, int]:
    """The chosen frames, the seconds that all take, and how many could be decoded."""
    taken: list[Frame] = []
    wanted: set[int] = set()
    elapsed_ms, side = 0.0, MAX_VIDEO_SIDE
    for index in range(total):
        try:
            image.seek(index)
            limits.check_size(*image.size)  # a frame may be larger than those before it
            image.load()
            rgb = to_rgb(image) if not index or index in wanted else None
        except DAMAGE:
            return tuple(taken), elapsed_ms / 1000, index
        shown_ms = float(image.info.get("duration") or 0)
        shown_ms = shown_ms if shown_ms > _HASTY_MS else _USUAL_MS
        if not index:
            count = min(total, max(frames, min(most, math.ceil(total * shown_ms / 1000))))
            side = round(MAX_VIDEO_SIDE * min(1.0, math.sqrt(FULL_SIZE_FRAMES / count)))
            wanted = {total * (2 * share + 1) // (2 * count) for share in range(count)}
        if rgb is not None and index in wanted:
            taken.append(Frame(len(taken), elapsed_ms / 1000, np.asarray(_bounded(rgb, side), np.uint8)))
        elapsed_ms += shown_ms
        limits.check_duration(elapsed_ms / 1000)
    return tuple(taken), elapsed_ms / 1000, total


def _bounded(rgb: Image.Image, side: int) -> Image.Image:
    scale = side / max(rgb.size)
    if scale >= 1:
        return rgb
    return rgb.resize((max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale))), Image.Resampling.BOX)
