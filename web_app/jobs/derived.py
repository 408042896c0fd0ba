"""What the worker keeps of an upload, right after its analysis: previews, the clean copy that is handed out, and looks.

Previews are made of what was decoded, so nothing else of the upload is in them: a thumbnail, the analysed frames of a
video or of a picture in a format that not every browser shows, the form of a sound. A clean copy has the same pixels,
frames and samples, and nothing else that the upload said; it is made in the confined child that decodes
(`utils.media.copy_media`), and an empty one means that none can be made.
Files from before there were copies, and those whose copy met a full disk, get theirs by a job when somebody asks.
Looks are hashes of 64 bits by which near copies are known again: of a picture the whole and each judged face, of a
video three frames and each person's face in the middle of their time. They tell neither what nor who is in a picture,
and go with its file; `[storage] seen_before` turns them off.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import sqlalchemy as sa

from utils.errors import MediaError, NotFoundError, StorageFullError
from utils.log import get_logger
from utils.media import ForkServer, copy_media
from utils.types import Floats, Media, MediaKind, Pixels, Report
from web_app.db.models import DetectionRow, MediaRow, PictureHashRow
from web_app.jobs.queue import Claim
from web_app.jobs.shared import Instance
from web_app.storage.files import CLEAN_SUFFIX, FRAMES_SUFFIX, THUMBNAIL_SUFFIX, write_beside

if TYPE_CHECKING:
    from utils.detection.people import People

THUMBNAIL_PX, THUMBNAIL_QUALITY = 160, 78
FRAME_PX, FRAME_QUALITY = 640, 70
MOST_FRAMES = 32
WAVEFORM_PARTS = 600
SHOWN = frozenset(("jpeg", "png", "webp"))
"""The formats that every browser shows; of others a small picture of the decoded pixels is kept beside the copy."""
BACKGROUND, INK = (232, 236, 240), (63, 76, 90)  # RGB; slate, as in the style sheet
DAMAGED = "truncated"  # the decoder's notice
WHOLE, FACE = PictureHashRow.WHOLE, PictureHashRow.FACE
FRAMES = (0.25, 0.5, 0.75)  # of a video, by its length
FEWEST_BITS = 12  # a picture without structure has fewer; it looks like every other one

Looks = dict[tuple[str, int], int]
"""Hashes of whole frames by their order, of faces by their number in the report."""

log = get_logger(__name__)


def keep_previews(path: Path, media: Media) -> None:
    """Store the frame in the middle, or the form of the sound, as the thumbnail, and what the page shows over time."""
    form = [] if media.samples is None else waveform(media.samples)
    middle = media.frames[len(media.frames) // 2].pixels if media.frames else _drawn(form)
    thumbnail = _jpeg(middle, THUMBNAIL_PX, THUMBNAIL_QUALITY)
    write_beside(path, THUMBNAIL_SUFFIX, lambda file: file.write(thumbnail))
    if media.info.kind is not MediaKind.IMAGE or media.info.format not in SHOWN:
        step = max(1, -(-len(media.frames) // MOST_FRAMES))
        frames = [
            {
                "time_s": round(frame.time_s, 6),
                "jpeg": base64.b64encode(_jpeg(frame.pixels, FRAME_PX, FRAME_QUALITY)).decode(),
            }
            for frame in media.frames[::step]
        ]
        kept = json.dumps({"frames": frames, "waveform": form}).encode()
        write_beside(path, FRAMES_SUFFIX, lambda file: file.write(kept))


def waveform(samples: Floats) -> list[float]:
    """The loudest sample of each of `WAVEFORM_PARTS` equal parts of a sound, 0..1; of fewer where it is that short."""
    parts = min(WAVEFORM_PARTS, len(samples))
    starts = np.linspace(0, len(samples), parts, endpoint=False).astype(int)
    return [round(float(peak), 3) for peak in np.maximum.reduceat(np.abs(samples), starts)] if parts else []


def _drawn(form: list[float]) -> Pixels:
    """The form of a sound as a picture of 3 to 2."""
    height, width = THUMBNAIL_PX * 2 // 3, THUMBNAIL_PX
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    for x in range(2, width - 2, 3):
        peak = form[x * len(form) // width] if form else 0.0
        half = max(1, round(peak * (height / 2 - 6)))
        picture[height // 2 - half : height // 2 + half, x : x + 2] = INK
    return picture


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


class CleanCopies:
    """Makes copies in the worker; `decoders` says where the confined children come from at present."""

    def __init__(self, instance: Instance, decoders: Callable[[], ForkServer | None]) -> None:
        self._settings, self._database, self._store = instance.settings, instance.database, instance.store
        self._decoders = decoders

    def keep(self, path: Path, report: Report) -> None:
        """Make the copy of a file that has just been analysed, if any of its analyses is to be kept."""
        stored_name = f"{path.parent.name}/{path.name}"
        kept = sa.select(DetectionRow.job_id).join(DetectionRow.media)
        with self._database.read() as session:
            if session.scalar(
                kept.where(MediaRow.stored_name == stored_name, DetectionRow.expires_at.is_(None)).limit(1)
            ):
                damaged = report.media.kind is MediaKind.VIDEO and DAMAGED in {n.code for n in report.notices}
                self._make(path, damaged=damaged)

    def handle(self, claim: Claim, _: object) -> dict[str, Any]:
        """Run a job of the task `copy`.

        Raises:
            NotFoundError: the medium was deleted.
            StorageFullError: the disk has no room for the copy.
        """
        with self._database.read() as session:
            media = session.scalar(sa.select(MediaRow).where(MediaRow.sha256 == claim.payload["media"]))
            if media is None:
                raise NotFoundError("The medium was deleted.")
            reports = session.scalars(sa.select(DetectionRow.report).where(DetectionRow.media_id == media.id)).all()
        known = [report for report in reports if report]
        notices = {notice["code"] for report in known for notice in report.get("notices", [])}
        doubtful = not known or DAMAGED in notices  # what no analysis has read to its end may be damaged
        if not self._make(self._store.path(media.stored_name), damaged=media.kind == MediaKind.VIDEO and doubtful):
            raise StorageFullError("There is no room for the copy without metadata.")
        self._store.share(media.stored_name, media.mime)
        return {}

    def _make(self, path: Path, *, damaged: bool) -> bool:
        """Make a copy that is not there yet; False when the disk does not take it."""

        def fill(file: BinaryIO) -> None:
            if not damaged:
                self._write(path, file)
            file.flush()
            os.fsync(file.fileno())

        if path.with_name(path.name + CLEAN_SUFFIX).exists() or not path.exists():
            return True
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            if not self._store.has_room(path.stat().st_size):
                log.warning("no clean copy was stored: too little room would be left")
                return False
        return write_beside(path, CLEAN_SUFFIX, fill)

    def _write(self, path: Path, file: BinaryIO) -> None:
        try:
            copy_media(path, file, self._settings.media, self._settings.sandbox, self._decoders())
        except (MediaError, NotFoundError) as error:
            log.info("no clean copy can be made: %s", error.code)
            file.truncate(0)


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
    """Keep the hashes of a stored file that has just been analysed, if any of its analyses is to be kept."""
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
