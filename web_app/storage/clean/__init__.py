"""Files without what cameras and people wrote beside pixels and sound: places, names, dates, comments, previews.

The container is taken apart by a few lines of arithmetic and put together again from the parts that a viewer needs; no
pixel is decoded or changed, and no decoder runs in a web process. What is not known is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from utils.errors import MediaCorruptError
from web_app.storage.clean import avi, flv, matroska, mp4, pictures
from web_app.storage.clean.effort import FILM_STEPS, PICTURE_STEPS, Effort
from web_app.storage.clean.parts import Part

_READERS: dict[str, Callable[[bytes, Effort], list[Part]]] = {
    "jpeg": pictures.jpeg,
    "png": pictures.png,
    "webp": pictures.webp,
    "mp4": mp4.bare,
    "mov": mp4.bare,
    "matroska": matroska.bare,
    "webm": matroska.bare,
    "avi": avi.bare,
    "flv": flv.bare,
}

_PICTURES = ("jpeg", "png", "webp")


def bare_parts(data: bytes, media_format: str) -> list[Part]:
    """The parts of a file that may be handed out, in their order.

    Args:
        data: the whole file; anything with the methods of bytes and slices, such as a memory map.
        media_format: one of `utils.media.sniff.FORMATS`.

    Raises:
        MediaCorruptError: the structure leaves a doubt about what is what, or is more work than any film.
    """
    try:
        return _READERS[media_format](data, Effort(PICTURE_STEPS if media_format in _PICTURES else FILM_STEPS))
    except (KeyError, IndexError, ValueError, struct.error):
        raise MediaCorruptError("What is content and what was added to it cannot be told apart.") from None
