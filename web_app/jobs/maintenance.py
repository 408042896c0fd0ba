"""What a worker does between jobs: delete what the retention period has ended, and the rows of dead workers."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass, field

import sqlalchemy as sa

from utils.log import get_logger
from web_app.db.models import DetectionRow, JobRow, JobState, WorkerRow, utc_now
from web_app.db.session import Database
from web_app.storage.detections import OnDelete, delete_detection, forget_nothing, forget_old_batches
from web_app.storage.files import MediaStore

INTERVAL_S = 600.0
FORGET_WORKERS = dt.timedelta(days=1)
FINAL_STATES = tuple(state for state in JobState if state.final)

log = get_logger(__name__)


@dataclass
class Maintenance:
    """Cleans up every ten minutes.

    Args:
        retention_days: age from which finished analyses are deleted with their files, and batches; 0 keeps them. What
            was derived from them to be learned stays.
        on_delete: called with the number of an analysis that was never to be kept, before it is deleted.
    """

    database: Database
    store: MediaStore
    retention_days: int
    on_delete: OnDelete = forget_nothing
    _due_at: float = field(default=0.0, init=False)

    def run_if_due(self) -> None:
        """Clean up if the last time is long enough ago."""
        if time.monotonic() >= self._due_at:
            self._due_at = time.monotonic() + INTERVAL_S
            self.run(utc_now())

    def run(self, now: dt.datetime) -> int:
        """Clean up as of `now`; returns how many analyses were deleted."""
        self.store.sweep_cut_off()
        with self.database.write() as session:
            session.execute(sa.delete(WorkerRow).where(WorkerRow.seen_at < now - FORGET_WORKERS))
        expired = self._delete_expired(now)
        if not self.retention_days:
            return expired
        before = now - dt.timedelta(days=self.retention_days)
        with self.database.read() as session:
            old = session.scalars(
                sa.select(JobRow.public_id).where(JobRow.created_at < before, JobRow.state.in_(FINAL_STATES))
            ).all()
        deleted = sum(delete_detection(self.database, self.store, public_id, forget_nothing) for public_id in old)
        with self.database.write() as session:
            forget_old_batches(session, before)
        if deleted:
            log.info("deleted %d analyses older than %d days", deleted, self.retention_days)
        return expired + deleted

    def _delete_expired(self, now: dt.datetime) -> int:
        """Delete analyses that were never to be kept, which their request deletes unless it dies in between."""
        with self.database.read() as session:
            ids = session.scalars(
                sa.select(JobRow.public_id)
                .join(DetectionRow, DetectionRow.job_id == JobRow.id)
                .where(DetectionRow.expires_at < now)
            ).all()
        return sum(delete_detection(self.database, self.store, public_id, self.on_delete) for public_id in ids)
