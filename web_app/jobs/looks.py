"""What pictures look like, in 64 bits each, so that near copies are known again: hashes that the worker keeps.

Of a picture the whole and each judged face are kept, of a video three frames and each person's face in the middle of
their time. They are made while the pixels are there, and stored once the analysis has succeeded. A hash tells neither
what nor who is in a picture. It goes with its file; `[storage] seen_before` turns it off.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa

from utils.types import Media
from web_app.db.models import DetectionRow, MediaRow, PictureHashRow
from web_app.jobs.instance import Instance

if TYPE_CHECKING:
    from utils.detection.people import People

WHOLE, FACE = "whole", "face"
FRAMES = (0.25, 0.5, 0.75)  # of a video, by its length
FEWEST_BITS = 12  # a picture without structure has fewer; it looks like every other one

Looks = dict[tuple[str, int], int]
"""Hashes of whole frames by their order, of faces by their number in the report."""


def whole_looks(media: Media) -> Looks:
    """What a medium looks like; nothing for sound."""
    from utils.phash import perceptual_hash  # brings OpenCV, which the web process does without

    frames = sorted({round((len(media.frames) - 1) * at) for at in FRAMES}) if media.frames else []
    return {(WHOLE, number): perceptual_hash(media.frames[frame].pixels) for number, frame in enumerate(frames)}


def face_looks(people: People) -> Looks:
    """What the faces look like: the square of each face's box, out of what the networks saw."""
    from utils.faces.crops import crop_square
    from utils.phash import perceptual_hash

    found: Looks = {}
    for person in people.judged:
        crop = person.crops[len(person.crops) // 2]
        height, width = crop.pixels.shape[:2]
        square = crop_square(crop.box, width, height, 1.0)
        x0, y0, x1, y1 = (int(edge) for edge in (square.x0, square.y0, square.x1, square.y1))
        found[FACE, person.track.id] = perceptual_hash(np.ascontiguousarray(crop.pixels[y0:y1, x0:x1]))
    return found


def keep_looks(instance: Instance, path: Path, looks: Mapping[tuple[str, int], int]) -> None:
    """Keep the hashes of a medium that has just been analysed, if any of its analyses is to be kept.

    Args:
        path: of the stored file.
    """
    if instance.settings.storage.seen_before == "off":
        return
    stored = sa.select(MediaRow.id).where(MediaRow.stored_name == f"{path.parent.name}/{path.name}")
    kept = sa.exists().where(DetectionRow.media_id == MediaRow.id, DetectionRow.expires_at.is_(None))
    with instance.database.write() as session:
        media_id = session.scalar(stored.where(kept))
        if media_id is not None:
            session.execute(sa.delete(PictureHashRow).where(PictureHashRow.media_id == media_id))
            for (part, number), look in looks.items():
                if FEWEST_BITS <= look.bit_count() <= 64 - FEWEST_BITS:
                    session.add(PictureHashRow(media_id=media_id, part=part, number=number, look=f"{look:016x}"))
