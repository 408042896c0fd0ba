"""What pictures look like, in 64 bits each, so that near copies are known again: hashes that the worker keeps.

Of a picture the whole and each face are kept, of a video three frames and each person's face in the middle of their
time. A hash tells neither what nor who is in a picture. It goes with its file; `[storage] seen_before` turns it off.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from utils.types import Box, Media, Pixels, Report
from web_app.db.models import DetectionRow, MediaRow, PictureHashRow
from web_app.jobs.instance import Instance

WHOLE, FACE = "whole", "face"
FRAMES = (0.25, 0.5, 0.75)  # of a video, by its length
FEWEST_BITS = 12  # a picture without structure has fewer; it looks like every other one


def keep_looks(instance: Instance, path: Path, looked: Sequence[Media], report: Report) -> None:
    """Keep the hashes of a medium that has just been analysed, if any of its analyses is to be kept.

    Args:
        path: of the stored file.
        looked: the decoded medium, as `analyse` gave it to `on_media`.
    """
    if instance.settings.storage.seen_before == "off" or not looked or not looked[0].frames:
        return
    found = looks_of(looked[0], report)
    stored = sa.select(MediaRow.id).where(MediaRow.stored_name == f"{path.parent.name}/{path.name}")
    kept = sa.exists().where(DetectionRow.media_id == MediaRow.id, DetectionRow.expires_at.is_(None))
    with instance.database.write() as session:
        media_id = session.scalar(stored.where(kept))
        if media_id is not None:
            session.execute(sa.delete(PictureHashRow).where(PictureHashRow.media_id == media_id))
            for (part, number), look in found.items():
                session.add(PictureHashRow(media_id=media_id, part=part, number=number, look=f"{look:016x}"))


def looks_of(media: Media, report: Report) -> dict[tuple[str, int], int]:
    """The hashes of a medium: of its whole frames by their order, of its faces by their number."""
    from utils.phash import perceptual_hash  # brings OpenCV, which the web process does without

    last = len(media.frames) - 1
    frames = sorted({round(last * at) for at in FRAMES})
    found = {(WHOLE, number): perceptual_hash(media.frames[frame].pixels) for number, frame in enumerate(frames)}
    scale = media.frames[0].pixels.shape[1] / media.info.width
    for face in report.faces:
        if face.frames:
            middle = face.frames[len(face.frames) // 2]
            found[FACE, face.id] = perceptual_hash(_square(media.frames[middle.frame].pixels, middle.box.scaled(scale)))
    return {key: look for key, look in found.items() if FEWEST_BITS <= look.bit_count() <= 64 - FEWEST_BITS}


def _square(pixels: Pixels, box: Box) -> Pixels:
    """The square around a face, cut where the picture ends."""
    half = max(box.x1 - box.x0, box.y1 - box.y0) / 2
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    height, width = pixels.shape[:2]
    left, top = (int(max(0, round(at - half))) for at in (x, y))
    right, bottom = int(min(width, round(x + half))), int(min(height, round(y + half)))
    return np.ascontiguousarray(pixels[top : max(bottom, top + 1), left : max(right, left + 1)])
