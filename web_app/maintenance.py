"""What a worker does between jobs: delete what the retention period has ended, and the rows of dead workers."""

from __future__ import annotations

import datetime as dt
import time

import sqlalchemy as sa

from utils.log import get_logger
from web_app.db.models import DetectionRow, JobRow, JobState, WorkerRow, utc_now
from web_app.feedback.votes import delete_analysis
from web_app.jobs.instance import Instance
from web_app.storage.detections import delete_detection, forget_old_batches

INTERVAL_S = 600.0
FORGET_WORKERS = dt.timedelta(days=1)
FINAL_STATES = tuple(state for state in JobState if state.final)

log = get_logger(__name__)


class Maintenance:
    """Cleans up every ten minutes: by the retention period, whose end deletes finished analyses with their files, and
    batches. What was derived from them to be learned stays.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._due_at = 0.0

    def run_if_due(self) -> None:
        """Clean up if the last time is long enough ago."""
        if time.monotonic() >= self._due_at:
            self._due_at = time.monotonic() + INTERVAL_S
            self.run(utc_now())

    def run(self, now: dt.datetime) -> int:
        """Clean up as of `now`; returns how many analyses were deleted."""
        database, store = self._instance.database, self._instance.store
        days = self._instance.settings.storage.retention_days
        store.sweep_cut_off()
        with database.write() as session:
            session.execute(sa.delete(WorkerRow).where(WorkerRow.seen_at < now - FORGET_WORKERS))
        # those that were never to be kept are deleted by their request, unless it dies in between
        expired = sa.select(JobRow.public_id).join(DetectionRow, DetectionRow.job_id == JobRow.id)
        with database.read() as session:
            ids = session.scalars(expired.where(DetectionRow.expires_at < now)).all()
        deleted = sum(delete_analysis(self._instance, public_id) for public_id in ids)
        if not days:
            return deleted
        before = now - dt.timedelta(days=days)
        with database.read() as session:
            old = session.scalars(
                sa.select(JobRow.public_id).where(JobRow.created_at < before, JobRow.state.in_(FINAL_STATES))
            ).all()
        outdated = sum(delete_detection(database, store, public_id) for public_id in old)
        with database.write() as session:
            forget_old_batches(session, before)
        if outdated:
            log.info("deleted %d analyses older than %d days", outdated, days)
        return deleted + outdated
