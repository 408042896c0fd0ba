"""Small pictures that the worker keeps beside an upload: a thumbnail, and the analysed frames of a video.

They are made of decoded pixels, so nothing else of the upload is in them. A disk that refuses them costs them and
nothing else; a file that was deleted meanwhile leaves none behind.
"""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path

from utils.log import get_logger
from utils.types import Media, MediaKind, Pixels
from web_app.storage.files import FRAMES_SUFFIX, PART_SUFFIX, THUMBNAIL_SUFFIX

THUMBNAIL_PX = 160
FRAME_PX = 640
MOST_FRAMES = 32
QUALITY = 78
FRAME_QUALITY = 70

log = get_logger(__name__)


def keep_previews(path: Path, media: Media) -> None:
    """Store the frame in the middle as the thumbnail, and all frames of a video as the page shows them.

    Args:
        path: of the stored file.
        media: decoded.
    """
    middle = media.frames[len(media.frames) // 2]
    _store(path, THUMBNAIL_SUFFIX, _jpeg(middle.pixels, THUMBNAIL_PX, QUALITY))
    if media.info.kind is MediaKind.VIDEO:
        step = -(-len(media.frames) // MOST_FRAMES)
        frames = [
            {
                "time_s": round(frame.time_s, 6),
                "jpeg": base64.b64encode(_jpeg(frame.pixels, FRAME_PX, FRAME_QUALITY)).decode(),
            }
            for frame in media.frames[::step]
        ]
        _store(path, FRAMES_SUFFIX, json.dumps({"frames": frames}).encode())


def _jpeg(pixels: Pixels, most_px: int, quality: int) -> bytes:
    """A picture of no more than `most_px` pixels on its longer side."""
    import cv2

    factor = min(1.0, most_px / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    done, packed = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("a preview could not be encoded as JPEG")
    return packed.tobytes()


def _store(path: Path, suffix: str, content: bytes) -> None:
    target = path.with_name(path.name + suffix)
    part = target.with_name(target.name + PART_SUFFIX)
    try:
        part.write_bytes(content)
        part.rename(target)
        if not path.exists():
            target.unlink()
    except OSError as error:
        log.warning("no preview was stored: %s", error)
        with contextlib.suppress(OSError):
            part.unlink()
