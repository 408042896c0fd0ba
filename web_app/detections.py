"""Making and deleting analyses: the two places where the store and the database must agree.

A file is complete on the disk before its row is written, and its row is gone before the file is deleted. A crash in
between leaves a file without a row at worst, never a row without a file.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from utils.errors import UnavailableError
from utils.types import Notice
from web_app.db import Database, DetectionRow, JobRow, MediaRow
from web_app.jobs.queue import JobQueue
from web_app.store import MediaStore
from web_app.uploads import Upload

TRIES = 3  # the same bytes may be uploaded or deleted by somebody else at this very moment


def add_detection(queue: JobQueue, store: MediaStore, upload: Upload, client_id: str) -> str:
    """Queue the analysis of a stored upload; bytes that are known already are kept once.

    Returns:
        The public id.

    Raises:
        QueueFullError: too much is waiting; the file is deleted again.
        UnavailableError: others kept changing the same medium.
    """
    try:
        for _ in range(TRIES):
            try:
                public_id, kept_name = _insert(queue, store, upload, client_id)
            except IntegrityError:
                continue
            if kept_name != upload.file.name:
                store.remove(upload.file.name)
            return public_id
        raise UnavailableError("Another request was changing the same file.")
    except BaseException:
        store.remove(upload.file.name)
        raise


def _insert(queue: JobQueue, store: MediaStore, upload: Upload, client_id: str) -> tuple[str, str]:
    with queue.database.write() as session:
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
        job = queue.add(
            session,
            media,
            {
                "client_id": client_id,
                "display_name": upload.display_name,
                "notices": [_notice(notice) for notice in upload.notices],
            },
        )
        return job.public_id, media.stored_name


def _notice(notice: Notice) -> dict[str, str]:
    return {"code": notice.code, "text": notice.text}


def find_detection(session: Session, public_id: str) -> DetectionRow | None:
    """The detection with this public id, its job and medium loaded."""
    return session.scalar(sa.select(DetectionRow).join(DetectionRow.job).where(JobRow.public_id == public_id))


def delete_detection(database: Database, store: MediaStore, public_id: str) -> bool:
    """Delete an analysis with its report and feedback, and the file if nobody else's analysis uses it.

    Returns:
        False when there is no such analysis.
    """
    with database.write() as session:
        row = find_detection(session, public_id)
        if row is None:
            return False
        media = row.media
        session.execute(sa.delete(JobRow).where(JobRow.id == row.job_id))  # the rest follows by the foreign keys
        others = sa.exists().where(DetectionRow.media_id == media.id)
        removed = session.execute(
            sa.delete(MediaRow).where(MediaRow.id == media.id, ~others).returning(MediaRow.stored_name)
        ).scalar_one_or_none()
    if removed is not None:
        store.remove(removed)
    return True
