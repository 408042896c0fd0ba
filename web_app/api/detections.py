"""Finished analyses: one, many, the file behind one, and real deletion."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from flask import Response, current_app, request
from sqlalchemy.orm import Session

from utils.errors import ConflictError, NotFoundError
from web_app.api import present
from web_app.api.conditional import conditional_json
from web_app.api.parse import parse_query
from web_app.api.schemas import HistoryFilter, HistoryQuery
from web_app.auth import identity
from web_app.db.models import DetectionRow, FeedbackRow, JobRow, JobState, MediaRow
from web_app.feedback import votes
from web_app.services import services
from web_app.storage.detections import find_detection
from web_app.storage.media import hand_out


def get_history() -> Response:
    """Your analyses, newest first, a page at a time; those of everybody for an administrator."""
    parts = services()
    query = parse_query(HistoryQuery, request.args)
    asking = identity.caller()
    wanted = matching(query, asking)
    page = wanted.order_by(JobRow.id.desc()).offset((query.page - 1) * query.per_page).limit(query.per_page)
    with parts.database.read() as session:
        total = session.scalar(sa.select(sa.func.count()).select_from(wanted.subquery())) or 0
        rows = session.scalars(page).all()
        own = votes.find_voices(session, {row.media.sha256 for row in rows}, asking.id)
        items = [
            present.history_item(
                row, own.get(row.media.sha256), has_thumbnail=parts.store.thumbnail(row.media.stored_name).is_file()
            )
            for row in rows
        ]
    return conditional_json({"items": items, "page": query.page, "per_page": query.per_page, "total": total})


def matching(query: HistoryFilter, asking: identity.Caller) -> sa.Select[DetectionRow]:
    """The analyses that a caller sees and the filters choose, joined with their jobs and media, in no order."""
    wanted = sa.select(DetectionRow).join(DetectionRow.job).join(DetectionRow.media)
    wanted = wanted.where(DetectionRow.expires_at.is_(None))  # those with an end are not to be kept
    if "admin" not in asking.scopes:
        wanted = wanted.where(DetectionRow.client_id == asking.id)
    if query.kind is not None:
        wanted = wanted.where(MediaRow.kind == query.kind)
    if query.prediction is not None:
        wanted = wanted.where(DetectionRow.prediction == query.prediction)
    if query.text is not None:
        wanted = wanted.where(DetectionRow.display_name.icontains(query.text, autoescape=True))
    if query.since is not None:
        wanted = wanted.where(JobRow.created_at >= day_start(query.since))
    if query.until is not None:
        wanted = wanted.where(JobRow.created_at < day_start(query.until) + dt.timedelta(days=1))
    return wanted


def get_detection(id: str) -> Response:
    """The report of a finished analysis, with its name and this client's feedback."""
    parts = services()
    client = identity.caller().id
    with parts.database.read() as session:
        row = require_detection(session, id)
        require_done(row)
        return conditional_json(present.detection(row, find_voice(session, row, client)))


def remove_detection(id: str) -> Response:
    """Delete an analysis with its report and feedback; the file goes too, unless another analysis needs it."""
    parts = services()
    with parts.database.read() as session:
        require_detection(session, id)
    if not parts.delete_detection(id):
        raise NotFoundError("There is no analysis with this id.")
    return current_app.response_class(status=204)


def get_media(id: str) -> Response:
    """The uploaded file without its metadata; ranges are served, so that a player can jump."""
    parts = services()
    with parts.database.read() as session:
        media = require_detection(session, id).media
    return hand_out(parts.store.path(media.stored_name), media, parts.readers)


def day_start(day: dt.date) -> dt.datetime:
    """Midnight at the beginning of a day, UTC."""
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def require_detection(session: Session, public_id: str) -> DetectionRow:
    """The caller's detection with this id.

    Raises:
        NotFoundError: there is none, or it is somebody else's, which nobody needs to know.
    """
    row = find_detection(session, public_id)
    if row is None or not identity.caller().owns(row.client_id):
        raise NotFoundError("There is no analysis with this id.")
    return row


def require_done(row: DetectionRow) -> None:
    """Refuse an analysis without a report.

    Raises:
        ConflictError: it waits, runs, failed or was cancelled; the fact `state` says which.
    """
    if row.job.state != JobState.DONE:
        raise ConflictError(f"The analysis has no report: it is {row.job.state}.", state=row.job.state)


def find_voice(session: Session, row: DetectionRow, client_id: str) -> FeedbackRow | None:
    """What this client last said about a detection's medium."""
    return votes.find_voice(session, row.media.sha256, client_id)
