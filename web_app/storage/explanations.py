"""Close-ups of one face: asked for by a reader, computed by a worker, kept with the analysis and deleted with it.

A close-up is a job of the task `explain`. Its result holds the heatmaps as small grey-level PNGs and what became of the
verdict under changes; no picture of the person is in it.
"""

from __future__ import annotations

import base64
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.errors import NotAvailableError, NotFoundError
from web_app.db.models import EXPLAIN, CloseupRow, DetectionRow, JobRow, JobState


class Queue(Protocol):
    """What refuses more work when too much waits."""

    def require_room(self, session: Session) -> None: ...


def find_closeup(session: Session, row: DetectionRow, face: int) -> CloseupRow | None:
    """The close-up of a face, whatever its job's state."""
    return session.scalar(sa.select(CloseupRow).where(CloseupRow.detection_id == row.job_id, CloseupRow.face == face))


def require_face(row: DetectionRow, face: int) -> None:
    """Refuse a finished analysis without a face of this id.

    Raises:
        NotFoundError: it has none.
    """
    if face not in {found["id"] for found in (row.report or {}).get("faces", [])}:
        raise NotFoundError(f"The analysis has no face {face}.")


def request_closeup(session: Session, queue: Queue, row: DetectionRow, face: int, *, offered: bool) -> CloseupRow:
    """The close-up of a face, queued if it is not there or did not succeed.

    Args:
        session: a writing session.
        face: id of the face in its report.
        offered: the setting `[page] closeups`.

    Raises:
        NotFoundError: see `require_face`.
        NotAvailableError: close-ups are switched off.
        QueueFullError: too much is waiting.
    """
    require_face(row, face)
    known = find_closeup(session, row, face)
    if known is not None and known.job.state not in (JobState.FAILED, JobState.CANCELLED):
        return known
    if not offered:
        raise NotAvailableError("Close-ups are switched off on this server ([page] closeups).")
    queue.require_room(session)
    if known is not None:
        session.execute(sa.delete(JobRow).where(JobRow.id == known.job_id))
        session.expunge(known)
    payload = {"detection": row.job.public_id, "face": face}
    job = JobRow.new(EXPLAIN, payload)
    session.add(job)
    session.flush()
    closeup = CloseupRow(job_id=job.id, detection_id=row.job_id, face=face, job=job)
    session.add(closeup)
    session.flush()
    return closeup


def delete_closeups(session: Session, detection_id: int) -> None:
    """Delete the jobs behind an analysis's close-ups, and their results with them."""
    jobs = sa.select(CloseupRow.job_id).where(CloseupRow.detection_id == detection_id)
    session.execute(sa.delete(JobRow).where(JobRow.id.in_(jobs)))


def heatmap_png(closeup: CloseupRow | None, expert: str) -> bytes:
    """The heatmap of an expert as PNG.

    Raises:
        NotFoundError: there is none (yet).
    """
    result = (closeup.job.result if closeup is not None else None) or {}
    for found in result.get("maps", []):
        if found["expert"] == expert and found["png"]:
            return base64.b64decode(found["png"])
    raise NotFoundError("There is no heatmap of this face by this expert.")
