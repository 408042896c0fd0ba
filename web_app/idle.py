"""What a worker does between jobs: delete what the retention period has ended; look at media, judge votes, train."""

from __future__ import annotations

import datetime as dt
import time

import sqlalchemy as sa

from utils.errors import ConflictError, TelltaleError
from utils.feedback.versions import recover, serving
from utils.log import get_logger
from utils.weights import SPEECH_FOLDER, current_version, has_speech, weights_root
from web_app.db.models import FINAL, BatchRow, DetectionRow, JobRow, WorkerRow, utc_now
from web_app.db.names import forget_dropped
from web_app.feedback.features import drop_orphans, examine_next
from web_app.feedback.learner import Learner
from web_app.feedback.rulings import judge
from web_app.feedback.training import queue_check, start_if_due
from web_app.feedback.votes import delete_analysis
from web_app.jobs.detections import delete_detection
from web_app.jobs.shared import Instance

INTERVAL_S = 600.0
REST_S = 30.0  # of the learning, after a version that was deleted, or a full disk
REST = 20.0  # times as long as judging all votes has taken, until they are judged again
FORGET_WORKERS = dt.timedelta(days=1)

log = get_logger(__name__)


class Maintenance:
    """Cleans up every ten minutes: by the retention period, whose end deletes finished analyses with their files, and
    batches. What was derived from them to be learned stays.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._due_at = 0.0

    def run_if_due(self) -> None:
        if time.monotonic() >= self._due_at:
            self._due_at = time.monotonic() + INTERVAL_S
            self.run(utc_now())

    def run(self, now: dt.datetime) -> int:
        """Clean up as of `now`; returns how many analyses were deleted."""
        database, store = self._instance.database, self._instance.store
        days = self._instance.settings.storage.retention_days
        store.sweep_cut_off()
        if self._instance.shared.on:
            drop_orphans(self._instance)
        with database.write() as session:
            session.execute(sa.delete(WorkerRow).where(WorkerRow.seen_at < now - FORGET_WORKERS))
        # those that were never to be kept are deleted by their request, unless it dies in between
        expired = sa.select(JobRow.public_id).join(DetectionRow, DetectionRow.job_id == JobRow.id)
        with database.read() as session:
            ids = session.scalars(expired.where(DetectionRow.expires_at < now)).all()
        deleted = sum(delete_analysis(self._instance, public_id) for public_id in ids)
        forget_dropped(database)
        if not days:
            return deleted
        before = now - dt.timedelta(days=days)
        with database.read() as session:
            old = session.scalars(
                sa.select(JobRow.public_id).where(JobRow.created_at < before, JobRow.state.in_(FINAL))
            ).all()
        outdated = sum(delete_detection(database, store, public_id) for public_id in old)
        with database.write() as session:
            session.execute(sa.delete(BatchRow).where(BatchRow.created_at < before))
        if outdated:
            log.info("deleted %d analyses older than %d days", outdated, days)
        return deleted + outdated


class LearningTasks:
    """The learning's part of one worker."""

    def __init__(self, instance: Instance, learner: Learner) -> None:
        self._instance = instance
        self._learner = learner
        self._rest_until = self._judge_at = 0.0

    def when_idle(self) -> None:
        """Look at one medium, judge, start what is due: a training, or a check of all corrections."""
        if time.monotonic() < self._rest_until:
            return
        try:
            looked = examine_next(self._instance, self._learner)
            started = time.monotonic()
            if started >= self._judge_at:
                judge(self._instance)
                self._judge_at = time.monotonic() + REST * (time.monotonic() - started)
            served = serving(weights_root(self._instance.settings))
            start_if_due(self._instance, served, all_prepared=not looked)
            if not looked:
                queue_check(self._instance, current_version(self._instance.settings))
        except (TelltaleError, OSError) as error:
            log.warning("learning rests for %.0f s: %s", REST_S, error)
            self._rest_until = time.monotonic() + REST_S


def recover_versions(instance: Instance) -> None:
    """Finish or undo what a killed worker left of a training or a promotion."""
    root = weights_root(instance.settings)
    if not root.is_dir():
        return  # loading says what is missing
    try:
        with instance.shared.acting():
            recover(root, instance.paths.training_history)
            if has_speech(root):
                recover(root / SPEECH_FOLDER, instance.paths.speech_history)
    except ConflictError:
        log.info("another worker trains at the moment; it leaves nothing to put right")
    except PermissionError as error:
        log.warning("the folder of weights cannot be written, so nothing can be learned: %s", error)
