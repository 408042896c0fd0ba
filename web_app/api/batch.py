"""Many files in one request: each is accepted or refused by itself, and the batch can be followed as one."""

from __future__ import annotations

import secrets
from collections import Counter
from typing import Any

import sqlalchemy as sa
from flask import Response, jsonify, request, url_for

from utils.errors import NotFoundError, TelltaleError
from web_app.api import present
from web_app.api.conditional import conditional_json
from web_app.api.detect import wish_of
from web_app.auth import identity
from web_app.auth.rate_limit import count_upload
from web_app.db.models import BatchRow, DetectionRow, JobRow, JobState
from web_app.services import Services, services
from web_app.storage.detections import queue_upload
from web_app.storage.upload import Refused, receive_batch

DELETED = "deleted"


def create_batch() -> Response:
    """Analyse several files: 202 with one entry per part `file`, in their order; a refused one stops no other."""
    parts = services()
    owner = identity.caller().id
    wish = wish_of(request, parts, with_key=False)
    with parts.database.read() as session:
        parts.queue.require_room(session)
    items: list[dict[str, Any]] = []
    counted = False  # the first file was, with the request
    for received in receive_batch(request, parts.store, parts.settings.api.batch_files):
        if isinstance(received, Refused):
            items.append({"name": received.display_name, "id": None, "error": received.error.to_problem()})
            continue
        try:
            if counted:
                count_upload()
            counted = True
            queued = queue_upload(parts.queue, parts.store, received, owner, wish)
        except TelltaleError as error:
            parts.store.remove(received.file.name)
            items.append({"name": received.display_name, "id": None, "error": error.to_problem()})
        else:
            items.append({"name": received.display_name, "id": queued.public_id, "error": None})
    batch = BatchRow(public_id=secrets.token_hex(16), client_id=owner, items=items)
    with parts.database.write() as session:
        session.add(batch)
    answer = jsonify(_present(parts, batch))
    answer.status_code = 202
    answer.headers["Location"] = url_for(f"{present.api_name()}.get_batch", id=batch.public_id)
    return answer


def get_batch(id: str) -> Response:
    """How far a batch is: the state of each file and how many there are of each."""
    parts = services()
    with parts.database.read() as session:
        batch = session.scalar(sa.select(BatchRow).where(BatchRow.public_id == id))
    if batch is None or not identity.caller().owns(batch.client_id):
        raise NotFoundError("There is no batch with this id.")
    return conditional_json(_present(parts, batch))


def _present(parts: Services, batch: BatchRow) -> dict[str, Any]:
    ids = [item["id"] for item in batch.items if item["id"] is not None]
    with parts.database.read() as session:
        found = session.scalars(sa.select(DetectionRow).join(DetectionRow.job).where(JobRow.public_id.in_(ids))).all()
    rows = {row.job.public_id: row for row in found}
    items = [_item(item, rows.get(item["id"])) for item in batch.items]
    counts = Counter(item["state"] for item in items)
    return {
        "id": batch.public_id,
        "created": present.moment(batch.created_at),
        "finished": not (counts[JobState.QUEUED] or counts[JobState.RUNNING]),
        "counts": dict(sorted(counts.items())),
        "items": items,
    }


def _item(item: dict[str, Any], row: DetectionRow | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": item["name"], "id": item["id"], "prediction": None, "fake_probability": None, "error": item["error"],
        "links": None,
    }  # fmt: skip
    if item["error"] is not None:
        return shown | {"state": "refused"}
    if row is None:
        return shown | {"state": DELETED}
    failed = row.job.state == JobState.FAILED
    return shown | {
        "state": row.job.state,
        "prediction": row.prediction,
        "fake_probability": row.fake_probability,
        "error": present.problem(row) if failed else None,
        "links": present.links(row.job.public_id),
    }
