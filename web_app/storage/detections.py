"""Making and deleting analyses: the two places where the store and the database must agree.

A file is complete on the disk before its row is written, and its row is gone before the file is deleted. A crash in
between leaves a file without a row at worst, never a row without a file; a start sweeps those away.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from utils.errors import UnavailableError
from utils.log import get_logger
from utils.types import Notice
from web_app.db.models import BatchRow, CloseupRow, DeliveryRow, DetectionRow, JobRow, MediaRow
from web_app.db.session import Database
from web_app.storage.files import MediaStore
from web_app.storage.idempotency import UploadOptions, find_earlier

if TYPE_CHECKING:
    from web_app.storage.upload import Upload

OnDelete = Callable[[int], object]
"""Called with the number of an analysis before it is deleted: by it others forget what they know of it."""
NAMED = ("name", "sha256")  # of a message's data: what tells which file it was
YOUNG_S = 600.0  # a file this young may be an upload whose row is being written
TRIES = 3  # the same bytes may be uploaded or deleted by somebody else at this very moment

log = get_logger(__name__)


class Queue(Protocol):
    """What takes new analyses, and refuses them when too many wait."""

    database: Database

    def add(self, session: Session, media: MediaRow, detection: dict[str, Any]) -> JobRow: ...


@dataclass(frozen=True)
class Queued:
    """The analysis of an upload; `repeated` when it is an earlier one of the same upload."""

    public_id: str
    repeated: bool
    kept_name: str


def queue_upload(queue: Queue, store: MediaStore, upload: Upload, client_id: str, options: UploadOptions) -> Queued:
    """Queue the analysis of a stored upload, or find the earlier one; bytes that are known already are kept once.

    Raises:
        QueueFullError: too much is waiting; the file is deleted again.
        IdempotencyError: the caller's key belongs to another file; the file is deleted again.
        UnavailableError: others kept changing the same medium.
    """
    try:
        for _ in range(TRIES):
            try:
                queued = _insert(queue, store, upload, client_id, options)
            except IntegrityError:
                continue
            if queued.kept_name != upload.file.name:
                store.remove(upload.file.name)
            return queued
        raise UnavailableError("Another request was changing the same file.")
    except BaseException:
        store.remove(upload.file.name)
        raise


def _insert(queue: Queue, store: MediaStore, upload: Upload, client_id: str, options: UploadOptions) -> Queued:
    with queue.database.write() as session:
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
        elif not store.path(media.stored_name).is_file():  # somebody deleted it by hand; the new copy heals the row
            media.stored_name = upload.file.name
        if earlier is not None:
            return Queued(earlier.job.public_id, True, media.stored_name)
        job = queue.add(
            session,
            media,
            {
                "client_id": client_id,
                "display_name": upload.display_name,
                "notices": [_notice(notice) for notice in upload.notices],
                "reuse_key": options.reuse_key(client_id, upload.file.sha256),
                "idempotency_key": options.idempotency_key(),
                "expires_at": options.expires_at,
            },
        )
        return Queued(job.public_id, False, media.stored_name)


def _notice(notice: Notice) -> dict[str, str]:
    return {"code": notice.code, "text": notice.text}


def find_detection(session: Session, public_id: str) -> DetectionRow | None:
    """The detection with this public id, its job and medium loaded."""
    return session.scalar(sa.select(DetectionRow).join(DetectionRow.job).where(JobRow.public_id == public_id))


def forget_nothing(_job_id: int) -> None:
    """For analyses that have become too old: feedback on them and what was derived for it stay, to be learned from."""


def delete_detection(database: Database, store: MediaStore, public_id: str, on_delete: OnDelete) -> bool:
    """Delete an analysis with its report, and the file if nobody else's analysis uses it.

    Returns:
        False when there is no such analysis.
    """
    with database.read() as session:
        found = find_detection(session, public_id)
    if found is not None:
        on_delete(found.job_id)
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
    """Take the names of a deleted analysis out of its owner's batches and messages; a batch goes with its last one.

    Args:
        session: a writing session, in which the analysis is gone already.
        owner: its client id.
    """
    for message in session.scalars(sa.select(DeliveryRow).where(DeliveryRow.job_public_id == public_id)):
        kept = {key: None if key in NAMED else value for key, value in message.payload["data"].items()}
        message.payload = {**message.payload, "data": kept}
    batches = sa.select(BatchRow).where(
        BatchRow.client_id == owner, sa.cast(BatchRow.items, sa.Text).contains(public_id, autoescape=True)
    )
    for batch in session.scalars(batches):
        if _anything_left(session, batch.items):
            batch.items = [{**item, "name": ""} if item["id"] == public_id else item for item in batch.items]
        else:
            session.delete(batch)


def forget_old_batches(session: Session, before: dt.datetime) -> None:
    """Delete batches from before a moment, also those whose files were all refused."""
    session.execute(sa.delete(BatchRow).where(BatchRow.created_at < before))


def _anything_left(session: Session, items: list[dict[str, Any]]) -> bool:
    ids = [item["id"] for item in items if item["id"] is not None]
    return session.scalar(sa.select(JobRow.id).where(JobRow.public_id.in_(ids)).limit(1)) is not None


def sweep_without_row(database: Database, store: MediaStore) -> int:
    """Delete files that no row knows, except young ones, and what was made of files that are gone.

    Returns:
        How many files had no row.
    """
    old = {name for name, status in store.files() if abs(time.time() - status.st_mtime) > YOUNG_S}
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
