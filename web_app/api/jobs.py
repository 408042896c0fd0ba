"""A job's state, once, as a stream of events, and its cancelling."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Response, current_app, stream_with_context
from pydantic import Field

from utils.errors import ConflictError, NotFoundError
from web_app.api.detect import waiting_slot
from web_app.api.routing import EVENTS, route
from web_app.api.schemas import JobStatus, Links, Problem
from web_app.api.schemas.analysis import Result
from web_app.db.models import JobState
from web_app.services import Services, require_detection, services

LOOK_S = 0.2  # as often as a worker notes progress
HEARTBEAT_S = 15.0  # proxies close streams that are silent for longer
LONGEST_STREAM_S = 600.0  # then the browser connects again
RETRY_MS = 1000


class Job(JobStatus):
    """The state of an analysis."""

    position: int | None = Field(description="jobs ahead of this one while it waits")
    result: Result | None
    links: Links


@route("GET", "/jobs/<id>", {200: Job}, NotFoundError)
def get_job(id: str) -> Job:
    """The state of an analysis: stage, fraction, jobs ahead of it, and at the end its report or its problem."""
    return _snapshot(services(), id)


@route("GET", "/jobs/<id>/events", {200: EVENTS}, NotFoundError)
def get_job_events(id: str) -> Response:
    """The same as a stream of server-sent events, one per change, that ends with the final state.

    When many clients listen, the stream may end after one event; `EventSource` then asks again by itself.
    """
    parts = services()
    first = _snapshot(parts, id)  # an unknown id is answered before the stream begins
    answer = current_app.response_class(stream_with_context(_events(parts, first)), mimetype=EVENTS)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Accel-Buffering"] = "no"  # nginx would hold the events back
    return answer


@route("DELETE", "/jobs/<id>", {200: Job}, NotFoundError, ConflictError)
def cancel_job(id: str) -> Job:
    """Cancel an analysis that waits or runs."""
    parts = services()
    _snapshot(parts, id)
    if not parts.queue.cancel(id):
        raise ConflictError("The analysis has already ended.", state=_snapshot(parts, id).state)
    return _snapshot(parts, id)


def _snapshot(parts: Services, public_id: str) -> Job:
    with parts.database.read() as session:
        row = require_detection(session, public_id)
        return Job.of(
            row.job,
            position=parts.queue.ahead(session, row.job),
            error=Problem.of_job(row.job),
            result=Result.stored(row) if row.job.state == JobState.DONE else None,
            links=Links.to(public_id),
        )


def _events(parts: Services, snapshot: Job) -> Iterator[str]:
    yield f"retry: {RETRY_MS}\n\n{_event(snapshot)}"
    with waiting_slot(parts) as free:
        until = time.monotonic() + LONGEST_STREAM_S
        said_at = time.monotonic()
        while free and not JobState(snapshot.state).final and time.monotonic() < until:
            if parts.stopping.wait(LOOK_S):
                return
            try:
                now = _snapshot(parts, snapshot.id)
            except NotFoundError:  # deleted meanwhile: the next request will be told
                return
            if now != snapshot:
                snapshot, said_at = now, time.monotonic()
                yield _event(snapshot)
            elif time.monotonic() - said_at >= HEARTBEAT_S:
                said_at = time.monotonic()
                yield ": still here\n\n"


def _event(snapshot: Job) -> str:
    return f"data: {current_app.json.dumps(snapshot.plain())}\n\n"
