"""Signs of life of the workers: how often they are given, and who is alive by them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.config import Settings
from web_app.db.models import WorkerRow, utc_now

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
