"""A worker's heartbeat: one thread shows that it lives, keeps the leases of its jobs, and ends it when one hangs."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from utils.log import get_logger
from web_app.db.models import WorkerRow, utc_now
from web_app.jobs.queue import Claim, JobQueue
from web_app.jobs.retry import EXIT_STUCK, log_and_continue

log = get_logger(__name__)


@dataclass(eq=False)
class Held:
    """Something in a worker's hands: a job, or what it does between two jobs.

    Args:
        what: for the log.
        until: moment of the monotonic clock by which it must have ended.
        claim: the job; its lease is kept. None for what is no job.
        lost: set when the job was cancelled, deleted, or given to another worker.
    """

    what: str
    until: float
    claim: Claim | None = None
    lost: threading.Event = field(default_factory=threading.Event)


class Heartbeat:
    """The thread; it has a pace of its own, because a long stage of an analysis may not call progress for minutes.

    What is held for longer than it may hangs in code that cannot be interrupted: the process ends. The supervisor
    starts another, and the job's next attempt, or its failure as `worker_lost`, is up to the queue.

    Args:
        queue: keeps the leases.
        worker_id: of the worker's row.
        facts: what the worker says of itself at present.
        interval_s: seconds between two beats.
    """

    def __init__(self, queue: JobQueue, worker_id: str, facts: Callable[[], dict[str, Any]], interval_s: float) -> None:
        self._queue = queue
        self._worker_id = worker_id
        self._facts = facts
        self._known: dict[str, Any] = {}
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._held: set[Held] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with log_and_continue("sign off"), self._queue.database.write() as session:
            session.execute(sa.delete(WorkerRow).where(WorkerRow.id == self._worker_id))

    @contextlib.contextmanager
    def hold(self, what: str, longest_s: float, claim: Claim | None = None) -> Iterator[Held]:
        """Have something in hand until the block ends, `longest_s` at most."""
        held = Held(what, time.monotonic() + longest_s, claim)
        with self._lock:
            self._held.add(held)
        try:
            yield held
        finally:
            with self._lock:
                self._held.remove(held)

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            with log_and_continue("do a beat"):  # whatever happens, there will be another
                self._beat()

    def _beat(self) -> None:
        """Write row and leases, whether the row is there or not: earlier beats may have met a database that refused."""
        with self._lock:
            held = list(self._held)
        for each in held:
            if time.monotonic() >= each.until:
                log.error("%s has no end; the worker ends", each.what)
                os._exit(EXIT_STUCK)
        with log_and_continue("say what it has loaded"):
            self._known = self._facts()
        jobs = {each.claim: each for each in held if each.claim is not None and not each.lost.is_set()}
        with log_and_continue("show that it is alive"), self._queue.database.write() as session:
            session.merge(WorkerRow(id=self._worker_id, pid=os.getpid(), facts=self._known, seen_at=utc_now()))
            for claim in self._queue.renew(session, list(jobs)):
                jobs[claim].lost.set()
