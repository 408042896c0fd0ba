"""Close-ups of one face, their heatmaps, and thumbnails; what they are made of is computed by the worker."""

from __future__ import annotations

from typing import Any

from flask import Response, current_app, jsonify, request, send_file, url_for
from sqlalchemy.orm import Session

from utils.errors import NotFoundError
from web_app.api import present
from web_app.api.detections import require_detection
from web_app.api.page_schemas import FaceQuery, HeatmapQuery
from web_app.api.parse import parse_query
from web_app.auth import identity
from web_app.db.models import CloseupRow, JobState
from web_app.errors import error_of
from web_app.jobs.queue import JobQueue
from web_app.services import services
from web_app.storage.explanations import find_closeup, heatmap_png, request_closeup, require_face
from web_app.storage.files import THUMBNAIL_MIME

CACHE = "private, max-age=31536000, immutable"  # a heatmap never changes; with its analysis its address is gone


def ask_closeup(id: str) -> Response:
    """Ask for a closer look at one face; answered at once, `GET` tells how far it is. Asking again changes nothing."""
    parts = services()
    query = parse_query(FaceQuery, request.args)
    with parts.database.write() as session:
        row = require_detection(session, id)
        offered = parts.settings.page.closeups == "on"
        closeup = request_closeup(session, parts.queue, row, query.face, offered=offered)
        answer = jsonify(_present(session, parts.queue, id, closeup))
    answer.status_code = 202
    return answer


def get_closeup(id: str) -> Response:
    """How far the closer look at one face is, and what it gave; the state is null before somebody has asked."""
    parts = services()
    query = parse_query(FaceQuery, request.args)
    with parts.database.read() as session:
        row = require_detection(session, id)
        require_face(row, query.face)
        closeup = find_closeup(session, row, query.face)
        if closeup is None:
            nothing = dict.fromkeys(("state", "stage", "position", "error", "result"))
            return jsonify({"face": query.face, "fraction": 0.0, **nothing})
        return jsonify(_present(session, parts.queue, id, closeup))


def get_heatmap(id: str) -> Response:
    """Where one expert sees signs of manipulation: a small grey-level PNG over the square that the close-up names."""
    query = parse_query(HeatmapQuery, request.args)
    with services().database.read() as session:
        row = require_detection(session, id)
        png = heatmap_png(find_closeup(session, row, query.face), query.expert)
    return _picture(current_app.response_class(png, mimetype="image/png"))


def get_thumbnail(id: str) -> Response:
    """A small picture of the medium, made of its decoded pixels: nothing else of the upload is in it."""
    parts = services()
    with parts.database.read() as session:
        path = parts.store.thumbnail(require_detection(session, id).media.stored_name)
    if not path.is_file():
        raise NotFoundError("There is no thumbnail of this medium.")
    return _picture(send_file(path, mimetype=THUMBNAIL_MIME, conditional=True))


def _picture(answer: Response) -> Response:
    answer.headers["Content-Security-Policy"] = identity.MEDIA_POLICY
    answer.headers["Cache-Control"] = CACHE
    return answer


def _present(session: Session, queue: JobQueue, public_id: str, closeup: CloseupRow) -> dict[str, Any]:
    job = closeup.job
    failed = job.state == JobState.FAILED
    return {
        "face": closeup.face,
        "state": job.state,
        "stage": job.stage,
        "fraction": job.fraction,
        "position": queue.ahead(session, job),
        "error": error_of(job.error_code or "internal", job.error_detail or "").to_problem() if failed else None,
        "result": _result(public_id, closeup) if job.state == JobState.DONE else None,
    }


def _result(public_id: str, closeup: CloseupRow) -> dict[str, Any]:
    stored = dict(closeup.job.result or {})
    maps = []
    for found in stored["maps"]:
        plain = {key: value for key, value in found.items() if key != "png"}
        has_map = found["png"] is not None
        query = {"id": public_id, "face": closeup.face, "expert": found["expert"]}
        maps.append(plain | {"heatmap": url_for(f"{present.api_name()}.get_heatmap", **query) if has_map else None})
    return stored | {"maps": maps}
