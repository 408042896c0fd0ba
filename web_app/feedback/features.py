"""Looking at media that feedback was given on: derived features and a perceptual hash, in the worker's idle moments.

What is learned from later is loaded from these files; the picture itself is not needed any more. They lie in
`instance/features/<sha256>/`, one file per face beside `facts.json`, and carry no picture.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.errors import TelltaleError
from utils.log import get_logger
from utils.weights import fsync_folder
from web_app.db.models import FeedbackRow, MediaRow, ReviewedMediumRow, utc_now
from web_app.db.session import Database
from web_app.paths import InstancePaths
from web_app.storage.files import MediaStore

DECIDING = "deciding"
FACTS = "facts.json"
UNFORESEEN = "Looking at the file failed; the worker's log says why."
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
GONE = "The file was deleted before it could be looked at."

log = get_logger(__name__)


class Item(Protocol):
    """Derived features of one face that can be stored."""

    def save(self, path: Path) -> None: ...


class Prepared(Protocol):
    """What looking at a medium gave: features or the reason why there are none, and its perceptual hash."""

    @property
    def item(self) -> Item | None: ...

    @property
    def reason(self) -> str: ...

    @property
    def phash(self) -> int | None: ...


Prepare = Callable[[Path, int | None], Prepared]
"""Looks at one face of a file: its number in the report, or None for the deciding one."""


@dataclass(frozen=True)
class Found:
    """What is known of a medium: hash in hexadecimal digits, and per face an empty text or a reason."""

    phash: str | None
    features: dict[str, str]

    @property
    def domain_reason(self) -> str | None:
        return self.features.get(DECIDING) or None


def feature_path(paths: InstancePaths, media_sha256: str, face: str) -> Path:
    """Where the features of a face lie."""
    name = face if face == DECIDING else f"face-{int(face)}"
    return paths.features / media_sha256 / f"{name}.npz"


class Examiner:
    """Looks at one medium after the other.

    Args:
        database: where the rows are.
        store: where the files are.
        paths: where the features go.
        prepare: looks at a face, with the networks that are loaded.
        fingerprint: of those networks; features of others are made anew while the file is there.
    """

    def __init__(
        self,
        database: Database,
        store: MediaStore,
        paths: InstancePaths,
        prepare: Prepare,
        fingerprint: Callable[[], str],
    ) -> None:
        self._database = database
        self._store = store
        self._paths = paths
        self._prepare = prepare
        self._fingerprint = fingerprint

    def examine_next(self) -> bool:
        """Look at one medium that nobody has looked at yet; False when there is none.

        Raises:
            OSError: the features cannot be written; the medium is looked at again later.
        """
        experts = self._fingerprint()
        with self._database.read() as session:
            media_sha256 = session.scalar(_unexamined(experts))
            if media_sha256 is None:
                return False
            medium = session.scalar(sa.select(MediaRow).where(MediaRow.sha256 == media_sha256))
            faces = sorted({face for labels in _labels(session, media_sha256) for face in labels}, key=int)
        path = None if medium is None else self._store.path(medium.stored_name)
        if path is not None and path.is_file():
            found = self._look(path, media_sha256, faces)
        else:
            found = self._known(media_sha256)
        self._note(media_sha256, found, experts)
        return True

    def _look(self, path: Path, media_sha256: str, faces: list[str]) -> Found:
        (self._paths.features / media_sha256).mkdir(parents=True, exist_ok=True, mode=0o700)
        features: dict[str, str] = {}
        phash: str | None = None
        for face in (DECIDING, *faces):
            try:
                prepared = self._prepare(path, None if face == DECIDING else int(face))
            except TelltaleError as error:
                features[face] = error.detail
                continue
            except Exception as error:
                if isinstance(error, OSError) and error.errno in NO_ROOM:
                    raise  # nothing is wrong with the medium; it is looked at when there is room again
                log.exception("looking at %s: an error that nobody foresaw", media_sha256[:12])
                features[face] = UNFORESEEN  # once; trying again would stop the worker again and again
                continue
            if prepared.item is not None:
                prepared.item.save(feature_path(self._paths, media_sha256, face))
            features[face] = "" if prepared.item is not None else prepared.reason
            if face == DECIDING and prepared.phash is not None:
                phash = f"{prepared.phash:016x}"
        found = Found(phash, features)
        partial = self._paths.features / media_sha256 / f"{FACTS}.tmp"
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps({"phash": found.phash, "features": found.features}))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(partial.with_name(FACTS))
        fsync_folder(partial.parent)
        return found

    def _known(self, media_sha256: str) -> Found:
        """What was found earlier, for a medium whose file is gone."""
        facts = self._paths.features / media_sha256 / FACTS
        if not facts.is_file():
            return Found(None, {DECIDING: GONE})
        try:
            plain = json.loads(facts.read_text(encoding="utf-8"))
            return Found(plain["phash"], dict(plain["features"]))
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s of a deleted file cannot be read: %s", facts.name, error)
            return Found(None, {DECIDING: GONE})

    def _note(self, media_sha256: str, found: Found, experts: str) -> None:
        folder = self._paths.features / media_sha256
        with self._database.write() as session:
            row = session.get(ReviewedMediumRow, media_sha256)
            voice = session.scalar(sa.select(FeedbackRow.id).where(FeedbackRow.media_sha256 == media_sha256).limit(1))
            if row is None or voice is None:  # withdrawn meanwhile: nothing of it may stay
                if folder.is_dir():
                    shutil.rmtree(folder)
                return
            row.phash, row.features, row.domain_reason = found.phash, found.features, found.domain_reason
            row.experts, row.examined_at = experts, utc_now()


def _unexamined(experts: str) -> sa.Select[str]:
    """A medium with a voice that was not looked at, or by other networks while its file is still there."""
    spoken = sa.exists().where(FeedbackRow.media_sha256 == ReviewedMediumRow.media_sha256)
    stored = sa.exists().where(MediaRow.sha256 == ReviewedMediumRow.media_sha256)
    outdated = sa.and_(ReviewedMediumRow.experts != experts, stored)
    return (
        sa.select(ReviewedMediumRow.media_sha256)
        .where(spoken, sa.or_(ReviewedMediumRow.examined_at.is_(None), outdated))
        .order_by(ReviewedMediumRow.media_sha256)
        .limit(1)
    )


def _labels(session: Session, media_sha256: str) -> list[dict[str, str]]:
    wanted = sa.select(FeedbackRow.face_labels).where(FeedbackRow.media_sha256 == media_sha256)
    return list(session.scalars(wanted))
