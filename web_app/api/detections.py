"""Analyses: the state of one, once and as a stream of events, its report, all of them, other versions of one, real
deletion, and the file behind one, as its clean copy.

A file is handed out as a download of a fixed type that may run nothing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from flask import Response, current_app, request, send_file
from pydantic import Field
from sqlalchemy.orm import Session, defer, undefer

from utils.errors import ConflictError, NotFoundError, UnavailableError
from utils.feedback.feedback_log import Judgement
from utils.feedback.quarantine import Outlook, Vote
from utils.media.sniff import FORMATS
from web_app.api import schemas
from web_app.api.detect import waiting_slot
from web_app.api.routing import EVENTS, MEDIA, PRIVATE, route, streamed
from web_app.auth import identity
from web_app.db.models import COPY, FINAL, DetectionRow, FeedbackRow, JobRow, JobState, MediaRow, utc_now
from web_app.db.names import SHORTEST, has_table, matches, names
from web_app.feedback import votes
from web_app.feedback.rulings import foresee, judge_beside
from web_app.services import Services, require_detection, services
from web_app.storage.files import CLEAN_SUFFIX

MOST_VERSIONS = 50
FIRST_DAY, LAST_DAY = dt.date(2000, 1, 1), dt.date(2999, 12, 31)
RETRY_S = 2  # while a copy is made
FAILED_FOR = dt.timedelta(minutes=1)
COUNTED = 10_000  # analyses after a page; whether there are more of them is told
FEW = 20_000  # of a caller's own; up to here, and to the share, reading them is sooner done than asking the index
SHARE = 4  # a quarter of everybody's, among which the index finds them
APART = 10_000  # ids that clocks may be apart
LOOK_S = 0.2  # as often as a worker notes progress
HEARTBEAT_S = 15.0  # proxies close streams that are silent for longer
LONGEST_STREAM_S = 600.0  # then the browser connects again
RETRY_MS = 1000


class Detection(schemas.Result):
    """A finished analysis with its name, its time and this client's feedback."""

    name: str
    created: schemas.Moment
    feedback: schemas.FeedbackState | None
    voice_feedback: schemas.FeedbackState | None = Field(default=None, description="of a video, on its voice")
    links: schemas.Links


class Job(schemas.JobStatus):
    """The state of an analysis."""

    position: int | None = Field(description="jobs ahead of this one while it waits")
    result: schemas.Result | None
    links: schemas.Links


class HistoryFilter(schemas.Schema):
    kind: schemas.KindName | None = None
    prediction: schemas.OutcomeName | None = None
    text: str | None = Field(default=None, min_length=1, max_length=200, description="a part of the name, in any case")
    since: dt.date | None = Field(default=None, ge=FIRST_DAY, le=LAST_DAY, description="first day, UTC")
    until: dt.date | None = Field(default=None, ge=FIRST_DAY, le=LAST_DAY, description="last day, UTC")


class HistoryQuery(schemas.Page, HistoryFilter):
    pass


class HistoryItem(schemas.Listed):
    format: str
    size_bytes: int
    confidence: schemas.Probability | None
    model_version: str | None
    speech_version: str | None = Field(description="of the network that judged a voice; null where none did")
    finished: schemas.Moment | None
    error: schemas.Problem | None
    feedback: Judgement | None
    outlook: Outlook | None = Field(default=None, description="what will happen to your feedback or has; null without")
    thumbnail: str | None = Field(description="address of a small JPEG; null where there is none")


class History(schemas.Paged):
    """One page of the history, newest first."""

    items: list[HistoryItem]
    total: int = Field(description="of all pages; those more than 10,000 after this one are not counted")
    more: bool = Field(description="whether there are more than `total`")


class Cleared(schemas.Schema):
    deleted: int = Field(ge=0)


class VersionItem(schemas.Schema):
    """One finished analysis of the same file."""

    id: str
    model_version: str
    speech_version: str | None = Field(description="of the network that judged the voice; null where none did")
    prediction: schemas.OutcomeName
    overall: schemas.OutcomeName | None = Field(description="of faces and voice; null but for videos with both")
    fake_probability: schemas.Probability | None
    created: schemas.Moment


class Versions(schemas.Schema):
    """Your analyses of the same file, the newest first, this one among them."""

    items: list[VersionItem]


@route("GET", "/history", {200: History, 304: None})
def get_history(query: HistoryQuery, session: Session) -> History:
    """Your analyses, newest first, a page at a time; those of everybody for an administrator."""
    asking = identity.caller()
    before = (query.page - 1) * query.per_page
    wanted = matching(session, query, asking)
    found = wanted.offset(before).limit(query.per_page + COUNTED + 1).cte()
    # counted by the database: ten thousand rows for Python are a hundred times the work, and garbage to collect
    count = sa.select(sa.func.count()).select_from(found).scalar_subquery()
    page = session.execute(sa.select(found.c[0], count).order_by(found.c[0].desc()).limit(query.per_page)).all()
    ids, after = [each[0] for each in page], page[0][1] if page else 0
    more, total = after > query.per_page + COUNTED, before + min(after, query.per_page + COUNTED)
    if not ids:  # beyond the end
        total = session.scalar(sa.select(sa.func.count()).select_from(wanted.limit(before).subquery())) or 0
    rows = session.scalars(by_ids(ids).options(defer(DetectionRow.report), undefer(DetectionRow.speech_version))).all()
    own = votes.find_votes(session, {row.media.sha256 for row in rows}, asking.id)
    judged = judge_beside(session, own.values(), services().settings.learning)
    items = [_item(session, row, own.get(row.media.sha256), judged) for row in rows]
    return History(items=items, page=query.page, per_page=query.per_page, total=total, more=more)


def _item(session: Session, row: DetectionRow, vote: FeedbackRow | None, judged: dict[str, Vote]) -> HistoryItem:
    job, media, p, parts = row.job, row.media, row.fake_probability, services()
    has_thumbnail = parts.store.shows(media.stored_name, done=job.state == JobState.DONE)
    return HistoryItem.of(
        row, job, media, confidence=None if p is None else max(p, 1.0 - p), error=schemas.Problem.of_job(job),
        feedback=vote and vote.judgement,
        outlook=vote and foresee(session, vote, parts.settings, judged=judged, medium=media)[0],
        thumbnail=schemas.address("get_thumbnail", id=job.public_id) if has_thumbnail else None,
        links=schemas.Links.to(job.public_id),
    )  # fmt: skip


def matching(session: Session, query: HistoryFilter, asking: identity.Caller) -> sa.Select[int]:
    """The ids of the analyses that a caller sees and the filters choose, the newest first."""
    key, own = DetectionRow.job_id, asking.sees(DetectionRow.client_id)
    found = sa.select(key).where(DetectionRow.expires_at.is_(None), own)  # those with an end are not to be kept
    if query.kind is not None:
        found = found.where(DetectionRow.media_kind == query.kind)
    if query.prediction is not None:
        found = found.where(
            sa.or_(*(each == query.prediction for each in (DetectionRow.prediction, DetectionRow.overall)))
        )
    if query.since is not None or query.until is not None:
        found = found.join(DetectionRow.job).where(*_within(query))
    if query.text is None:
        return found.order_by(key.desc())
    indexed = len(query.text) >= SHORTEST and query.text.isprintable() and has_table(session)
    if not indexed or _has_few(session, asking):
        return found.where(DetectionRow.display_name.icontains(query.text, autoescape=True)).order_by(key.desc())
    return found.join(names, names.c.rowid == key).where(matches(query.text)).order_by(names.c.rowid.desc())


def _has_few(session: Session, asking: identity.Caller) -> bool:
    """Whether a caller sees so few analyses that reading their names is sooner done than asking the index."""
    key, own = DetectionRow.job_id, asking.sees(DetectionRow.client_id)
    share = 0 if asking.sees_all else (session.scalar(sa.select(sa.func.max(key))) or 0) // SHARE
    return session.scalar(sa.select(key).where(own).offset(max(FEW, share)).limit(1)) is None


def _within(query: HistoryFilter) -> Iterator[sa.ColumnElement[bool]]:
    """The days of a query; ids grow with time but for the clocks of machines, so that they bound what is looked at."""
    created, ids = JobRow.created_at, sa.select(JobRow.id)
    if query.since is not None:
        since = dt.datetime.combine(query.since, dt.time(), dt.UTC)
        first = ids.where(created >= since).order_by(created).limit(1).scalar_subquery()
        yield sa.and_(created >= since, DetectionRow.job_id >= first - APART)
    if query.until is not None:
        until = dt.datetime.combine(query.until, dt.time(), dt.UTC) + dt.timedelta(days=1)
        last = ids.where(created < until).order_by(created.desc()).limit(1).scalar_subquery()
        yield sa.and_(created < until, DetectionRow.job_id <= last + APART)


def by_ids(ids: Sequence[int]) -> sa.Select[DetectionRow]:
    return sa.select(DetectionRow).where(DetectionRow.job_id.in_(ids)).order_by(DetectionRow.job_id.desc())


@route("DELETE", "/history", {200: Cleared})
def clear_history() -> Cleared:
    """Delete all your own analyses with their reports and feedback, and every file that nobody else's analysis uses."""
    parts = services()
    own = sa.select(JobRow.public_id).join(DetectionRow, DetectionRow.job_id == JobRow.id)
    with parts.database.read() as session:
        ids = session.scalars(own.where(DetectionRow.client_id == identity.caller().id)).all()
    return Cleared(deleted=sum(votes.delete_analysis(parts, public_id) for public_id in ids))


@route("GET", "/jobs/<id>", {200: Job})
def get_job(id: str) -> Job:
    """The state of an analysis: stage, fraction, jobs ahead of it, and at the end its report or its problem."""
    return _snapshot(services(), id)


@route("GET", "/jobs/<id>/events", {200: EVENTS})
def get_job_events(id: str) -> Response:
    """The same as a stream of server-sent events, one per change, that ends with the final state.

    When many clients listen, the stream may end after one event; `EventSource` then asks again by itself.
    """
    parts = services()
    first = _snapshot(parts, id)  # an unknown id is answered before the stream begins
    answer = streamed(_events(parts, first), EVENTS)
    answer.headers["X-Accel-Buffering"] = "no"  # nginx would hold the events back
    return answer


@route("DELETE", "/jobs/<id>", {200: Job}, ConflictError)
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
            error=schemas.Problem.of_job(row.job),
            result=schemas.Result.stored(row) if row.job.state == JobState.DONE else None,
            links=schemas.Links.to(public_id),
        )


def _events(parts: Services, snapshot: Job) -> Iterator[str]:
    yield f"retry: {RETRY_MS}\n\n{_event(snapshot)}"
    with waiting_slot(parts) as free:
        until = time.monotonic() + LONGEST_STREAM_S
        said_at = time.monotonic()
        while free and snapshot.state not in FINAL and time.monotonic() < until:
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


@route("GET", "/detections/<id>", {200: Detection, 304: None}, ConflictError)
def get_detection(id: str, session: Session) -> Detection:
    """The report of a finished analysis, with its name and this client's feedback."""
    row = require_detection(session, id, done=True)
    said: dict[str, schemas.FeedbackState | None] = {"feedback": None, "voice_feedback": None}
    for name, sha256 in (("feedback", row.media.sha256), ("voice_feedback", votes.voice_of(row.media.sha256))):
        vote = votes.find_vote(session, sha256, identity.caller().id)
        if vote is not None:
            said[name] = schemas.FeedbackState.told(session, vote, services().settings, id, row.report)
    created = row.job.created_at.isoformat()
    return Detection.stored(row, name=row.display_name, created=created, **said, links=schemas.Links.to(id))


@route("DELETE", "/detections/<id>", {204: None})
def remove_detection(id: str) -> None:
    """Delete an analysis with its report and feedback; the file goes too, unless another analysis needs it."""
    parts = services()
    with parts.database.read() as session:
        require_detection(session, id)
    if not votes.delete_analysis(parts, id):
        raise NotFoundError("There is no analysis with this id.")


@route("GET", "/detections/<id>/media", {200: MEDIA, 206: MEDIA, 304: None})
def get_media(id: str) -> Response:
    """The uploaded file without its metadata; ranges are served, so that a player can jump."""
    with services().database.read() as session:  # not the view's, which would be open while a copy is asked for
        row = require_detection(session, id)
    return serve_media(row.media, kept=row.expires_at is None)


@route("GET", "/detections/<id>/versions", {200: Versions})
def get_versions(id: str, session: Session) -> Versions:
    """Your finished analyses of the same file, newest first, to compare what different versions said."""
    own = identity.caller().sees(DetectionRow.client_id)
    media_id = require_detection(session, id).media_id
    same = sa.select(DetectionRow).join(DetectionRow.job).order_by(JobRow.id.desc()).limit(MOST_VERSIONS)
    rows = session.scalars(same.where(DetectionRow.media_id == media_id, JobRow.state == JobState.DONE, own))
    return Versions(items=[VersionItem.of(row, row.job) for row in rows])


def serve_media(media: MediaRow, *, kept: bool = True) -> Response:
    """The clean copy of a medium; ranges are served, so that a player can jump.

    Args:
        kept: whether its analysis is; a copy that is missing is made for such only.

    Raises:
        NotFoundError: the file is gone, or so damaged that its metadata cannot be told from it.
        UnavailableError: the copy is not there yet; it has been asked for now.
        StorageFullError: the disk had no room for it a moment ago.
    """
    parts = services()
    size = parts.store.size(media.stored_name, CLEAN_SUFFIX)
    if parts.store.size(media.stored_name) is None:
        raise NotFoundError("The file of this analysis is gone.")
    if size is None:
        if not kept:
            raise NotFoundError("This analysis is not kept, so its file is not handed out.")
        _ask_for_copy(parts, media)
        raise UnavailableError("The copy without metadata is not there yet.", retry_after_s=RETRY_S)
    if not size:
        raise NotFoundError(f"This {media.kind} is damaged: metadata could not be removed, so it is not handed out.")
    name = f"telltale-{media.sha256[:12]}.{FORMATS[media.format].endings[0]}"
    link = parts.store.link(media.stored_name, CLEAN_SUFFIX, media.mime, name)
    if link is None:
        clean = parts.store.path(media.stored_name, CLEAN_SUFFIX)
        answer = send_file(clean, mimetype=media.mime, as_attachment=True, download_name=name, conditional=True)
    elif request.method == "HEAD":  # the link is for GET
        answer = Response(mimetype=media.mime, headers={"Content-Length": str(size)})
    else:
        answer = Response(status=302, headers={"Location": link})
    answer.headers["Content-Security-Policy"] = identity.MEDIA_POLICY
    answer.headers["Cache-Control"] = PRIVATE
    return answer


def _ask_for_copy(parts: Services, media: MediaRow) -> None:
    """Queue the making of a copy, unless another one is being made; then it is asked for again later.

    Raises:
        TelltaleError: what the last try failed with, for a while; each further one would fail as well.
    """
    payload, lately = {"media": media.sha256}, utc_now() - FAILED_FOR
    with contextlib.suppress(ConflictError), parts.database.write() as session:
        for job in session.scalars(sa.select(JobRow).where(JobRow.task == COPY)).all():
            failed = job.state == JobState.FAILED and job.finished_at is not None and job.finished_at > lately
            if failed and job.payload == payload:
                raise schemas.job_error(job)
            if job.state in FINAL and not failed:
                session.delete(job)
        parts.queue.add_task(session, COPY, payload)
