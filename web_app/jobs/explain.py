"""The worker's side of what the page shows beyond a report: thumbnails, and close-ups of one face.

Only the worker process imports this file's heavy parts, when the first close-up is asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import Settings
from utils.errors import NotFoundError
from utils.log import get_logger
from utils.types import Media
from web_app.db.session import Database
from web_app.jobs.queue import Claim
from web_app.storage.detections import find_detection
from web_app.storage.files import THUMBNAIL_SUFFIX, MediaStore

if TYPE_CHECKING:
    from utils.detection.pipeline import Analyser
    from web_app.jobs.runner import Handler, Progress

THUMBNAIL_PX = 160
THUMBNAIL_QUALITY = 78

log = get_logger(__name__)


def closeup_handler(settings: Settings, analyser: Callable[[], Analyser]) -> Handler:
    """The handler of the task `explain`.

    Args:
        settings: the whole configuration.
        analyser: the one in use when the job runs.
    """
    database = Database.of(settings)
    store = MediaStore.of(settings)

    def handle(claim: Claim, progress: Progress) -> dict[str, Any]:
        from utils.detection.closeup import look_closer  # brings torch, 500 MB, to workers that need it

        with database.read() as session:
            row = find_detection(session, claim.payload["detection"])
        if row is None:
            raise NotFoundError("The analysis was deleted.")
        face = int(claim.payload["face"])
        return look_closer(store.path(row.media.stored_name), analyser(), face, progress=progress).to_dict()

    return handle


def keep_thumbnail(path: Path, media: Media) -> None:
    """Store a small picture of a medium beside its file: the frame in the middle, from pixels, without metadata.

    A disk that refuses it costs the thumbnail and nothing else. A file that was deleted meanwhile leaves none behind.
    """
    import cv2

    pixels = media.frames[len(media.frames) // 2].pixels
    factor = min(1.0, THUMBNAIL_PX / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    done, packed = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY])
    if not done:
        raise ValueError("the thumbnail could not be encoded as JPEG")
    target = path.with_name(path.name + THUMBNAIL_SUFFIX)
    try:
        part = target.with_name(target.name + ".part")
        part.write_bytes(packed.tobytes())
        part.rename(target)
        if not path.exists():
            target.unlink()
    except OSError as error:
        log.warning("no thumbnail was stored: %s", error)
        with contextlib.suppress(OSError):
            target.with_name(target.name + ".part").unlink()
