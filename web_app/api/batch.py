"""Many files in one request: each is accepted or refused by itself, and the batch can be followed as one."""

from __future__ import annotations

import secrets
from collections import Counter
from typing import Any, Literal

import sqlalchemy as sa
from flask import Response, request
from pydantic import Field

from utils.errors import NotFoundError, TelltaleError
from web_app.api.detect import UPLOAD_FAILURES, upload_options
from web_app.api.routing import UPLOADS, json_answer, route
from web_app.api.schemas import Links, Moment, OutcomeName, Probability, Problem, Schema, address
from web_app.auth import identity
from web_app.auth.rate_limit import count_upload
from web_app.db.models import BatchRow, DetectionRow, JobRow
from web_app.jobs.submission import queue_upload
from web_app.services import Services, services
from web_app.storage.upload import Refused, receive_files


class BatchItem(Schema):
    """One file of a batch."""

    name: str
    id: str | None = Field(description="of the analysis; null for a refused file")
    state: Literal["queued", "running", "done", "failed", "cancelled", "refused", "deleted"]
    prediction: OutcomeName | None
    fake_probability: Probability | None
    error: Problem | None
    links: Links | None


class Batch(Schema):
    """Several uploads of one request, in their order."""

    id: str
    created: Moment
    finished: bool = Field(description="nothing waits or runs any more")
    counts: dict[str, int] = Field(description="files by state")
    items: list[BatchItem]


@route("POST", "/batch", {202: Batch}, *UPLOAD_FAILURES, body=UPLOADS)
def create_batch() -> Response:
    """Analyse several files: 202 with one entry per part `file`, in their order; a refused one stops no other."""
    parts = services()
    owner = identity.caller().id
    options = upload_options(request, parts, with_key=False)
    with parts.database.read() as session:
        parts.queue.require_room(session)
    items: list[dict[str, Any]] = []
    counted = False  # the first file was, with the request
    for received in receive_files(request, parts.store, parts.settings.api.batch_files):
        item: dict[str, Any] = {"name": received.display_name, "id": None, "error": None}
        items.append(item)
        if isinstance(received, Refused):
            item["error"] = received.error.to_problem()
            continue
        try:
            if counted:
                count_upload()
            counted = True
            item["id"] = queue_upload(parts, received, owner, options).public_id
        except TelltaleError as error:
            parts.store.remove(received.file.name)
            item["error"] = error.to_problem()
    batch = BatchRow(public_id=secrets.token_hex(16), client_id=owner, items=items)
    with parts.database.write() as session:
        session.add(batch)
    return json_answer(_batch(parts, batch), 202, location=address("get_batch", id=batch.public_id))


@route("GET", "/batch/<id>", {200: Batch, 304: None}, NotFoundError)
def get_batch(id: str) -> Batch:
    """How far a batch is: the state of each file and how many there are of each."""
    parts = services()
    with parts.database.read() as session:
        batch = identity.require_own(session, BatchRow, id, "batch")
    return _batch(parts, batch)


def _batch(parts: Services, batch: BatchRow) -> Batch:
    ids = [item["id"] for item in batch.items if item["id"] is not None]
    with parts.database.read() as session:
        found = session.scalars(sa.select(DetectionRow).join(DetectionRow.job).where(JobRow.public_id.in_(ids))).all()
    rows = {row.job.public_id: row for row in found}
    items = [_item(item, rows.get(item["id"])) for item in batch.items]
    counts = Counter(item.state for item in items)
    return Batch.of(
        batch, finished=not (counts["queued"] or counts["running"]), counts=dict(sorted(counts.items())), items=items
    )


def _item(stored: dict[str, Any], row: DetectionRow | None) -> BatchItem:
    if row is None:
        state = "deleted" if stored["error"] is None else "refused"
        return BatchItem.model_validate(
            {**stored, "state": state, "prediction": None, "fake_probability": None, "links": None}
        )
    links = Links.to(row.job.public_id)
    return BatchItem.of(row, row.job, name=stored["name"], error=Problem.of_job(row.job), links=links)
