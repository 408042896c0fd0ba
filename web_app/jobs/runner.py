"""A worker's loop: claim a job, keep its lease alive, analyse, store the outcome, look again.

The analysis itself is a function that the caller hands in, so that this file knows neither networks nor decoders.
Other tasks (a training) run in a lane of their own beside it, so that no analysis waits for them.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from utils.config import Settings
from utils.errors import JobCancelledError, TelltaleError
from utils.log import get_logger
from utils.types import Report
from web_app.db.models import ANALYSE, TRAIN, WorkerRow, utc_now
from web_app.db.session import Database
from web_app.db.workers import BEATS_PER_LEASE, beat_s
from web_app.jobs.maintenance import Housekeeper
from web_app.jobs.queue import Claim, JobQueue
from web_app.jobs.retry import EXIT_STUCK, MemoryLimit, database_reason, patience
from web_app.paths import InstancePaths
from web_app.storage.detections import OnDelete, forget_nothing
from web_app.storage.files import MediaStore

Progress = Callable[[str, float], None]
Analyse = Callable[[Path, Progress], Report]
Together = Callable[[Sequence[tuple[Path, Progress]]], list[Report | Exception]]
Handler = Callable[[Claim, Progress], dict[str, Any]]

PROGRESS_INTERVAL_S = 0.2  # people do not see more, and each note is a write to the disk
STARVED_S = 30.0  # what waits for an idle moment gets its turn after this much work without one
EAGER_S = 0.02  # between two looks right after a job; the next picture of a client is often on its way
TROUBLE_PAUSE_S = 2.0  # before the next look when the database has refused one
DATABASE_TRIES = 5  # each waits for the lock as long as the busy time-out

log = get_logger(__name__)


class StoppingError(JobCancelledError):
    """The worker was asked to stop in the middle of a job, which goes back to the queue."""


def _nothing() -> None:
    """The duty of a worker without one."""


@dataclass(frozen=True)
class Duties:
    """What a worker does beside analyses.

    Args:
        handlers: by task; each gets the claim and a progress callback and returns the job's result as plain JSON.
        in_turn: the same for tasks that use the networks of the analyses; they take turns with them.
        before_job: called before each look for an analysis, such as to change to another version of the weights.
        when_idle: called when no analysis waits.
        facts: what the worker says of itself at present; they are shown with its signs of life.
        together: analyses several pictures at once, each a report or what was raised for it alone; None for one by one.
        on_delete: called with the number of an analysis that was never to be kept, before it is deleted.
    """

    handlers: Mapping[str, Handler] = field(default_factory=dict)
    in_turn: Mapping[str, Handler] = field(default_factory=dict)
    before_job: Callable[[], object] = _nothing
    when_idle: Callable[[], object] = _nothing
    facts: Callable[[], dict[str, Any]] | None = None
    together: Together | None = None
    on_delete: OnDelete = forget_nothing


def run_worker(
    settings: Settings,
    analyse: Analyse,
    stop: threading.Event,
    *,
    worker_id: str | None = None,
    facts: dict[str, Any] | None = None,
    duties: Duties | None = None,
) -> bool:
    """Run jobs until `stop` is set; an analysis under way is then interrupted at its next progress call.

    Args:
        settings: the whole configuration; lease and poll interval come from `[jobs]`.
        analyse: path and progress callback to report; raises TelltaleError for a medium that cannot be analysed.
        stop: set by a signal handler or a test.
        worker_id: name in the database, unique among living workers; None makes one.
        facts: what this worker says of itself in `/api/ready` (model version, sandbox level, experts).
        duties: further tasks and what happens between jobs; None for analyses only.

    Returns:
        Whether the worker ended by itself, because it has grown beyond `worker_memory_mb`.
    """
    duties = duties or Duties()
    worker_id = worker_id or f"worker-{os.getpid()}-{time.time_ns():x}"
    database = Database.of(settings)
    store = MediaStore(InstancePaths.of(settings).uploads, settings.media.max_file_mb * 1_000_000)
    queue = JobQueue(database, settings.jobs)
    housekeeper = Housekeeper(database, store, settings.storage.retention_days, duties.on_delete)
    memory = MemoryLimit(settings.jobs.worker_memory_mb)
    recycled = False
    known = facts or {}
    presence = Presence(database, worker_id, duties.facts or (lambda: known), beat_s(settings))

    def run_analysis(claim: Claim, progress: Progress) -> Callable[[], bool]:
        if claim.task in duties.in_turn:
            result = duties.in_turn[claim.task](claim, progress)
            return lambda: queue.finish_task(claim, result)
        report = analyse(store.path(claim.stored_name), progress)
        return lambda: queue.finish(claim, report)

    def run_together(claims: Sequence[Claim], progress: Sequence[Progress]) -> list[Callable[[], bool] | Exception]:
        assert duties.together is not None
        works = [(store.path(claim.stored_name), tell) for claim, tell in zip(claims, progress, strict=True)]
        outcomes = duties.together(works)
        return [
            outcome if isinstance(outcome, Exception) else functools.partial(queue.finish, claim, outcome)
            for claim, outcome in zip(claims, outcomes, strict=True)
        ]

    company = Company(run_together, settings.jobs.batch) if duties.together is not None else None
    try:
        with presence, _side_lane(queue, duties.handlers, stop, worker_id) as busy:
            log.info("worker %s is ready", worker_id)
            idle_at = worked_at = time.monotonic()
            while not (stop.is_set() or recycled):
                with patience("change the version"), _bounded(settings.jobs.longest_s):
                    duties.before_job()
                worked = _work_once(queue, (ANALYSE, *duties.in_turn), run_analysis, stop, worker_id, company)
                if not worked:
                    with patience("clean up"), _bounded(settings.jobs.longest_s):
                        housekeeper.run_if_due()
                if not worked or time.monotonic() - idle_at > STARVED_S:
                    with patience("do its other duties"), _bounded(settings.jobs.longest_s):
                        duties.when_idle()
                    idle_at = time.monotonic()
                if worked:
                    worked_at = time.monotonic()
                else:
                    stop.wait(min(settings.jobs.poll_s, EAGER_S + (time.monotonic() - worked_at) / 10))
                recycled = worked and not busy.is_set() and memory.exceeded()  # a training would begin anew
    finally:
        database.close()
    log.info("worker %s has stopped", worker_id)
    return recycled


@contextlib.contextmanager
def _side_lane(
    queue: JobQueue, handlers: Mapping[str, Handler], stop: threading.Event, worker_id: str
) -> Iterator[threading.Event]:
    """A thread that runs the tasks with a handler; it has ended when the block ends. The event says that one runs."""
    busy = threading.Event()

    def run_task(claim: Claim, progress: Progress) -> Callable[[], bool]:
        busy.set()
        try:
            result = handlers[claim.task](claim, progress)
        finally:
            busy.clear()
        return lambda: queue.finish_task(claim, result)

    def work() -> None:
        while not stop.is_set():
            if not _work_once(queue, tuple(handlers), run_task, stop, worker_id):
                stop.wait(queue.settings.poll_s)

    lane = threading.Thread(target=work, name="side-lane", daemon=True)
    if handlers:
        lane.start()
    try:
        yield busy
    finally:
        if handlers:
            stop.set()  # also when the other lane fails: the supervisor starts a new worker
            lane.join()


@contextlib.contextmanager
def _bounded(longest_s: float) -> Iterator[None]:
    """End the process when what is done between two jobs hangs; the supervisor starts another."""

    def end() -> None:
        log.error("what is done between jobs has not ended after %.0f s; the worker ends", longest_s)
        os._exit(EXIT_STUCK)

    timer = threading.Timer(longest_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Presence:
    """A thread that shows the worker alive in its row and renews the lease of the job in its hands.

    It has its own pace, because a long stage of an analysis may not call progress for minutes.
    """

    def __init__(
        self, database: Database, worker_id: str, facts: Callable[[], dict[str, Any]], interval_s: float
    ) -> None:
        self._database = database
        self._worker_id = worker_id
        self._facts = facts
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def __enter__(self) -> Presence:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with patience("sign off"), self._database.write() as session:
            session.execute(sa.delete(WorkerRow).where(WorkerRow.id == self._worker_id))

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._beat()

    def _beat(self) -> None:
        """Write the row, whether it is there or not: the first beats may have met a database that refused."""
        with patience("show that it is alive"), self._database.write() as session:
            session.merge(WorkerRow(id=self._worker_id, pid=os.getpid(), facts=self._facts(), seen_at=utc_now()))


class JobWatch:
    """What a running analysis sees of its job: notes its progress, and stops it when the job is no longer its own.

    A job other than a training that runs longer than `longest_s` hangs in code that cannot be interrupted: the process
    ends, and the job's next attempt, or its failure as `worker_lost`, is up to the queue.
    """

    def __init__(self, queue: JobQueue, claim: Claim, stop: threading.Event) -> None:
        self._queue = queue
        self._claim = claim
        self._stop = stop
        self._longest_s = math.inf if claim.task == TRAIN else queue.settings.longest_s
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
            with patience("note progress"):
                if not self._queue.report_progress(self._claim, stage, fraction):
                    self._lost.set()
        if self._lost.is_set():
            raise JobCancelledError()

    def _renew(self) -> None:
        interval = self._queue.settings.lease_s / BEATS_PER_LEASE
        until = time.monotonic() + self._longest_s
        while not self._ended.wait(min(interval, max(0.0, until - time.monotonic()))) and not self._lost.is_set():
            if time.monotonic() >= until:
                log.error("job %s: no end after %.0f s; the worker ends", self._claim.public_id, self._longest_s)
                os._exit(EXIT_STUCK)
            with patience("renew a lease"):
                if not self._queue.renew(self._claim):
                    self._lost.set()


@dataclass(frozen=True)
class Company:
    """How several jobs are run together.

    Args:
        run: as of `_work_once`, for several claims; what went wrong with one of them stands in its place.
        most: jobs at once.
    """

    run: Callable[[Sequence[Claim], Sequence[Progress]], list[Callable[[], bool] | Exception]]
    most: int


def _work_once(
    queue: JobQueue,
    tasks: tuple[str, ...],
    run: Callable[[Claim, Progress], Callable[[], bool]],
    stop: threading.Event,
    worker_id: str,
    company: Company | None = None,
) -> bool:
    """Claim and run one job of these tasks, or several that can be run together; False when there was none.

    `run` returns what stores the outcome.
    """
    claim, looked = None, False
    with patience("look for work"):
        claim, looked = queue.claim(worker_id, tasks), True
    if claim is None:
        if not looked:
            stop.wait(TROUBLE_PAUSE_S)
        return False
    claims = [claim]
    if company is not None:
        with patience("look for more work"):
            claims += queue.claim_company(claim, company.most - 1)
    for each in claims:
        log.info("job %s: attempt %d starts", each.public_id, each.attempt)
    started = time.monotonic()
    outcomes: list[Callable[[], bool] | Exception]
    try:
        with contextlib.ExitStack() as watching:
            progress = [watching.enter_context(JobWatch(queue, each, stop)).progress for each in claims]
            if company is not None and len(claims) > 1:
                outcomes = company.run(claims, progress)
            else:
                outcomes = [run(claim, progress[0])]
    except Exception as error:  # noqa: BLE001 - looked at in `_end`
        outcomes = [error] * len(claims)
    for each, outcome in zip(claims, outcomes, strict=True):
        _end(queue, each, outcome, started)
    return True


def _end(queue: JobQueue, claim: Claim, outcome: Callable[[], bool] | Exception, started: float) -> None:
    """Store what became of a job."""
    if not isinstance(outcome, Exception):
        _persist(outcome)
        log.info("job %s: %s done in %.1f s", claim.public_id, claim.task, time.monotonic() - started)
    elif isinstance(outcome, StoppingError):
        _persist(lambda: queue.give_back(claim))
        log.info("job %s: back to the queue, the worker stops", claim.public_id)
    elif isinstance(outcome, JobCancelledError):
        log.info("job %s: cancelled", claim.public_id)
    elif isinstance(outcome, TelltaleError):
        _persist(lambda: queue.fail(claim, outcome))
        log.info("job %s: failed with %s", claim.public_id, outcome.code)
    else:
        log.error("job %s: an error that nobody foresaw", claim.public_id, exc_info=outcome)
        _persist(lambda: queue.fail(claim, TelltaleError()))


def _persist(write: Callable[[], bool]) -> None:
    """Store an outcome, trying again while the database is locked; after that the lease brings the job back."""
    for attempt in range(1, DATABASE_TRIES + 1):
        try:
            write()
        except SQLAlchemyError as error:
            log.warning("outcome not stored, try %d of %d: %s", attempt, DATABASE_TRIES, database_reason(error))
            time.sleep(0.2 * attempt)
        else:
            return
    log.error("outcome not stored; the job will be tried again when its lease ends")
