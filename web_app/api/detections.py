"""Finished analyses: one, many, the file behind one, and real deletion."""

from __future__ import annotations

import sqlalchemy as sa
from flask import Response, current_app, jsonify, request, send_file
from sqlalchemy.orm import Session

from utils.errors import ConflictError, NotFoundError
from web_app import security
from web_app.api import present
from web_app.api.parse import parse_query
from web_app.api.schemas import HistoryQuery
from web_app.db import DetectionRow, FeedbackRow, JobRow, JobState, MediaRow
from web_app.detections import delete_detection, find_detection
from web_app.services import services

ENDINGS = {"jpeg": "jpg", "matroska": "mkv"}  # where the format's name is not its usual ending


def get_history() -> Response:
    """All analyses of this server, newest first, a page at a time."""
    parts = services()
    query = parse_query(HistoryQuery, request.args)
    wanted = sa.select(DetectionRow).join(DetectionRow.job).join(DetectionRow.media)
    if query.kind is not None:
        wanted = wanted.where(MediaRow.kind == query.kind)
    if query.prediction is not None:
        wanted = wanted.where(DetectionRow.prediction == query.prediction)
    page = wanted.order_by(JobRow.id.desc()).offset((query.page - 1) * query.per_page).limit(query.per_page)
    client = security.client_id(parts.secret)
    with parts.database.read() as session:
        total = session.scalar(sa.select(sa.func.count()).select_from(wanted.subquery())) or 0
        rows = session.scalars(page).all()
        voices = {
            voice.detection_id: voice
            for voice in session.scalars(
                sa.select(FeedbackRow).where(
                    FeedbackRow.client_id == client, FeedbackRow.detection_id.in_([row.job_id for row in rows])
                )
            )
        }
        items = [present.history_item(row, voices.get(row.job_id)) for row in rows]
    return jsonify(items=items, page=query.page, per_page=query.per_page, total=total)


def get_detection(id: str) -> Response:
    """The report of a finished analysis, with its name and this client's feedback."""
    parts = services()
    client = security.client_id(parts.secret)
    with parts.database.read() as session:
        row = require_detection(session, id)
        require_done(row)
        return jsonify(present.detection(row, find_voice(session, row, client)))


def remove_detection(id: str) -> Response:
    """Delete an analysis with its report and feedback; the file goes too, unless another analysis needs it."""
    parts = services()
    if not delete_detection(parts.database, parts.store, id):
        raise NotFoundError("There is no analysis with this id.")
    return current_app.response_class(status=204)


def get_media(id: str) -> Response:
    """The uploaded file itself; ranges are served, so that a player can jump."""
    parts = services()
    with parts.database.read() as session:
        media = require_detection(session, id).media
    path = parts.store.path(media.stored_name)
    if not path.is_file():
        raise NotFoundError("The file of this analysis is gone.")
    answer = send_file(
        path,
        mimetype=media.mime,
        download_name=f"telltale-{media.sha256[:12]}.{ENDINGS.get(media.format, media.format)}",
        etag=media.sha256,
        conditional=True,
    )
    answer.headers["Content-Security-Policy"] = security.MEDIA_POLICY
    answer.headers["Cache-Control"] = "private, no-cache"
    return answer


def require_detection(session: Session, public_id: str) -> DetectionRow:
    """The detection with this id.

    Raises:
        NotFoundError: there is none.
    """
    row = find_detection(session, public_id)
    if row is None:
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
    """What this client last said about a detection."""
    return session.scalar(
        sa.select(FeedbackRow).where(FeedbackRow.detection_id == row.job_id, FeedbackRow.client_id == client_id)
    )
