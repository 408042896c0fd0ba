"""Files to analyse, uploaded or fetched: store, queue, and wait for the verdict as long as the client wants to.

Of many files in one request each is accepted or refused by itself, and their batch can be followed as one.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa
from flask import Response, request
from pydantic import Field
from sqlalchemy.orm import Session

from utils import errors
from utils.types import MediaKind
from utils.weights import current_speech, current_version
from web_app.api import schemas
from web_app.api.routing import UPLOAD, UPLOADS, Answer, json_answer, route
from web_app.api.schemas import Links, Problem, Result, address, job_error
from web_app.auth import identity
from web_app.db.models import FINAL, BatchRow, DetectionRow, JobRow, JobState, utc_now
from web_app.feedback.votes import delete_analysis
from web_app.integrations.http_client import open_url
from web_app.jobs.detections import Queued, UploadOptions, check_key, conditions_of, find_detection, queue_upload
from web_app.services import Services, services
from web_app.storage.files import too_large
from web_app.storage.upload import Refused, Upload, display_name, name_notices, receive_files, receive_upload

WAIT_IMAGE_S = 30.0  # for a picture or recording, when the client does not say how long it wants to wait
MAX_WAIT_S = 120.0  # a longer wait holds a connection that proxies cut anyway
FORGOTTEN_AFTER = dt.timedelta(minutes=10)  # what `keep=0` left behind when the server was killed in between
REPLAYED_HEADER = "Idempotency-Replayed"
REPEATED = schemas.NoticeModel(
    code="repeated", text="You sent this very file before; this is its analysis by the same networks and settings."
)
CHUNK_BYTES = 64 * 1024
FETCHED = {"Accept": "image/jpeg, image/png, image/webp, image/*;q=0.5, video/*, audio/*"}
UPLOAD_FAILURES = (
    errors.BadRequestError, errors.JobCancelledError, errors.MediaTooLargeError, errors.UnsupportedMediaError,
    errors.MediaError, errors.QueueFullError, errors.IdempotencyError, errors.StorageFullError, errors.UnavailableError,
)  # fmt: skip
_PREFER_WAIT = re.compile(r"\bwait\s*=\s*(\d{1,6})\b")


class Accepted(schemas.Schema):
    """The analysis is queued; follow `links.job` or `links.events`."""

    id: str
    state: schemas.StateName
    repeated: bool = Field(description="it is an earlier analysis of the same upload")
    links: Links


class UrlRequest(schemas.Schema):
    url: str = Field(min_length=1, max_length=2000, examples=["https://example.org/photo.jpg"])


class BatchItem(schemas.Schema):
    """One file of a batch."""

    name: str
    id: str | None = Field(description="of the analysis; null for a refused file")
    state: Literal["queued", "running", "done", "failed", "cancelled", "refused", "deleted"]
    prediction: schemas.OutcomeName | None
    fake_probability: schemas.Probability | None
    error: Problem | None
    links: Links | None


class Batch(schemas.Schema):
    """Several uploads of one request, in their order."""

    id: str
    created: schemas.Moment
    finished: bool = Field(description="nothing waits or runs any more")
    counts: dict[str, int] = Field(description="files by state")
    items: list[BatchItem]


_ANSWERS: dict[int, Answer] = {200: Result, 202: Accepted}


@route("POST", "/detect", _ANSWERS, *UPLOAD_FAILURES, body=UPLOAD, waits=True)
def detect() -> Response:
    """Analyse a picture, video or recording; the content decides which, and the answer is as on that kind's route."""
    return _detect(None)


@route("POST", "/detect/image", _ANSWERS, *UPLOAD_FAILURES, body=UPLOAD, waits=True)
def detect_image() -> Response:
    """Analyse a picture: 200 with the verdict, or 202 with the job if that takes longer than 30 seconds."""
    return _detect(MediaKind.IMAGE)


@route("POST", "/detect/video", _ANSWERS, *UPLOAD_FAILURES, body=UPLOAD, waits=True)
def detect_video() -> Response:
    """Analyse a video: 202 with the job, or 200 with the verdict for a client that asks to wait."""
    return _detect(MediaKind.VIDEO)


@route("POST", "/detect/audio", _ANSWERS, *UPLOAD_FAILURES, errors.WeightsMissingError, body=UPLOAD, waits=True)
def detect_audio() -> Response:
    """Analyse a recording: 200 with the verdict on the voice, or 202 with the job if that takes longer than 30 seconds.

    A container of video is taken too, since it may hold sound alone; with pictures in it, faces are judged as well.
    """
    if current_speech(services().settings) is None:
        raise errors.WeightsMissingError("There are no weights of speech on this server, so voices cannot be judged.")
    return _detect(MediaKind.AUDIO)


@route(
    "POST", "/detect/url", _ANSWERS, *UPLOAD_FAILURES, errors.AddressRefusedError, errors.FetchError,
    errors.NotAvailableError, waits=True,
)  # fmt: skip
def detect_url(said: UrlRequest) -> Response:
    """Analyse a picture, video or recording from an address on the internet; off unless `[api] url_input` is on."""
    parts = services()
    if parts.settings.api.url_input != "on":
        raise errors.NotAvailableError("URL input is switched off ([api] url_input).")
    asked_s, options = asked_wait_s(), upload_options(parts)
    with waiting_slot(parts) as free:
        if not free:
            raise errors.UnavailableError("Too many requests are waiting.", retry_after_s=5)
        upload = fetch(said.url, parts)
    return _answer_upload(parts, upload, options, asked_s)


def _detect(accepted: MediaKind | None) -> Response:
    parts = services()
    asked_s, options = asked_wait_s(), upload_options(parts)
    return _answer_upload(parts, receive_upload(request, parts.store, accepted), options, asked_s)


def fetch(untrusted_url: str, parts: Services) -> Upload:
    """Bring the file behind a URL into the store.

    Raises:
        AddressRefusedError: see `web_app.integrations.http_client.check_url`.
        FetchError: it could not be fetched, or not in time.
        MediaTooLargeError: it is above the limit.
        UnsupportedMediaError: its content is of no kind we read.
    """
    with (
        parts.store.incoming() as incoming,
        open_url(untrusted_url, parts.outbound, parts.settings.api.url_timeout_s, headers=FETCHED) as answer,
    ):
        if answer.status != 200:
            raise errors.FetchError(f"The other server answered {answer.status}.")
        if answer.getheader("Content-Encoding", "identity").lower() != "identity":
            raise errors.FetchError("The other server sent the file in an encoding that was not asked for.")
        if answer.length is not None and answer.length > parts.store.max_bytes:
            raise too_large(parts.store.max_bytes)
        announced = answer.length
        received = 0
        while chunk := answer.read1(CHUNK_BYTES):
            received += len(chunk)
            incoming.write(chunk)
        if announced is not None and received != announced:
            raise errors.FetchError("The connection ended before the file did.")
        stored = incoming.finish()
    shown = display_name(unquote(urlsplit(untrusted_url).path))
    return Upload(stored, shown, name_notices(shown, stored))


def upload_options(parts: Services, *, with_key: bool = True) -> UploadOptions:
    """How the client wants its upload to be treated: `again`, `keep`, and the header Idempotency-Key.

    Raises:
        BadRequestError: one of them has a value that is not allowed.
        QueueFullError: too much waits; told before the body is read, and asked again when the row is written.
    """
    conditions = conditions_of(parts.settings, current_version(parts.settings))
    key = check_key(request.headers.get("Idempotency-Key")) if with_key else None
    again, keep = flag("again") or False, flag("keep")
    with parts.database.read() as session:
        parts.queue.require_room(session)
    if keep is False:
        return UploadOptions(key=None, again=True, expires_at=utc_now() + FORGOTTEN_AFTER)
    return UploadOptions(conditions, key, again)


def flag(name: str) -> bool | None:
    """A parameter of the query that is 0 or 1; None without it.

    Raises:
        BadRequestError: it is neither.
    """
    value = request.args.get(name)
    if value not in (None, "0", "1"):
        raise errors.BadRequestError(f"`{name}` must be 0 or 1.")
    return None if value is None else value == "1"


def _answer_upload(parts: Services, upload: Upload, options: UploadOptions, asked_s: float | None) -> Response:
    """Queue a stored upload and answer with its verdict, or with its job when that is not there in time.

    Of one that is not to be kept, file and analysis are gone when the answer leaves.

    Raises:
        TelltaleError: the analysis failed, or the upload is refused.
    """
    queued, keep = queue_upload(parts, upload, identity.caller().id, options), options.expires_at is None
    if asked_s is None:
        asked_s = 0.0 if upload.file.format.kind is MediaKind.VIDEO else WAIT_IMAGE_S
    try:
        row = _wait_for_end(parts, queued.public_id, asked_s if keep else MAX_WAIT_S)
        if not keep and row.job.state not in FINAL:
            raise errors.UnavailableError("There was no verdict in time, and nothing was kept.", retry_after_s=2)
        return _answer(queued, row)
    finally:
        if not keep:
            delete_analysis(parts, queued.public_id)


def asked_wait_s() -> float | None:
    """Seconds the client wants to wait: `?wait=1` for long, `?wait=0` or `Prefer: respond-async` for not at all.

    Raises:
        BadRequestError: `wait` is neither 0 nor 1.

    Source: RFC 7240, sections 4.1 (respond-async) and 4.3 (wait).
    """
    wants = flag("wait")
    if wants is not None:
        return MAX_WAIT_S if wants else 0.0
    prefer = request.headers.get("Prefer", "")
    wait = _PREFER_WAIT.search(prefer)
    if wait:
        return min(float(wait.group(1)), MAX_WAIT_S)
    return 0.0 if "respond-async" in prefer else None


def _wait_for_end(parts: Services, public_id: str, wait_s: float) -> DetectionRow:
    """The analysis when it has ended, the time is over, or too many requests wait already.

    Raises:
        JobCancelledError: it was deleted.
    """
    until = time.monotonic() + wait_s
    with waiting_slot(parts) as free:
        while True:
            with parts.database.read() as session:
                row = find_detection(session, public_id)
            if row is None:
                raise errors.JobCancelledError("The analysis was deleted while the answer was awaited.")
            left_s = until - time.monotonic()
            if row.job.state in FINAL or left_s <= 0 or not free or parts.stopping.is_set():
                return row
            parts.queue.wait_for_end(public_id, left_s, parts.stopping)


@contextlib.contextmanager
def waiting_slot(parts: Services) -> Iterator[bool]:
    """Whether this request may sleep; a bounded number may, so that short requests always find a thread."""
    free = parts.slots.acquire(blocking=False)
    try:
        yield free
    finally:
        if free:
            parts.slots.release()


def _answer(queued: Queued, row: DetectionRow) -> Response:
    state = JobState(row.job.state)
    if state is JobState.DONE:
        result = Result.stored(row)
        if queued.repeated:
            result.notices.insert(0, REPEATED)
        answer = json_answer(result)
    elif state in FINAL:
        error = errors.JobCancelledError() if state is JobState.CANCELLED else job_error(row.job)
        error.facts["id"] = queued.public_id
        raise error
    else:
        links = Links.to(queued.public_id)
        answer = json_answer(Accepted.of(queued, row.job, links=links), 202, location=links.job)
    if queued.repeated:
        answer.headers[REPLAYED_HEADER] = "true"
    return answer


@route("POST", "/batch", {202: Batch}, *UPLOAD_FAILURES, body=UPLOADS)
def create_batch() -> Response:
    """Analyse several files: 202 with one entry per part `file`, in their order; a refused one stops no other."""
    parts = services()
    owner = identity.caller().id
    options = upload_options(parts, with_key=False)
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
                parts.limits.count_upload()
            counted = True
            item["id"] = queue_upload(parts, received, owner, options).public_id
        except errors.TelltaleError as error:
            parts.store.remove(received.file.name)
            item["error"] = error.to_problem()
    batch = BatchRow(client_id=owner, items=items)
    with parts.database.write() as session:
        session.add(batch)
        session.flush()
        return json_answer(_batch(session, batch), 202, location=address("get_batch", id=batch.public_id))


@route("GET", "/batch/<id>", {200: Batch, 304: None})
def get_batch(id: str, session: Session) -> Batch:
    """How far a batch is: the state of each file and how many there are of each."""
    return _batch(session, identity.require_own(session, BatchRow, id, "batch"))


def _batch(session: Session, batch: BatchRow) -> Batch:
    ids = [item["id"] for item in batch.items if item["id"] is not None]
    found = session.scalars(sa.select(DetectionRow).join(DetectionRow.job).where(JobRow.public_id.in_(ids)))
    rows = {row.job.public_id: row for row in found}
    items = [_batch_item(item, rows.get(item["id"])) for item in batch.items]
    counts = Counter(item.state for item in items)
    return Batch.of(
        batch, finished=not (counts["queued"] or counts["running"]), counts=dict(sorted(counts.items())), items=items
    )


def _batch_item(stored: dict[str, Any], row: DetectionRow | None) -> BatchItem:
    if row is None:
        state: Literal["deleted", "refused"] = "deleted" if stored["error"] is None else "refused"
        return BatchItem(**stored, state=state, prediction=None, fake_probability=None, links=None)
    links = Links.to(row.job.public_id)
    return BatchItem.of(row, row.job, name=stored["name"], error=Problem.of_job(row.job), links=links)
