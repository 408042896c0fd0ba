"""What else knows of an analysis: batches and messages to webhooks, which lose its names when it is deleted."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from web_app.db.models import BatchRow, DeliveryRow, JobRow

NAMED = ("name", "sha256")  # of a message's data: what tells which file it was


def forget_names(session: Session, public_id: str, owner: str) -> None:
    """Take the names of a deleted analysis out of its owner's batches and messages; a batch goes with its last one.

    Args:
        session: a writing session, in which the analysis is gone already.
        public_id: of the analysis.
        owner: its client id.
    """
    for message in session.scalars(sa.select(DeliveryRow).where(DeliveryRow.job_public_id == public_id)):
        kept = {key: None if key in NAMED else value for key, value in message.payload["data"].items()}
        message.payload = {**message.payload, "data": kept}
    batches = sa.select(BatchRow).where(
        BatchRow.client_id == owner, sa.cast(BatchRow.items, sa.Text).contains(public_id, autoescape=True)
    )
    for batch in session.scalars(batches):
        if _anything_left(session, batch.items):
            batch.items = [{**item, "name": ""} if item["id"] == public_id else item for item in batch.items]
        else:
            session.delete(batch)


def forget_old_batches(session: Session, before: dt.datetime) -> None:
    """Delete batches from before a moment, also those whose files were all refused."""
    session.execute(sa.delete(BatchRow).where(BatchRow.created_at < before))


def _anything_left(session: Session, items: list[dict[str, Any]]) -> bool:
    ids = [item["id"] for item in items if item["id"] is not None]
    return session.scalar(sa.select(JobRow.id).where(JobRow.public_id.in_(ids)).limit(1)) is not None
