"""Rows as the JSON values of the API; `web_app/api/schemas.py` describes each of them for the OpenAPI document."""

from __future__ import annotations

import datetime as dt
from typing import Any

from flask import request, url_for
from sqlalchemy.orm import Session

from web_app.db.models import DetectionRow, FeedbackRow, JobState
from web_app.errors import error_of
from web_app.jobs.queue import JobQueue
from web_app.jobs.status import OpenJob


def api_name() -> str:
    """The blueprint that addresses lead to: the one that was asked (`api_v1` below /api/v1), `api` for a page."""
    asked = request.blueprint or ""
    return asked if asked.startswith("api") else "api"


def links(public_id: str) -> dict[str, str]:
    """Addresses around one analysis, with the prefix that the server is reached under."""
    return {
        "job": url_for(f"{api_name()}.get_job", id=public_id),
        "events": url_for(f"{api_name()}.get_job_events", id=public_id),
        "detection": url_for(f"{api_name()}.get_detection", id=public_id),
        "media": url_for(f"{api_name()}.get_media", id=public_id),
        "page": f"{request.script_root}/detections/{public_id}",
    }


def job(session: Session, queue: JobQueue, row: DetectionRow) -> dict[str, Any]:
    """The state of an analysis, with the problem if it failed and the report if it is done."""
    state = JobState(row.job.state)
    return {
        "id": row.job.public_id,
        "state": state.value,
        "stage": row.job.stage,
        "fraction": row.job.fraction,
        "position": queue.ahead(session, row.job),
        "attempts": row.job.attempts,
        "created": moment(row.job.created_at),
        "started": moment(row.job.started_at),
        "finished": moment(row.job.finished_at),
        "error": problem(row) if state is JobState.FAILED else None,
        "result": result(row) if state is JobState.DONE else None,
        "links": links(row.job.public_id),
    }


def open_job(found: OpenJob) -> dict[str, Any]:
    """The same for an analysis that has not ended."""
    return {
        "id": found.public_id,
        "state": found.state.value,
        "stage": found.stage,
        "fraction": found.fraction,
        "position": found.position,
        "attempts": found.attempts,
        "created": moment(found.created_at),
        "started": moment(found.started_at),
        "finished": None,
        "error": None,
        "result": None,
        "links": links(found.public_id),
    }


def result(row: DetectionRow) -> dict[str, Any]:
    """The report of a finished analysis, with the id and what the upload itself gave notice of."""
    report = dict(row.report or {})
    return {"id": row.job.public_id, **report, "notices": [*row.notices, *report.get("notices", [])]}


def detection(row: DetectionRow, voice: FeedbackRow | None) -> dict[str, Any]:
    """A finished analysis with its name, its time and what this client said about it."""
    return {
        **result(row),
        "name": row.display_name,
        "created": moment(row.job.created_at),
        "feedback": None if voice is None else feedback(row.job.public_id, voice),
        "links": links(row.job.public_id),
    }


def history_item(row: DetectionRow, voice: FeedbackRow | None, has_thumbnail: bool) -> dict[str, Any]:
    """One line of the history."""
    p = row.fake_probability
    return {
        "id": row.job.public_id,
        "name": row.display_name,
        "kind": row.media.kind,
        "format": row.media.format,
        "size_bytes": row.media.size_bytes,
        "sha256": row.media.sha256,
        "state": row.job.state,
        "prediction": row.prediction,
        "fake_probability": p,
        "confidence": None if p is None else max(p, 1.0 - p),
        "model_version": row.model_version,
        "created": moment(row.job.created_at),
        "finished": moment(row.job.finished_at),
        "error": problem(row) if row.job.state == JobState.FAILED else None,
        "feedback": None if voice is None else voice.judgement,
        "thumbnail": url_for(f"{api_name()}.get_thumbnail", id=row.job.public_id) if has_thumbnail else None,
        "links": links(row.job.public_id),
    }


def feedback(public_id: str, voice: FeedbackRow) -> dict[str, Any]:
    """What a client last said about an analysis."""
    return {
        "id": public_id,
        "feedback": voice.judgement,
        "actual": voice.actual,
        "category": voice.category,
        "note": voice.note,
        "faces": voice.face_labels,
        "state": voice.state,
        "reason": voice.reason,
        "learned_version": voice.learned_version,
        "created": moment(voice.created_at),
    }


def problem(row: DetectionRow) -> dict[str, Any]:
    """Why an analysis failed, as problem JSON."""
    return error_of(row.job.error_code or "internal", row.job.error_detail or "").to_problem()


def moment(value: dt.datetime | None) -> str | None:
    """A time as ISO 8601 in UTC."""
    return None if value is None else value.isoformat()
