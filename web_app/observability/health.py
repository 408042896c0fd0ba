"""Who works and with what: the workers that are heard of, and whether the weights on the disk verify."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.config import Settings
from utils.errors import WeightsError
from utils.weights import current_version, verify_current
from web_app.db.models import WorkerRow, utc_now

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


class WeightsCheck:
    """The verification of the weights, remembered for a while.

    Args:
        verify: raises WeightsError; None takes `utils.weights.verify_current`.
    """

    def __init__(self, settings: Settings, verify: Callable[[Settings], object] | None) -> None:
        self._settings = settings
        self._verify = verify or verify_current
        self._lock = threading.Lock()
        self._result = (False, "not verified yet")
        self._valid_until = 0.0
        self._version: str | None = None

    def require(self) -> None:
        """Verify now.

        Raises:
            WeightsError: the weights are missing or do not match their checksums.
        """
        self._verify(self._settings)

    def check(self) -> tuple[bool, str]:
        """Whether the weights verify, and a sentence: of the last time if that was lately and for this version."""
        with self._lock:
            version = current_version(self._settings)
            if time.monotonic() < self._valid_until and version == self._version:
                return self._result
            try:
                self.require()
                self._result, valid_s = (True, f"version {version} is verified"), VERIFIED_FOR_S
            except WeightsError as error:
                self._result, valid_s = (False, str(error)), FAILED_FOR_S
            self._valid_until, self._version = time.monotonic() + valid_s, version
            return self._result
