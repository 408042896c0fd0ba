"""Whether the server can do its work: the checks behind `/api/ready`, each with a sentence about what it found."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from utils.config import Settings
from utils.errors import WeightsError
from utils.weights import current_version, verify_current
from web_app.db.models import WorkerRow, utc_now
from web_app.db.session import Database
from web_app.paths import InstancePaths

VERIFIED_FOR_S = 300.0  # hashing all weights takes a moment, and readiness is asked every few seconds
FAILED_FOR_S = 10.0
BEATS_PER_LEASE = 3
LONGEST_BEAT_S = 5.0
MISSED_BEATS = 3  # a worker that is silent for so many is not counted on


def beat_s(settings: Settings) -> float:
    """Seconds between two signs of life of a worker."""
    return min(settings.jobs.lease_s / BEATS_PER_LEASE, LONGEST_BEAT_S)


def living_workers(session: Session, settings: Settings) -> list[WorkerRow]:
    """Workers that were heard of within the last beats, the oldest first."""
    rows = session.scalars(sa.select(WorkerRow).order_by(WorkerRow.started_at)).all()
    silence, now = MISSED_BEATS * beat_s(settings), utc_now()
    return [row for row in rows if abs((now - row.seen_at).total_seconds()) <= silence]  # the clock may go back


class Queue(Protocol):
    """What counts the analyses that wait."""

    def waiting(self, session: Session) -> int: ...


@dataclass(frozen=True)
class Check:
    """One thing that must work; `detail` says what was found."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Readiness:
    """All checks and the facts beside them; ready when every check is. `warnings` will stop a later start."""

    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    waiting: int | None
    model_version: str | None
    workers: tuple[dict[str, Any], ...]

    @property
    def ready(self) -> bool:
        return all(check.ok for check in self.checks)


class WeightsCheck:
    """The verification of the weights, remembered for a while.

    Args:
        settings: names the folder and the version.
        verify: raises WeightsError; None takes `utils.weights.verify_current`.
    """

    def __init__(self, settings: Settings, verify: Callable[[Settings], object] | None) -> None:
        self._settings = settings
        self._verify = verify or verify_current
        self._lock = threading.Lock()
        self._result = Check("weights", False, "not verified yet")
        self._valid_until = 0.0
        self._version: str | None = None

    def require(self) -> None:
        """Verify now.

        Raises:
            WeightsError: the weights are missing or do not match their checksums.
        """
        self._verify(self._settings)

    def check(self) -> Check:
        """The result of the last verification if it is recent and of the present version, or of a new one."""
        with self._lock:
            version = current_version(self._settings)
            if time.monotonic() < self._valid_until and version == self._version:
                return self._result
            try:
                self.require()
                self._result, valid_s = Check("weights", True, f"version {version} is verified"), VERIFIED_FOR_S
            except WeightsError as error:
                self._result, valid_s = Check("weights", False, str(error)), FAILED_FOR_S
            self._valid_until, self._version = time.monotonic() + valid_s, version
            return self._result


def readiness(settings: Settings, database: Database, queue: Queue, weights: WeightsCheck) -> Readiness:
    """Look at everything that an analysis needs."""
    free = shutil.disk_usage(InstancePaths.of(settings).instance).free
    disk = Check("disk", free > settings.media.max_file_mb * 1e6, f"{free / 1e9:.1f} GB are free")
    waiting: int | None = None
    alive: list[WorkerRow] = []
    try:
        with database.read() as session:
            waiting = queue.waiting(session)
            alive = living_workers(session, settings)
        store = Check("database", True, "it answers")
    except SQLAlchemyError as error:
        store = Check("database", False, f"it does not answer ({type(error).__name__})")
    worker = Check(
        "worker", bool(alive), f"{len(alive)} worker(s) are alive" if alive else "no worker has been heard of"
    )
    loaded = next((str(row.facts["model_version"]) for row in alive if row.facts.get("model_version")), None)
    on_disk, version = weights.check(), current_version(settings)
    warnings: tuple[str, ...] = ()
    if loaded is not None and not on_disk.ok:  # what is loaded serves on, whatever happens to the files
        warnings = (f"The next start of a worker will fail: {on_disk.detail}",)
        on_disk, version = Check("weights", True, f"version {loaded} is loaded and serves on"), loaded
    return Readiness(
        checks=(store, on_disk, worker, disk),
        warnings=warnings,
        waiting=waiting,
        model_version=version,
        workers=tuple({"id": row.id, "seen": row.seen_at.isoformat(), **row.facts} for row in alive),
    )
