"""Uploads: store, queue, and wait for the verdict as long as the client wants to."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

from flask import Response, jsonify, request

from utils.errors import BadRequestError, JobCancelledError
from utils.types import MediaKind
from web_app import security
from web_app.api import present
from web_app.db import DetectionRow, JobState
from web_app.detections import add_detection, find_detection
from web_app.problems import error_of
from web_app.services import Services, services
from web_app.uploads import receive_upload

MAX_WAIT_S = 120.0  # a longer wait holds a connection that proxies cut anyway
FIRST_LOOK_S, LONGEST_LOOK_S = 0.02, 0.25
_PREFER_WAIT = re.compile(r"\bwait\s*=\s*(\d{1,6})\b")


def detect() -> Response:
    """Analyse a picture or a video; the content decides which, and the answer is as on the route of that kind."""
    return _detect(None)


def detect_image() -> Response:
    """Analyse a picture: 200 with the verdict, or 202 with the job if that takes longer than `wait_image_s`."""
    return _detect(MediaKind.IMAGE)


def detect_video() -> Response:
    """Analyse a video: 202 with the job, or 200 with the verdict for a client that asks to wait."""
    return _detect(MediaKind.VIDEO)


def _detect(accepted: MediaKind | None) -> Response:
    parts = services()
    asked_s = _asked_wait_s()
    with parts.database.read() as session:
        parts.queue.require_room(session)  # before the body is read; asked again when the row is written
    upload = receive_upload(request, parts.store, accepted)
    public_id = add_detection(parts.queue, parts.store, upload, security.client_id(parts.secret))
    default_s = parts.settings.server.wait_image_s if upload.file.format.kind is MediaKind.IMAGE else 0.0
    row = _wait_for_end(parts, public_id, default_s if asked_s is None else asked_s)
    return _answer(parts, public_id, row)


def _asked_wait_s() -> float | None:
    """Seconds the client wants to wait: `?wait=1` for long, `?wait=0` or `Prefer: respond-async` for not at all.

    Raises:
        BadRequestError: `wait` is neither 0 nor 1.

    Source: RFC 7240, sections 4.1 (respond-async) and 4.3 (wait).
    """
    flag = request.args.get("wait")
    if flag is not None:
        if flag not in ("0", "1"):
            raise BadRequestError("`wait` must be 0 or 1.")
        return MAX_WAIT_S if flag == "1" else 0.0
    prefer = request.headers.get("Prefer", "")
    wait = _PREFER_WAIT.search(prefer)
    if wait:
        return min(float(wait.group(1)), MAX_WAIT_S)
    return 0.0 if "respond-async" in prefer else None


def _wait_for_end(parts: Services, public_id: str, wait_s: float) -> DetectionRow | None:
    """The analysis once it has ended; None when it has not by then, or when too many requests wait already."""
    if wait_s <= 0:
        return None
    with waiting_slot(parts) as free:
        until = time.monotonic() + wait_s
        look_s = FIRST_LOOK_S
        while free and time.monotonic() < until and not parts.stopping.wait(look_s):
            with parts.database.read() as session:
                row = find_detection(session, public_id)
            if row is None:
                raise JobCancelledError("The analysis was deleted while the answer was awaited.")
            if JobState(row.job.state).final:
                return row
            look_s = min(look_s * 1.5, LONGEST_LOOK_S)
    return None


@contextlib.contextmanager
def waiting_slot(parts: Services) -> Iterator[bool]:
    """Whether this request may sleep; a bounded number may, so that short requests always find a thread."""
    free = parts.slots.acquire(blocking=False)
    try:
        yield free
    finally:
        if free:
            parts.slots.release()


def _answer(parts: Services, public_id: str, row: DetectionRow | None) -> Response:
    if row is None:
        answer = jsonify(id=public_id, state=JobState.QUEUED.value, links=present.links(public_id))
        answer.status_code = 202
        answer.headers["Location"] = present.links(public_id)["job"]
        return answer
    if row.job.state == JobState.DONE:
        return jsonify(present.result(row))
    error = (
        JobCancelledError()
        if row.job.state == JobState.CANCELLED
        else error_of(row.job.error_code or "internal", row.job.error_detail or "")
    )
    error.facts["id"] = public_id
    raise error
