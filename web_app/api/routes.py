"""The table of all routes below /api: where, what answers, and what the OpenAPI document says about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import BaseModel
from werkzeug.wrappers import Response

from utils import errors
from web_app.api import (
    batch,
    detect,
    detections,
    docs,
    feedback,
    fetch,
    heatmaps,
    jobs,
    learning,
    learning_schemas,
    ops,
    page_schemas,
    reports,
    review,
    schemas,
    versions,
    webhooks,
)
from web_app.api.report_schemas import ReportDocument

UPLOAD = "multipart/form-data"
UPLOADS = "multipart/form-data with several files"
MEDIA = "the file's own media type"
EVENTS = "text/event-stream"
DOCUMENT = "application/json"
PNG, JPEG = "image/png", "image/jpeg"
HTML, PDF = "text/html", "application/pdf"

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
        scope: what the caller's key must allow; None answers everybody.
    """

    method: str
    path: str
    view: Callable[..., Response]
    answers: dict[int, Answer | tuple[Answer, ...]]
    failures: tuple[type[errors.TelltaleError], ...] = ()
    request: type[BaseModel] | str | None = None
    query: type[BaseModel] | None = None
    waits: bool = field(default=False)
    scope: str | None = "analyse"


_UPLOAD_FAILURES = (
    errors.BadRequestError,
    errors.CrossSiteError,
    errors.JobCancelledError,
    errors.MediaTooLargeError,
    errors.UnsupportedMediaError,
    errors.MediaError,
    errors.QueueFullError,
    errors.IdempotencyError,
    errors.StorageFullError,
    errors.UnavailableError,
)
_UPLOAD_ANSWERS: dict[int, Answer | tuple[Answer, ...]] = {200: schemas.Result, 202: schemas.Accepted}


def _upload(path: str, view: Callable[..., Response]) -> Route:
    return Route("POST", path, view, _UPLOAD_ANSWERS, _UPLOAD_FAILURES, request=UPLOAD, waits=True)


def _extra_routes() -> tuple[Route, ...]:
    """Reports, batches, URL input, webhooks, and the description as a page."""
    missing, conflict, cross = errors.NotFoundError, errors.ConflictError, errors.CrossSiteError
    body = (errors.BadRequestError, errors.InvalidFieldError, errors.MediaTooLargeError, cross)
    outside = (errors.AddressRefusedError, errors.FetchError, errors.NotAvailableError)
    return (
        Route(
            "POST", "/detect/url", fetch.detect_url, _UPLOAD_ANSWERS, (*_UPLOAD_FAILURES, *body, *outside),
            request=schemas.UrlRequest, waits=True,
        ),
        Route(
            "GET", "/detections/<id>/report", reports.get_report,
            {200: (ReportDocument, HTML, PDF), 304: None}, (missing, conflict, errors.InvalidFieldError),
            query=schemas.ReportQuery,
        ),
        Route(
            "GET", "/history.csv", reports.get_history_csv, {200: reports.CSV}, (errors.InvalidFieldError,),
            query=schemas.CsvQuery,
        ),
        Route("POST", "/batch", batch.create_batch, {202: schemas.Batch}, _UPLOAD_FAILURES, request=UPLOADS),
        Route("GET", "/batch/<id>", batch.get_batch, {200: schemas.Batch, 304: None}, (missing,)),
        Route(
            "POST", "/webhooks", webhooks.create_webhook, {201: schemas.NewWebhook}, (*body, *outside, conflict),
            request=schemas.UrlRequest,
        ),
        Route("GET", "/webhooks", webhooks.list_webhooks, {200: schemas.Webhooks}),
        Route("DELETE", "/webhooks/<id>", webhooks.remove_webhook, {204: None}, (missing, cross)),
        Route("GET", "/webhooks/<id>/deliveries", webhooks.list_deliveries, {200: schemas.Deliveries}, (missing,)),
        Route("GET", "/docs", docs.get_docs, {200: HTML}, scope=None),
        Route("GET", "/docs/<name>", docs.get_docs_asset, {200: MEDIA, 304: None}, (missing,), scope=None),
    )  # fmt: skip


def _learning_routes() -> tuple[Route, ...]:
    """What is learned from feedback, and the review of what may be."""
    missing, conflict, cross = errors.NotFoundError, errors.ConflictError, errors.CrossSiteError
    body = (errors.BadRequestError, errors.InvalidFieldError, cross)
    return (
        Route("GET", "/rl/stats", learning.get_stats, {200: learning_schemas.Stats}),
        Route(
            "POST", "/rl/retrain", learning.retrain, {202: learning_schemas.Training},
            (conflict, errors.NothingNewError, cross), scope="admin",
        ),
        Route("GET", "/rl/retrain/<id>", learning.get_training, {200: learning_schemas.Training}, (missing,)),
        Route("GET", "/rl/versions", learning.get_learning_versions, {200: learning_schemas.LearnedVersions}),
        Route(
            "POST", "/rl/rollback", learning.rollback, {200: learning_schemas.RolledBack},
            (*body, missing, conflict, errors.WeightsError), request=learning_schemas.RollbackRequest, scope="admin",
        ),
        Route(
            "GET", "/rl/review", review.get_review, {200: learning_schemas.Review}, (errors.InvalidFieldError,),
            query=learning_schemas.ReviewQuery, scope="moderate",
        ),
        Route(
            "POST", "/rl/review/<sha256>", review.decide_case, {200: learning_schemas.ReviewCase},
            (*body, missing, errors.FeedbackError), request=learning_schemas.DecisionRequest, scope="moderate",
        ),
        Route(
            "GET", "/rl/review/<sha256>/media", review.get_case_media, {200: MEDIA, 206: MEDIA, 304: None}, (missing,),
            scope="moderate",
        ),
    )  # fmt: skip


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
            "GET", "/history", detections.get_history, {200: schemas.History, 304: None}, (errors.InvalidFieldError,),
            query=schemas.HistoryQuery,
        ),
        Route(
            "GET", "/detections/<id>", detections.get_detection, {200: schemas.Detection, 304: None},
            (missing, conflict),
        ),
        Route("DELETE", "/detections/<id>", detections.remove_detection, {204: None}, (missing, cross)),
        Route("GET", "/detections/<id>/media", detections.get_media, {200: MEDIA, 206: MEDIA, 304: None}, (missing,)),
        Route("DELETE", "/history", versions.clear_history, {200: page_schemas.Cleared}, (cross,)),
        Route("GET", "/detections/<id>/versions", versions.get_versions, {200: page_schemas.Versions}, (missing,)),
        Route("GET", "/detections/<id>/thumbnail", heatmaps.get_thumbnail, {200: JPEG, 304: None}, (missing,)),
        Route(
            "POST", "/detections/<id>/closeup", heatmaps.ask_closeup, {202: page_schemas.Closeup},
            (missing, conflict, cross, errors.InvalidFieldError, errors.NotAvailableError, errors.QueueFullError),
            query=page_schemas.FaceQuery,
        ),
        Route(
            "GET", "/detections/<id>/closeup", heatmaps.get_closeup, {200: page_schemas.Closeup},
            (missing, conflict, errors.InvalidFieldError), query=page_schemas.FaceQuery,
        ),
        Route(
            "GET", "/detections/<id>/heatmap", heatmaps.get_heatmap, {200: PNG}, (missing, errors.InvalidFieldError),
            query=page_schemas.HeatmapQuery,
        ),
        Route(
            "POST", "/feedback", feedback.give_feedback, {201: schemas.FeedbackState},
            (errors.BadRequestError, missing, conflict, cross, errors.MediaTooLargeError, errors.FeedbackError,
             errors.InvalidFieldError),
            request=schemas.FeedbackRequest, scope="feedback",
        ),
        Route("DELETE", "/feedback/<id>", feedback.withdraw_feedback, {204: None}, (missing, cross), scope="feedback"),
        *_learning_routes(),
        *_extra_routes(),
        Route("GET", "/health", ops.get_health, {200: schemas.Health}, scope=None),
        Route("GET", "/ready", ops.get_ready, {200: schemas.Ready, 503: schemas.Ready}, scope=None),
        Route("GET", "/openapi.json", openapi_view, {200: DOCUMENT, 304: None}, scope=None),
    )  # fmt: skip
