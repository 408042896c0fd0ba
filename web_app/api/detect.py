"""Files to analyse, uploaded or fetched: store, queue, and wait for the verdict as long as the client wants to."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import time
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from flask import Request, Response, request
from pydantic import Field

from utils.errors import (
    AddressRefusedError,
    BadRequestError,
    FetchError,
    IdempotencyError,
    JobCancelledError,
    MediaError,
    MediaTooLargeError,
    NotAvailableError,
    QueueFullError,
    StorageFullError,
    UnavailableError,
    UnsupportedMediaError,
    WeightsMissingError,
)
from utils.types import MediaKind
from utils.weights import current_speech, current_version
from web_app.api.routing import UPLOAD, Answer, json_answer, route
from web_app.api.schemas import Links, Schema, StateName, job_error
from web_app.api.schemas.analysis import NoticeModel, Result
from web_app.auth import identity
from web_app.db.models import DetectionRow, JobState, utc_now
from web_app.feedback.votes import delete_analysis
from web_app.integrations.http_client import open_url
from web_app.jobs.submission import Queued, UploadOptions, check_key, conditions_of, queue_upload
from web_app.services import Services, services
from web_app.storage.detections import find_detection
from web_app.storage.files import too_large
from web_app.storage.upload import Upload, display_name, name_notices, receive_upload

WAIT_IMAGE_S = 30.0  # for a picture or recording, when the client does not say how long it wants to wait
MAX_WAIT_S = 120.0  # a longer wait holds a connection that proxies cut anyway
FIRST_LOOK_S, LONGEST_LOOK_S = 0.02, 0.25
FORGOTTEN_AFTER = dt.timedelta(minutes=10)  # what `keep=0` left behind when the server was killed in between
REPLAYED_HEADER = "Idempotency-Replayed"
REPEATED = NoticeModel(
    code="repeated", text="You sent this very file before; this is its analysis by the same networks and settings."
)
CHUNK_BYTES = 64 * 1024
FETCHED = {"Accept": "image/jpeg, image/png, image/webp, image/*;q=0.5, video/*, audio/*"}
UPLOAD_FAILURES = (
    BadRequestError, JobCancelledError, MediaTooLargeError, UnsupportedMediaError, MediaError, QueueFullError,
    IdempotencyError, StorageFullError, UnavailableError,
)  # fmt: skip
_PREFER_WAIT = re.compile(r"\bwait\s*=\s*(\d{1,6})\b")


class Accepted(Schema):
    """The analysis is queued; follow `links.job` or `links.events`."""

    id: str
    state: StateName
    repeated: bool = Field(description="it is an earlier analysis of the same upload")
    links: Links


class UrlRequest(Schema):
    url: str = Field(min_length=1, max_length=2000, examples=["https://example.org/photo.jpg"])


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


@route("POST", "/detect/audio", _ANSWERS, *UPLOAD_FAILURES, WeightsMissingError, body=UPLOAD, waits=True)
def detect_audio() -> Response:
    """Analyse a recording: 200 with the verdict on the voice, or 202 with the job if that takes longer than 30 seconds.

    A container of video is taken too, since it may hold sound alone; with pictures in it, faces are judged as well.
    """
    if current_speech(services().settings) is None:
        raise WeightsMissingError("There are no weights of speech on this server, so voices cannot be judged.")
    return _detect(MediaKind.AUDIO)


@route(
    "POST", "/detect/url", _ANSWERS, *UPLOAD_FAILURES, AddressRefusedError, FetchError, NotAvailableError,
    body=UrlRequest, waits=True,
)  # fmt: skip
def detect_url(said: UrlRequest) -> Response:
    """Analyse a picture, video or recording from an address on the internet; off unless `[api] url_input` is on."""
    parts = services()
    if parts.settings.api.url_input != "on":
        raise NotAvailableError("URL input is switched off ([api] url_input).")
    asked_s = asked_wait_s()
    options = upload_options(request, parts)
    with parts.database.read() as session:
        parts.queue.require_room(session)
    with waiting_slot(parts) as free:
        if not free:
            raise UnavailableError("Too many requests are waiting.", retry_after_s=5)
        upload = fetch(said.url, parts)
    return _answer_upload(parts, upload, options, asked_s)


def _detect(accepted: MediaKind | None) -> Response:
    parts = services()
    asked_s = asked_wait_s()
    options = upload_options(request, parts)
    with parts.database.read() as session:
        parts.queue.require_room(session)  # before the body is read; asked again when the row is written
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
            raise FetchError(f"The other server answered {answer.status}.")
        if answer.getheader("Content-Encoding", "identity").lower() != "identity":
            raise FetchError("The other server sent the file in an encoding that was not asked for.")
        if answer.length is not None and answer.length > parts.store.max_bytes:
            raise too_large(parts.store.max_bytes)
        announced = answer.length
        received = 0
        while chunk := answer.read1(CHUNK_BYTES):
            received += len(chunk)
            incoming.write(chunk)
        if announced is not None and received != announced:
            raise FetchError("The connection ended before the file did.")
        stored = incoming.finish()
    shown = display_name(unquote(urlsplit(untrusted_url).path))
    return Upload(stored, shown, name_notices(shown, stored))


def upload_options(request: Request, parts: Services, *, with_key: bool = True) -> UploadOptions:
    """How the client wants its upload to be treated: `again`, `keep`, and the header Idempotency-Key.

    Raises:
        BadRequestError: one of them has a value that is not allowed.
    """
    conditions = conditions_of(parts.settings, current_version(parts.settings))
    key = check_key(request.headers.get("Idempotency-Key")) if with_key else None
    again = flag(request, "again") or False
    if flag(request, "keep") is False:
        return UploadOptions(key=None, again=True, expires_at=utc_now() + FORGOTTEN_AFTER)
    return UploadOptions(conditions, key, again)


def flag(request: Request, name: str) -> bool | None:
    """A parameter of the query that is 0 or 1; None without it.

    Raises:
        BadRequestError: it is neither.
    """
    value = request.args.get(name)
    if value not in (None, "0", "1"):
        raise BadRequestError(f"`{name}` must be 0 or 1.")
    return None if value is None else value == "1"


def _answer_upload(parts: Services, upload: Upload, options: UploadOptions, asked_s: float | None) -> Response:
    """Queue a stored upload and answer with its verdict, or with its job when that is not there in time.

    Raises:
        TelltaleError: the analysis failed, or the upload is refused.
    """
    queued = queue_upload(parts, upload, identity.caller().id, options)
    if options.expires_at is not None:
        return _answer_and_forget(parts, queued)
    default_s = 0.0 if upload.file.format.kind is MediaKind.VIDEO else WAIT_IMAGE_S
    wait_s = default_s if asked_s is None else asked_s
    row = _ended(parts, queued.public_id) if queued.repeated else None
    return _answer(parts, queued, row or _wait_for_end(parts, queued.public_id, wait_s))


def _answer_and_forget(parts: Services, queued: Queued) -> Response:
    """The verdict of an upload that is not to be kept; file and analysis are gone when the answer leaves."""
    try:
        row = _wait_for_end(parts, queued.public_id, MAX_WAIT_S)
        if row is None:
            raise UnavailableError("There was no verdict in time, and nothing was kept.", retry_after_s=2)
        return _answer(parts, queued, row)
    finally:
        delete_analysis(parts, queued.public_id)


def asked_wait_s() -> float | None:
    """Seconds the client wants to wait: `?wait=1` for long, `?wait=0` or `Prefer: respond-async` for not at all.

    Raises:
        BadRequestError: `wait` is neither 0 nor 1.

    Source: RFC 7240, sections 4.1 (respond-async) and 4.3 (wait).
    """
    wants = flag(request, "wait")
    if wants is not None:
        return MAX_WAIT_S if wants else 0.0
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
            row = _ended(parts, public_id)
            if row is not None:
                return row
            look_s = min(look_s * 1.5, LONGEST_LOOK_S)
    return None


def _ended(parts: Services, public_id: str) -> DetectionRow | None:
    """The analysis if it has ended."""
    with parts.database.read() as session:
        row = find_detection(session, public_id)
    if row is None:
        raise JobCancelledError("The analysis was deleted while the answer was awaited.")
    return row if JobState(row.job.state).final else None


@contextlib.contextmanager
def waiting_slot(parts: Services) -> Iterator[bool]:
    """Whether this request may sleep; a bounded number may, so that short requests always find a thread."""
    free = parts.slots.acquire(blocking=False)
    try:
        yield free
    finally:
        if free:
            parts.slots.release()


def _answer(parts: Services, queued: Queued, row: DetectionRow | None) -> Response:
    if row is None:
        links = Links.to(queued.public_id)
        with parts.database.read() as session:
            found = find_detection(session, queued.public_id)
        state = JobState.CANCELLED if found is None else found.job.state
        accepted = Accepted.of(queued, state=state, links=links)
        answer = json_answer(accepted, 202, location=links.job)
    elif row.job.state == JobState.DONE:
        result = Result.stored(row)
        if queued.repeated:
            result.notices.insert(0, REPEATED)
        answer = json_answer(result)
    else:
        error = JobCancelledError() if row.job.state == JobState.CANCELLED else job_error(row.job)
        error.facts["id"] = queued.public_id
        raise error
    if queued.repeated:
        answer.headers[REPLAYED_HEADER] = "true"
    return answer
