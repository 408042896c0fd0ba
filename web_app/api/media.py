"""Handing uploaded files out: their clean copies, as a download with a fixed type that may run nothing."""

from __future__ import annotations

import contextlib
import datetime as dt

import sqlalchemy as sa
from flask import Response, send_file

from utils.errors import ConflictError, NotFoundError, UnavailableError
from utils.media.sniff import FORMATS
from web_app.api.schemas import job_error
from web_app.auth.identity import MEDIA_POLICY
from web_app.db.models import COPY, JobRow, JobState, MediaRow, utc_now
from web_app.services import Services, services

RETRY_S = 2
FAILED_FOR = dt.timedelta(minutes=1)


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
    clean = parts.store.clean(media.stored_name)
    if not parts.store.path(media.stored_name).is_file():
        raise NotFoundError("The file of this analysis is gone.")
    if not clean.is_file():
        if not kept:
            raise NotFoundError("This analysis is not kept, so its file is not handed out.")
        _ask_for_copy(parts, media)
        raise UnavailableError("The copy without metadata is not there yet.", retry_after_s=RETRY_S)
    if not clean.stat().st_size:
        raise NotFoundError(f"This {media.kind} is damaged: metadata could go with it, so it is not handed out.")
    answer = send_file(
        clean,
        mimetype=media.mime,
        as_attachment=True,
        download_name=f"telltale-{media.sha256[:12]}.{FORMATS[media.format].endings[0]}",
        conditional=True,
    )
    answer.headers["Content-Security-Policy"] = MEDIA_POLICY
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Cache-Control"] = "private, no-cache"
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
                raise job_error(job)
            if JobState(job.state).final and not failed:
                session.delete(job)
        parts.queue.add_task(session, COPY, payload)
