"""Finding and deleting analyses.

A file is complete on the disk before its row is written, and its row is gone before the file is deleted. A crash in
between leaves a file without a row at worst, never a row without a file; a start sweeps those away.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.log import get_logger
from web_app.db.models import BatchRow, CloseupRow, DeliveryRow, DetectionRow, JobRow, MediaRow
from web_app.db.session import Database
from web_app.storage.files import MediaStore

NAMED = ("name", "sha256")  # of a message's data: what tells which file it was
YOUNG_S = 600.0  # a file this young may be an upload whose row is being written

log = get_logger(__name__)


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
    """Take the names of a deleted analysis out of its owner's batches and messages; a batch goes with its last one.

    Args:
        session: a writing session, in which the analysis is gone already.
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
