"""A worker's loop: claim a job, keep its lease alive, analyse, store the outcome, look again.

The analysis itself is a function that the caller hands in, so that this file knows neither networks nor decoders.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from utils.config import Settings
from utils.errors import JobCancelledError, TelltaleError
from utils.log import get_logger
from utils.types import Report
from web_app.db import Database, WorkerRow, utc_now
from web_app.jobs.housekeeping import Housekeeper
from web_app.jobs.queue import Claim, JobQueue
from web_app.paths import InstancePaths
from web_app.store import MediaStore

Progress = Callable[[str, float], None]
Analyse = Callable[[Path, Progress], Report]

PROGRESS_INTERVAL_S = 0.2  # people do not see more, and each note is a write to the disk
BEATS_PER_LEASE = 3
LONGEST_BEAT_S = 5.0  # /api/ready calls a worker lost after three of these
DATABASE_TRIES = 5  # each waits for the lock as long as the busy time-out

log = get_logger(__name__)


class StoppingError(JobCancelledError):
    """The worker was asked to stop in the middle of a job, which goes back to the queue."""


def run_worker(
    settings: Settings,
    analyse: Analyse,
    stop: threading.Event,
    *,
    worker_id: str | None = None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Run jobs until `stop` is set; an analysis under way is then interrupted at its next progress call.

    Args:
        settings: the whole configuration; lease and poll interval come from `[jobs]`.
        analyse: path and progress callback to report; raises TelltaleError for a medium that cannot be analysed.
        stop: set by a signal handler or a test.
        worker_id: name in the database, unique among living workers; None makes one.
        facts: what this worker says of itself in `/api/ready` (model version, sandbox level, experts).
    """
    worker_id = worker_id or f"worker-{os.getpid()}-{time.time_ns():x}"
    database = Database.of(settings)
    store = MediaStore(InstancePaths.of(settings).uploads, settings.media.max_file_mb * 1_000_000)
    queue = JobQueue(database, settings.jobs)
    housekeeper = Housekeeper(database, store, settings.storage.retention_days)
    presence = Presence(database, worker_id, facts or {}, beat_s(settings))
    try:
        with presence:
            log.info("worker %s is ready", worker_id)
            while not stop.is_set():
                if not _work_once(queue, store, analyse, stop, worker_id):
                    with _patience("clean up"):
                        housekeeper.run_if_due()
                    stop.wait(settings.jobs.poll_s)
    finally:
        database.close()
    log.info("worker %s has stopped", worker_id)


def beat_s(settings: Settings) -> float:
    """Seconds between two signs of life of a worker."""
    return min(settings.jobs.lease_s / BEATS_PER_LEASE, LONGEST_BEAT_S)


class Presence:
    """A thread that shows the worker alive in its row and renews the lease of the job in its hands.

    It has its own pace, because a long stage of an analysis may not call progress for minutes.
    """

    def __init__(self, database: Database, worker_id: str, facts: dict[str, Any], interval_s: float) -> None:
        self._database = database
        self._worker_id = worker_id
        self._facts = facts
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def __enter__(self) -> Presence:
        with self._database.write() as session:
            session.merge(WorkerRow(id=self._worker_id, pid=os.getpid(), facts=self._facts, seen_at=utc_now()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with _patience("sign off"), self._database.write() as session:
            session.execute(sa.delete(WorkerRow).where(WorkerRow.id == self._worker_id))

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            with _patience("show that it is alive"), self._database.write() as session:
                session.execute(sa.update(WorkerRow).where(WorkerRow.id == self._worker_id).values(seen_at=utc_now()))


class JobWatch:
    """What a running analysis sees of its job: notes its progress, and stops it when the job is no longer its own."""

    def __init__(self, queue: JobQueue, claim: Claim, stop: threading.Event) -> None:
        self._queue = queue
        self._claim = claim
        self._stop = stop
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._noted: tuple[str, float] = ("", 0.0)
        self._thread = threading.Thread(target=self._renew, name=f"lease-{claim.public_id}", daemon=True)

    def __enter__(self) -> JobWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def progress(self, stage: str, fraction: float) -> None:
        """Note stage and fraction, not more often than people can see.

        Raises:
            StoppingError: the worker shall stop.
            JobCancelledError: the job was cancelled, deleted, or given to another worker.
        """
        if self._stop.is_set():
            raise StoppingError("The worker is stopping.")
        now = time.monotonic()
        noted_stage, noted_at = self._noted
        if stage != noted_stage or now - noted_at >= PROGRESS_INTERVAL_S:
            self._noted = (stage, now)
            with _patience("note progress"):
                if not self._queue.report_progress(self._claim, stage, fraction):
                    self._lost.set()
        if self._lost.is_set():
            raise JobCancelledError()

    def _renew(self) -> None:
        interval = self._queue.settings.lease_s / BEATS_PER_LEASE
        while not self._ended.wait(interval) and not self._lost.is_set():
            with _patience("renew a lease"):
                if not self._queue.renew(self._claim):
                    self._lost.set()


def _work_once(queue: JobQueue, store: MediaStore, analyse: Analyse, stop: threading.Event, worker_id: str) -> bool:
    """Claim and run one job; False when there was none."""
    claim = None
    with _patience("look for work"):
        claim = queue.claim(worker_id)
    if claim is None:
        return False
    log.info("job %s: attempt %d starts", claim.public_id, claim.attempt)
    started = time.monotonic()
    try:
        with JobWatch(queue, claim, stop) as watch:
            report = analyse(store.path(claim.stored_name), watch.progress)
        _persist(lambda: queue.finish(claim, report))
        log.info("job %s: %s in %.1f s", claim.public_id, report.verdict.outcome, time.monotonic() - started)
    except StoppingError:
        _persist(lambda: queue.give_back(claim))
        log.info("job %s: back to the queue, the worker stops", claim.public_id)
    except JobCancelledError:
        log.info("job %s: cancelled", claim.public_id)
    except TelltaleError as error:
        failure = error
        _persist(lambda: queue.fail(claim, failure))
        log.info("job %s: failed with %s", claim.public_id, error.code)
    except Exception:
        log.exception("job %s: an error that nobody foresaw", claim.public_id)
        _persist(lambda: queue.fail(claim, TelltaleError()))
    return True


def _persist(write: Callable[[], bool]) -> None:
    """Store an outcome, trying again while the database is locked; after that the lease brings the job back."""
    for attempt in range(1, DATABASE_TRIES + 1):
        try:
            write()
        except OperationalError as error:
            log.warning("outcome not stored, try %d of %d: %s", attempt, DATABASE_TRIES, error.orig)
            time.sleep(0.2 * attempt)
        else:
            return
    log.error("outcome not stored; the job will be tried again when its lease ends")


@contextlib.contextmanager
def _patience(what: str) -> Iterator[None]:
    """Log a database or a disk that does not answer and go on: the next beat or look tries again."""
    try:
        yield
    except OperationalError as error:
        log.warning("the worker could not %s: %s", what, error.orig)
    except OSError as error:
        log.warning("the worker could not %s: %s", what, error)
