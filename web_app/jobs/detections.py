"""Analyses: made of uploads, found, and deleted.

The same bytes from the same caller under the same networks and settings are analysed only once. A client that lost the
answer may send its request again and gets the same analysis. `Idempotency-Key` makes that hold for any request; without
it the content decides. A failed or cancelled analysis is made anew.

A file is complete on the disk before its row is written, and its row is gone before the file is deleted. A crash in
between leaves a file without a row at worst, never a row without a file; a start sweeps those away.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from utils.config import REPLAYED, Settings
from utils.errors import BadRequestError, IdempotencyError, UnavailableError
from utils.log import get_logger
from utils.weights import current_speech
from web_app.db.models import ANALYSE, BatchRow, CloseupRow, DeliveryRow, DetectionRow, JobRow, JobState, MediaRow
from web_app.db.session import Database
from web_app.jobs.shared import Instance
from web_app.storage.files import MediaStore
from web_app.storage.upload import Upload

MAX_KEY_CHARACTERS = 255
TRIES = 3  # the same bytes may be uploaded or deleted by somebody else at this very moment
NAMED = ("name", "sha256")  # of a message's data: what tells which file it was
YOUNG_S = 600.0  # a file this young may be an upload whose row is being written

log = get_logger(__name__)


@dataclass(frozen=True)
class UploadOptions:
    """How an upload is to be treated.

    Args:
        conditions: fingerprint of the networks and settings that would answer now; None never reuses an analysis.
        expires_at: when the analysis is deleted by itself; None keeps it.
    """

    conditions: str | None = None
    key: str | None = None
    again: bool = False
    expires_at: dt.datetime | None = None

    def reuse_key(self, client_id: str, sha256: str) -> str | None:
        """What two uploads have in common that may share an analysis, 64 hexadecimal digits."""
        return None if self.conditions is None else _digest(client_id, sha256, self.conditions)

    def idempotency_key(self) -> str | None:
        """The caller's key as it is stored, 64 hexadecimal digits."""
        return None if self.key is None else _digest("key", self.key)


def conditions_of(settings: Settings, version: str | None) -> str:
    """Fingerprint of what a score depends on beside the file: the version of the networks, and settings."""
    values = {name: getattr(getattr(settings, section), name) for section, names in REPLAYED.items() for name in names}
    if speech := current_speech(settings):
        values["speech"] = speech
    return _digest(version or "", json.dumps(values, sort_keys=True))


def check_key(untrusted_key: str | None) -> str | None:
    """The header Idempotency-Key, or None without one.

    Raises:
        BadRequestError: it is empty, too long or not printable.
    """
    if untrusted_key is None:
        return None
    if not 0 < len(untrusted_key) <= MAX_KEY_CHARACTERS or not untrusted_key.isprintable():
        raise BadRequestError(f"Idempotency-Key must hold 1 to {MAX_KEY_CHARACTERS} printable characters.")
    return untrusted_key


def find_earlier(session: Session, client_id: str, sha256: str, options: UploadOptions) -> DetectionRow | None:
    """The analysis that answers this upload already.

    Raises:
        IdempotencyError: the key belongs to an upload of another file.
    """
    own = sa.select(DetectionRow).join(DetectionRow.job).where(DetectionRow.client_id == client_id)
    stored_key = options.idempotency_key()
    if stored_key is not None:
        earlier = session.scalar(own.where(DetectionRow.idempotency_key == stored_key))
        if earlier is not None:
            if earlier.media.sha256 != sha256:
                raise IdempotencyError("The key came with another file before.", id=earlier.job.public_id)
            return earlier
    reuse_key = options.reuse_key(client_id, sha256)
    if options.again or reuse_key is None:
        return None
    alive = JobRow.state.in_((JobState.QUEUED, JobState.RUNNING, JobState.DONE))
    return session.scalar(own.where(DetectionRow.reuse_key == reuse_key, alive).order_by(JobRow.id.desc()).limit(1))


@dataclass(frozen=True)
class Queued:
    """The analysis of an upload; `repeated` when it is an earlier one of the same upload."""

    public_id: str
    repeated: bool
    kept_name: str


def queue_upload(instance: Instance, upload: Upload, client_id: str, options: UploadOptions) -> Queued:
    """Queue the analysis of a stored upload, or find the earlier one; bytes that are known already are kept once.

    Raises:
        QueueFullError: too much is waiting; the file is deleted again.
        IdempotencyError: the caller's key belongs to another file; the file is deleted again.
        UnavailableError: others kept changing the same medium.
    """
    try:
        for _ in range(TRIES):
            try:
                queued = _insert(instance, upload, client_id, options)
            except IntegrityError:
                continue
            if queued.kept_name != upload.file.name:
                instance.store.remove(upload.file.name)
            return queued
        raise UnavailableError("Another request was changing the same file.")
    except BaseException:
        instance.store.remove(upload.file.name)
        raise


def _insert(instance: Instance, upload: Upload, client_id: str, options: UploadOptions) -> Queued:
    with instance.database.write() as session:
        earlier = find_earlier(session, client_id, upload.file.sha256, options)
        media = session.scalar(sa.select(MediaRow).where(MediaRow.sha256 == upload.file.sha256))
        if media is None:
            media = MediaRow(
                sha256=upload.file.sha256,
                size_bytes=upload.file.size_bytes,
                format=upload.file.format.name,
                mime=upload.file.format.mime,
                kind=upload.file.format.kind.value,
                stored_name=upload.file.name,
            )
            session.add(media)
            session.flush()
        elif instance.store.size(media.stored_name) is None:  # deleted by hand; the new copy heals the row
            media.stored_name = upload.file.name
        if earlier is not None:
            return Queued(earlier.job.public_id, True, media.stored_name)
        instance.queue.require_room(session)
        job = instance.queue.open(session, ANALYSE, kind=media.kind)
        detection = DetectionRow(
            job_id=job.id,
            media_id=media.id,
            media_kind=media.kind,
            client_id=client_id,
            display_name=upload.display_name,
            notices=[{"code": each.code, "text": each.text} for each in upload.notices],
            reuse_key=options.reuse_key(client_id, upload.file.sha256),
            idempotency_key=options.idempotency_key(),
            expires_at=options.expires_at,
        )
        session.add(detection)
        return Queued(job.public_id, False, media.stored_name)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def find_detection(session: Session, public_id: str) -> DetectionRow | None:
    """The detection with this public id, its job and medium loaded."""
    return session.scalar(sa.select(DetectionRow).join(DetectionRow.job).where(JobRow.public_id == public_id))


def delete_detection(database: Database, store: MediaStore, public_id: str) -> bool:
    """Delete an analysis with its report, and the file if no other uses it, not the votes on it; False without one."""
    with database.write() as session:
        row = find_detection(session, public_id)
        if row is None:
            return False
        media, owner = row.media, row.client_id
        closeups = sa.select(CloseupRow.job_id).where(CloseupRow.detection_id == row.job_id)
        session.execute(sa.delete(JobRow).where(JobRow.id.in_(closeups)))
        session.execute(sa.delete(JobRow).where(JobRow.id == row.job_id))  # the rest follows by the foreign keys
        forget_names(session, public_id, owner)
        others = sa.exists().where(DetectionRow.media_id == media.id)
        removed = session.execute(
            sa.delete(MediaRow).where(MediaRow.id == media.id, ~others).returning(MediaRow.stored_name)
        ).scalar_one_or_none()
    if removed is not None:
        store.remove(removed)
    return True


def forget_names(session: Session, public_id: str, owner: str) -> None:
    """Take the names of an analysis that has gone from its owner's batches and messages; a batch goes with its last."""
    for message in session.scalars(sa.select(DeliveryRow).where(DeliveryRow.job_public_id == public_id)):
        kept = {key: None if key in NAMED else value for key, value in message.payload["data"].items()}
        message.payload = {**message.payload, "data": kept}
    batches = sa.select(BatchRow).where(
        BatchRow.client_id == owner, sa.cast(BatchRow.items, sa.Text).contains(public_id, autoescape=True)
    )
    for batch in session.scalars(batches):
        ids = [item["id"] for item in batch.items if item["id"] is not None]
        if session.scalar(sa.select(JobRow.id).where(JobRow.public_id.in_(ids)).limit(1)) is not None:
            batch.items = [{**item, "name": ""} if item["id"] == public_id else item for item in batch.items]
        else:
            session.delete(batch)


def sweep_without_row(database: Database, store: MediaStore) -> int:
    """Delete files that no row knows, except young ones, and what was made of files that are gone; gives how many."""
    old = {name for name, written in store.files() if abs(time.time() - written) > YOUNG_S}
    with database.read() as session:  # after the names, so that a new file is not taken for one without a row
        unknown = old - set(session.scalars(sa.select(MediaRow.stored_name)))
    for name in unknown:
        store.remove(name)
    for derived in store.derived():
        if not derived.with_suffix("").exists():
            derived.unlink(missing_ok=True)
    if unknown:
        log.info("deleted %d files that no analysis refers to", len(unknown))
    return len(unknown)
