"""A worker's loop: claim a job, keep its lease alive, analyse, store the outcome, look again.

The analysis itself is a function that the caller hands in, so that this file knows neither networks nor decoders.
Other tasks (a training) run in the background, so that no analysis waits for them.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from utils.errors import JobCancelledError, TelltaleError, UnavailableError
from utils.log import get_logger
from utils.types import Report
from web_app.db.models import ANALYSE, TRAIN
from web_app.jobs.broker import QUEUES, Inbox
from web_app.jobs.heartbeat import Heartbeat, Held, has_grown, log_and_continue, reason_of
from web_app.jobs.queue import Claim, JobQueue
from web_app.jobs.shared import Instance
from web_app.observability.health import beat_s

Progress = Callable[[str, float], None]
Analyse = Callable[[Path, Progress], Report]
Together = Callable[[Sequence[tuple[Path, Progress]]], list[Report | Exception]]
Handler = Callable[[Claim, Progress], dict[str, Any]]
Outcome = Callable[[], bool] | Exception
"""What stores the end of a job, or what was raised in it."""

PROGRESS_INTERVAL_S = 0.2  # people do not see more, and each note is a write to the disk
STARVED_S = 30.0  # what waits for an idle moment gets its turn after this much work without one
EAGER_S = 0.02  # between two looks right after a job; the next picture of a client is often on its way
TROUBLE_PAUSE_S = 2.0  # before the next look when the database has refused one
DATABASE_TRIES = 5  # each waits for the lock as long as the busy time-out

log = get_logger(__name__)


class StoppingError(JobCancelledError):
    """The worker was asked to stop in the middle of a job, which goes back to the queue."""


@dataclass(frozen=True)
class WorkerTasks:
    """What a worker does beside analyses.

    Args:
        background: handlers by task; each gets the claim and a progress callback and returns the job's result as plain
            JSON. They run beside the analyses.
        foreground: the same for tasks that use the networks of the analyses; they take turns with them.
        before_job: called before each look for an analysis, such as to change to another version of the weights.
        when_idle: called when no analysis waits.
        facts: what the worker says of itself at present (model version, sandbox); shown with its signs of life.
        together: analyses several pictures at once, each a report or what was raised for it alone; None for one by one.
    """

    background: Mapping[str, Handler] = field(default_factory=dict)
    foreground: Mapping[str, Handler] = field(default_factory=dict)
    before_job: Callable[[], object] = object  # as good as nothing
    when_idle: Callable[[], object] = object
    facts: Callable[[], dict[str, Any]] = dict
    together: Together | None = None


def run_worker(
    instance: Instance,
    analyse: Analyse,
    stop: threading.Event,
    *,
    worker_id: str | None = None,
    tasks: WorkerTasks | None = None,
    queues: Sequence[str] = QUEUES,
) -> bool:
    """Run jobs until `stop` is set; an analysis under way is then interrupted at its next progress call.

    Args:
        instance: lease and poll interval come from its settings; its connections stay open.
        analyse: path and progress callback to report; raises TelltaleError for a medium that cannot be analysed.
        stop: set by a signal handler or a test.
        worker_id: name in the database, unique among living workers; None makes one.
        tasks: further ones and what happens between jobs; None for analyses only.
        queues: of the broker, where there is one, to take jobs from; without any, no analyses are run.

    Returns:
        Whether the worker ended by itself, because it has grown beyond `worker_memory_mb`.
    """
    tasks = tasks or WorkerTasks()
    worker_id = worker_id or f"worker-{os.getpid()}-{time.time_ns():x}"
    queue, settings = instance.queue, instance.settings.jobs
    heartbeat = Heartbeat(queue, worker_id, tasks.facts, beat_s(instance.settings))

    def run_networks(claims: Sequence[Claim], progress: Sequence[Progress]) -> list[Outcome]:
        first = claims[0]
        if first.task != ANALYSE:
            return [partial(queue.finish_task, first, tasks.foreground[first.task](first, progress[0]))]
        works = [(instance.store.path(claim.stored_name), tell) for claim, tell in zip(claims, progress, strict=True)]
        reports = tasks.together(works) if tasks.together and len(works) > 1 else [analyse(*works[0])]
        return [
            report if isinstance(report, Exception) else partial(queue.finish, claim, report)
            for claim, report in zip(claims, reports, strict=True)
        ]

    def between(what: str, do: Callable[[], object]) -> None:
        with log_and_continue(what), heartbeat.hold(f"what was to {what}", settings.longest_s):
            do()

    most = settings.batch if tasks.together else 1
    lane = Lane(queue, heartbeat, stop, worker_id, (ANALYSE, *tasks.foreground), run_networks, most)
    recycled = False
    inbox = Inbox(settings, worker_id, queues, stop) if queue.sender and queues else None
    with (
        heartbeat,
        _background(queue, heartbeat, tasks.background, stop, worker_id) as busy,
        inbox or contextlib.nullcontext(),
    ):
        log.info("worker %s is ready", worker_id)
        idle_at = worked_at = time.monotonic()
        while not (stop.is_set() or recycled):
            between("change the version", tasks.before_job)
            worked = inbox.work_once(lane.work_once) if inbox else bool(queues) and lane.work_once()
            if not worked or time.monotonic() - idle_at > STARVED_S:
                between("do its other tasks", tasks.when_idle)
                idle_at = time.monotonic()
            if worked:
                worked_at = time.monotonic()
            else:
                (inbox or stop).wait(min(settings.poll_s, EAGER_S + (time.monotonic() - worked_at) / 10))
            # a training in the background would begin anew
            recycled = worked and not busy.is_set() and has_grown(settings.worker_memory_mb)
    log.info("worker %s has stopped", worker_id)
    return recycled


@contextlib.contextmanager
def _background(
    queue: JobQueue, heartbeat: Heartbeat, handlers: Mapping[str, Handler], stop: threading.Event, worker_id: str
) -> Iterator[threading.Event]:
    """A thread that runs the tasks with a handler; it has ended when the block ends. The event says that one runs."""
    busy = threading.Event()

    def run(claims: Sequence[Claim], progress: Sequence[Progress]) -> list[Outcome]:
        busy.set()
        try:
            return [partial(queue.finish_task, claims[0], handlers[claims[0].task](claims[0], progress[0]))]
        finally:
            busy.clear()

    lane = Lane(queue, heartbeat, stop, worker_id, tuple(handlers), run)

    def work() -> None:
        while not stop.is_set():
            if not lane.work_once():
                stop.wait(queue.settings.poll_s)

    thread = threading.Thread(target=work, name="background", daemon=True)
    if handlers:
        thread.start()
    try:
        yield busy
    finally:
        if handlers:
            stop.set()  # also when the other lane fails: the supervisor starts a new worker
            thread.join()


@dataclass(frozen=True)
class Lane:
    """Runs jobs of some tasks, one after the other, or several pictures at once.

    Args:
        tasks: what is claimed here.
        run: claims and their progress callbacks to what stores each outcome; what went wrong with one of several
            stands in its place, anything else is raised.
        most: pictures at once.
    """

    queue: JobQueue
    heartbeat: Heartbeat
    stop: threading.Event
    worker_id: str
    tasks: tuple[str, ...]
    run: Callable[[Sequence[Claim], Sequence[Progress]], list[Outcome]]
    most: int = 1

    def work_once(self, only: int | None = None) -> bool:
        """Claim and run what waits, or the job of that id; False when there was nothing."""
        claims: list[Claim] | None = None
        with log_and_continue("look for work"):
            claim = self.queue.claim(self.worker_id, self.tasks, only)
            claims = [] if claim is None else [claim]
        if claims is None:
            self.stop.wait(TROUBLE_PAUSE_S)
        if not claims:
            return False
        with log_and_continue("look for more work"):
            claims += self.queue.claim_batch(claims[0], self.most - 1)
        for each in claims:
            log.info("job %s: attempt %d starts", each.public_id, each.attempt)
        started = time.monotonic()
        outcomes: list[Outcome]
        try:
            with contextlib.ExitStack() as hands:
                outcomes = self.run(claims, [self._progress(hands.enter_context(self._hold(each))) for each in claims])
        except Exception as error:  # noqa: BLE001 - looked at in `_end`
            outcomes = [error] * len(claims)
        for each, outcome in zip(claims, outcomes, strict=True):
            _end(self.queue, each, outcome, started)
        if any(isinstance(each, UnavailableError) for each in outcomes):
            self.stop.wait(TROUBLE_PAUSE_S)
        return True

    def _hold(self, claim: Claim) -> contextlib.AbstractContextManager[Held]:
        longest_s = math.inf if claim.task == TRAIN else self.queue.settings.longest_s
        return self.heartbeat.hold(f"job {claim.public_id}", longest_s, claim)

    def _progress(self, held: Held) -> Progress:
        """Notes stage and fraction of a job, not more often than people can see.

        It raises StoppingError when the worker shall stop, and JobCancelledError when the job was cancelled, deleted,
        or given to another worker.
        """
        noted_stage, noted_at = "", -math.inf
        analyses = held.claim is not None and held.claim.task == ANALYSE  # a photo's stages are over in no time

        def progress(stage: str, fraction: float) -> None:
            nonlocal noted_stage, noted_at
            if self.stop.is_set():
                raise StoppingError("The worker is stopping.")
            now = time.monotonic()
            lasts = stage == "speech" or not analyses  # which is not called again before it is over
            due = now - noted_at >= PROGRESS_INTERVAL_S or (stage != noted_stage and lasts)
            if held.claim is not None and due:
                noted_stage, noted_at = stage, now
                with log_and_continue("note progress"):
                    if not self.queue.report_progress(held.claim, stage, fraction):
                        held.lost.set()
            if held.lost.is_set():
                raise JobCancelledError()

        return progress


def _end(queue: JobQueue, claim: Claim, outcome: Outcome, started: float) -> None:
    """Store what became of a job."""
    if not isinstance(outcome, Exception):
        _persist(outcome)
        log.info("job %s: %s done in %.1f s", claim.public_id, claim.task, time.monotonic() - started)
    elif isinstance(outcome, StoppingError):
        _persist(lambda: queue.give_back(claim))
        log.info("job %s: back to the queue, the worker stops", claim.public_id)
    elif isinstance(outcome, JobCancelledError):
        log.info("job %s: cancelled", claim.public_id)
    elif isinstance(outcome, UnavailableError):
        _persist(lambda: queue.give_back(claim))
        log.warning("job %s: back to the queue: %s", claim.public_id, outcome.detail)
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
            log.warning("outcome not stored, try %d of %d: %s", attempt, DATABASE_TRIES, reason_of(error))
            time.sleep(0.2 * attempt)
        else:
            return
    log.error("outcome not stored; the job will be tried again when its lease ends")
