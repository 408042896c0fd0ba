"""Looking at media that feedback was given on: derived features and a perceptual hash, in the worker's idle moments.

What is learned from later is loaded from these files; the picture itself is not needed any more. They lie in
`instance/features/<sha256>/`, one file per face, and carry no picture; what was found stands in the medium's row.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.errors import TelltaleError
from utils.feedback.quarantine import VOICE
from utils.log import get_logger
from web_app.db.models import FeedbackRow, MediaRow, ReviewedMediumRow, utc_now
from web_app.feedback.votes import drop_features, find_medium, is_voice
from web_app.jobs.shared import Instance
from web_app.paths import InstancePaths

if TYPE_CHECKING:
    from web_app.feedback.learner import Learner

DECIDING = "deciding"
SPEECH_LEARNS_NOT = "The network of speech does not learn from feedback yet; the vote is kept and counted."
"""Of recordings that a release looked at in which they taught nothing."""
FACTS = "facts.json"  # beside the features in folders of before the row held it all
UNFORESEEN = "Looking at the file failed; the worker's log says why."
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
GONE = "The file was deleted before it could be looked at."

log = get_logger(__name__)


Found = tuple[str | None, dict[str, str]]
"""What is known of a medium: hash in hexadecimal digits, and per face an empty text or a reason."""


def feature_path(paths: InstancePaths, media_sha256: str, face: str) -> Path:
    """Where the features of a face lie, or of the voice."""
    name = face if face in (DECIDING, VOICE) else f"face-{int(face)}"
    return paths.features / media_sha256 / f"{name}.npz"


def examine_next(instance: Instance, learner: Learner) -> bool:
    """Look at one medium that nobody has looked at yet; False when there is none.

    Raises:
        OSError: the features cannot be written; the medium is looked at again later.
    """
    database, store, paths, experts = instance.database, instance.store, instance.paths, learner.fingerprint()
    of_voices = learner.voice_fingerprint()
    with database.read() as session:
        row = session.scalar(unexamined(experts, of_voices))
        if row is None:
            return False
        medium = find_medium(session, row.media_sha256)
        spoken = is_voice(medium, row.media_sha256)
        labels = session.scalars(sa.select(FeedbackRow.face_labels).where(FeedbackRow.media_sha256 == row.media_sha256))
        faces = sorted({face for each in labels for face in each}, key=int)
    path = None if medium is None else store.path(medium.stored_name)
    if path is not None and path.is_file():
        found = _look(path, row.media_sha256, [VOICE] if spoken else [DECIDING, *faces], paths, learner)
    else:
        found = _known(row, paths.features / row.media_sha256)
    experts = of_voices if spoken or VOICE in found[1] else experts
    with database.write() as session:
        _note(session, row.media_sha256, found, experts, paths)
    return True


def drop_orphans(instance: Instance) -> int:
    """Delete features of media that no vote is about any more, where another machine took the last one back."""
    folders = {folder.name: folder for folder in instance.paths.features.iterdir()}
    with instance.database.write() as session:
        spoken = set(session.scalars(sa.select(FeedbackRow.media_sha256).distinct()))
        for name in folders.keys() - spoken:
            shutil.rmtree(folders[name])
    return len(folders.keys() - spoken)


def _look(path: Path, media_sha256: str, faces: Sequence[str], paths: InstancePaths, learner: Learner) -> Found:
    (paths.features / media_sha256).mkdir(parents=True, exist_ok=True, mode=0o700)
    numbers = {None if face == DECIDING else face if face == VOICE else int(face): face for face in faces}
    try:
        prepared = learner.look(path, list(numbers))
    except TelltaleError as error:
        return None, dict.fromkeys(faces, error.detail)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise  # nothing is wrong with the medium; it is looked at when there is room again
        log.exception("looking at %s: an error that nobody foresaw", media_sha256[:12])
        return None, dict.fromkeys(faces, UNFORESEEN)  # trying again would stop the worker again and again
    features: dict[str, str] = {}
    for number, face in numbers.items():
        item = prepared.faces[number]
        if not isinstance(item, str):
            item.save(feature_path(paths, media_sha256, face))
        features[face] = item if isinstance(item, str) else ""
    return None if prepared.phash is None else f"{prepared.phash:016x}", features


def _known(row: ReviewedMediumRow, folder: Path) -> Found:
    """What was found earlier, for a medium whose file is gone: the row says it, or what lies on the disk."""
    if row.features is not None:
        return row.phash, {k: GONE if v == SPEECH_LEARNS_NOT else v for k, v in row.features.items()}
    facts = folder / FACTS
    try:
        if facts.exists():
            plain = json.loads(facts.read_text(encoding="utf-8"))
            return plain["phash"], dict(plain["features"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s of a deleted file cannot be read: %s", FACTS, error)
    kept = {path.stem.removeprefix("face-"): "" for path in sorted(folder.glob("*.npz"))}
    return None, kept if VOICE in kept else {DECIDING: GONE, **kept}


def _note(session: Session, media_sha256: str, found: Found, experts: str, paths: InstancePaths) -> None:
    if drop_features(session, paths, media_sha256):  # withdrawn meanwhile: nothing of it may stay
        return
    row = session.get_one(ReviewedMediumRow, media_sha256)
    row.phash, row.features = found
    row.domain_reason = found[1].get(DECIDING) or found[1].get(VOICE) or None
    row.experts, row.examined_at = experts, utc_now()
    # it can be asked about again
    checked = sa.and_(FeedbackRow.media_sha256 == media_sha256, FeedbackRow.checked_version.is_not(None))
    session.execute(sa.update(FeedbackRow).where(checked).values(checked_version="", checked_prediction=None))


def unexamined(experts: str, of_voices: str) -> sa.Select[ReviewedMediumRow]:
    """A medium with a vote that was not looked at, or by others than these networks while its file is still there.

    What is no file of its own is the voice of a video, which a worker of an earlier release takes for a deleted file.
    """
    spoken = sa.exists().where(FeedbackRow.media_sha256 == ReviewedMediumRow.media_sha256)
    stored = sa.exists().where(MediaRow.sha256 == ReviewedMediumRow.media_sha256)
    given_on = sa.exists().where(
        FeedbackRow.media_sha256 == ReviewedMediumRow.media_sha256, FeedbackRow.detection_id.is_not(None)
    )
    by, in_vain = ReviewedMediumRow.experts, ReviewedMediumRow.domain_reason == SPEECH_LEARNS_NOT
    of_file = sa.and_(stored, sa.or_(by.not_in((experts, of_voices)), in_vain))
    outdated = sa.or_(of_file, sa.and_(~stored, given_on, by != of_voices))
    return (
        sa.select(ReviewedMediumRow)
        .where(spoken, sa.or_(ReviewedMediumRow.examined_at.is_(None), outdated))
        .order_by(ReviewedMediumRow.media_sha256)
        .limit(1)
    )
