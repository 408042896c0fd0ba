"""Notices a worker that is alive as a process but does nothing any more: stopped, swapped out, or locked up."""

from __future__ import annotations

import datetime as dt
import time

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm.attributes import flag_modified

from utils.log import get_logger
from web_app.db.models import WorkerRow
from web_app.db.session import Database

LOOK_S = 2.0

log = get_logger(__name__)


class Watchdog:
    """Looks at a worker's signs of life by its own clock, so that a clock that jumps kills nobody.

    Args:
        database: where the worker's row is.
        worker_id: which worker.
        silence_s: seconds without a new sign after which it bites; counted from the first sign, because loading the
            networks takes its time, and anew when the database does not answer, which is not the worker's fault.
    """

    def __init__(self, database: Database, worker_id: str, silence_s: float) -> None:
        self._database = database
        self._worker_id = worker_id
        self._silence_s = silence_s
        self._last: dt.datetime | None = None
        self._heard_at = self._look_at = time.monotonic()

    def bites(self) -> bool:
        """Whether the worker has been silent for too long; looks every two seconds at most."""
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + min(LOOK_S, self._silence_s / 4)
        try:
            with self._database.read() as session:
                seen = session.scalar(sa.select(WorkerRow.seen_at).where(WorkerRow.id == self._worker_id))
        except SQLAlchemyError as error:
            log.warning("the worker's signs of life cannot be read: %s", type(error).__name__)
            self._heard_at = now
            return False
        if seen is None or seen != self._last:
            self._last, self._heard_at = seen, now
        if now - self._heard_at <= self._silence_s:
            return False
        if not self._accepts_writes():
            self._heard_at = now
            return False
        return True

    def _accepts_writes(self) -> bool:
        """Whether a sign of life could be written at all: not on a full disk, nor while somebody holds the lock."""
        try:
            with self._database.write() as session:
                row = session.get(WorkerRow, self._worker_id)
                if row is not None:
                    flag_modified(row, "pid")  # written as it is
        except SQLAlchemyError as error:
            log.warning("the database takes no sign of life: %s", type(error).__name__)
            return False
        return True
