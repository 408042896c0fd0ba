"""Moving pictures: a GIF, APNG, animated WebP or AVIF sequence in, upright RGB frames out, as of any clip.

Runs in the confined child for the formats that may hold either a picture or a clip. Every frame is decoded, for most
show only what differs from the one before.
"""

from __future__ import annotations

import math
from typing import BinaryIO

import numpy as np
from PIL import Image

from utils.errors import DecoderLimitError
from utils.media.colours import DAMAGE, to_rgb
from utils.media.headers import MAX_FRAMES
from utils.media.images import decode_image, open_picture, opened
from utils.media.limits import FULL_SIZE_FRAMES, MAX_VIDEO_SIDE, Facts, MediaLimits
from utils.types import Frame

CODECS = {"png": "apng", "avif": "av1"}
HASTY_MS, USUAL_MS = 10, 100
"""Browsers show a frame that asks for no more than the first for as long as the second."""


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
                return taken, Facts(*size, round(duration_s, 6), fps, CODECS.get(name, name), notices)
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
        shown_ms = shown_ms if shown_ms > HASTY_MS else USUAL_MS
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
