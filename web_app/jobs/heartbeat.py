"""What keeps a worker alive and what ends it on purpose.

One thread shows that the worker lives, keeps the leases of its jobs, and ends it when one hangs. Trouble beside a job
is logged; memory has a limit.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from utils.log import get_logger
from web_app.db.models import WorkerRow, utc_now
from web_app.jobs.queue import Claim, JobQueue

EXIT_RECYCLED = 75  # EX_TEMPFAIL of sysexits.h: a fresh worker shall take over, which is no failure
EXIT_STUCK = 76
_STATM = Path("/proc/self/statm")

log = get_logger(__name__)


@contextlib.contextmanager
def log_and_continue(what: str) -> Iterator[None]:
    """Log what went wrong beside a job and go on: the next beat or look tries again, and the worker lives."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        log.warning("the worker could not %s: %s", what, reason_of(error))
    except Exception:
        log.exception("the worker could not %s, for a reason that nobody foresaw", what)


def reason_of(error: SQLAlchemyError | OSError) -> str:
    """Why database or disk refused, without the statement and its values, which may be a user's words."""
    told = error.orig if isinstance(error, DBAPIError) else error
    return type(told).__name__ if isinstance(told, SQLAlchemyError) else str(told)


def resident_mb() -> float:
    """Memory of this process in MB (10^6 bytes): at present where the system tells, the most so far elsewhere."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
    return pages * resource.getpagesize() / 1e6


def has_grown(limit_mb: float) -> bool:
    """Whether this process holds more than `limit_mb` (0 for no limit), so that a fresh worker shall take over."""
    size_mb = resident_mb() if limit_mb else 0.0
    if size_mb <= limit_mb:
        return False
    log.warning("the worker holds %.0f MB, more than %.0f; a fresh one takes over", size_mb, limit_mb)
    return True


@dataclass(eq=False)
class Held:
    """Something in a worker's hands: a job, or what it does between two jobs.

    Args:
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
        with log_and_continue("sign off"), self._queue.database.write(alone=False) as session:
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
        with log_and_continue("show that it is alive"), self._queue.database.write(alone=False) as session:
            session.merge(WorkerRow(id=self._worker_id, pid=os.getpid(), facts=self._known, seen_at=utc_now()))
            for claim in self._queue.renew(session, list(jobs)):
                jobs[claim].lost.set()
        with log_and_continue("look after the broker"):
            self._queue.send_lost()
