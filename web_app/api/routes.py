"""The table of all routes below /api: where, what answers, and what the OpenAPI document says about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import BaseModel
from werkzeug.wrappers import Response

from utils import errors
from web_app.api import detect, detections, feedback, jobs, ops, schemas

UPLOAD = "multipart/form-data"
MEDIA = "the file's own media type"
EVENTS = "text/event-stream"
DOCUMENT = "application/json"

Answer = type[BaseModel] | str | None
"""Schema of a JSON answer, the media type of another one, or None for an empty body."""


@dataclass(frozen=True)
class Route:
    """One route.

    Args:
        method: HTTP method.
        path: below /api, with Flask's place holders.
        view: the function; its docstring is the description.
        answers: status to body.
        failures: errors that this route answers with, beside those that any route may.
        request: schema of the JSON body, or the media type of another body.
        query: schema of the query string.
        waits: whether `wait` and `Prefer` are understood.
    """

    method: str
    path: str
    view: Callable[..., Response]
    answers: dict[int, Answer]
    failures: tuple[type[errors.TelltaleError], ...] = ()
    request: type[BaseModel] | str | None = None
    query: type[BaseModel] | None = None
    waits: bool = field(default=False)


_UPLOAD_FAILURES = (
    errors.BadRequestError,
    errors.CrossSiteError,
    errors.JobCancelledError,
    errors.MediaTooLargeError,
    errors.UnsupportedMediaError,
    errors.MediaError,
    errors.QueueFullError,
    errors.StorageFullError,
)
_UPLOAD_ANSWERS: dict[int, Answer] = {200: schemas.Result, 202: schemas.Accepted}


def _upload(path: str, view: Callable[..., Response]) -> Route:
    return Route("POST", path, view, _UPLOAD_ANSWERS, _UPLOAD_FAILURES, request=UPLOAD, waits=True)


def all_routes(openapi_view: Callable[..., Response]) -> tuple[Route, ...]:
    """Every route of the API; the document's own view is handed in, because it is made of this table."""
    missing, conflict, cross = errors.NotFoundError, errors.ConflictError, errors.CrossSiteError
    return (
        _upload("/detect", detect.detect),
        _upload("/detect/image", detect.detect_image),
        _upload("/detect/video", detect.detect_video),
        Route("GET", "/jobs/<id>", jobs.get_job, {200: schemas.Job}, (missing,)),
        Route("GET", "/jobs/<id>/events", jobs.get_job_events, {200: EVENTS}, (missing,)),
        Route("DELETE", "/jobs/<id>", jobs.cancel_job, {200: schemas.Job}, (missing, conflict, cross)),
        Route(
            "GET", "/history", detections.get_history, {200: schemas.History}, (errors.InvalidFieldError,),
            query=schemas.HistoryQuery,
        ),
        Route("GET", "/detections/<id>", detections.get_detection, {200: schemas.Detection}, (missing, conflict)),
        Route("DELETE", "/detections/<id>", detections.remove_detection, {204: None}, (missing, cross)),
        Route("GET", "/detections/<id>/media", detections.get_media, {200: MEDIA, 206: MEDIA, 304: None}, (missing,)),
        Route(
            "POST", "/feedback", feedback.give_feedback, {201: schemas.FeedbackState},
            (errors.BadRequestError, missing, conflict, cross, errors.MediaTooLargeError, errors.FeedbackError,
             errors.InvalidFieldError),
            request=schemas.FeedbackRequest,
        ),
        Route("GET", "/rl/stats", feedback.get_stats, {200: schemas.Stats}),
        Route("POST", "/rl/retrain", feedback.retrain, {}, (errors.NotAvailableError, cross)),
        Route("GET", "/health", ops.get_health, {200: schemas.Health}),
        Route("GET", "/ready", ops.get_ready, {200: schemas.Ready, 503: schemas.Ready}),
        Route("GET", "/openapi.json", openapi_view, {200: DOCUMENT}),
    )  # fmt: skip
