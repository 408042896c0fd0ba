"""Every failure of the API as problem JSON (RFC 9457) with our code; what nobody foresaw is logged, never shown.

A browser that asks for a page, or follows a link, gets a page instead.
"""

from __future__ import annotations

import errno

from flask import Flask, Response, current_app, make_response, render_template, request
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from utils import errors
from utils.errors import TelltaleError
from utils.log import get_logger
from web_app.texts import catalogue, text

MIME = "application/problem+json"
API_PREFIX = "/api/"
DATABASE_RETRY_S = 2

log = get_logger(__name__)


def install(app: Flask) -> None:
    """Answer errors of an application: as problem JSON, and as a page to a browser that asks for one."""
    app.register_error_handler(TelltaleError, problem_response)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(OperationalError, _database_error)
    app.register_error_handler(Exception, _unforeseen)


def problem_response(error: TelltaleError) -> Response:
    """The answer for one of our errors; the fact `retry_after_s` becomes the header Retry-After."""
    accepted = request.accept_mimetypes.best_match([MIME, "text/html"])  # a program that takes anything gets JSON
    followed = request.headers.get("Sec-Fetch-Mode") == "navigate"  # a link of a page, such as that to a report
    if (followed or not request.path.startswith(API_PREFIX)) and accepted == "text/html":
        response = make_response(_page(error), error.status)
    else:
        response = current_app.response_class(
            current_app.json.dumps({**error.to_problem(), "instance": request.path}), error.status, mimetype=MIME
        )
    if "retry_after_s" in error.facts:
        response.headers["Retry-After"] = str(error.facts["retry_after_s"])
    return response


def _page(error: TelltaleError) -> str:
    """What happened, what to do, and the ways on; words of the catalogue for what readers meet most often."""
    known = str(error.status) in catalogue()["failure"]["heading"]
    heading = text(f"failure.heading.{error.status}") if known else error.title
    advice = text(f"failure.advice.{error.status}") if known else error.remedy
    return render_template("error.html", status=error.status, heading=heading, advice=advice)


class HttpError(TelltaleError):
    """An error of HTTP itself that has no class of its own here (405, 414, ...)."""

    remedy = "/api/docs lists every route with its methods."

    def __init__(self, error: HTTPException) -> None:
        self.status = error.code or 500
        self.code = error.name.lower().replace(" ", "_")
        self.title = error.name
        super().__init__(error.description or error.name)


_KNOWN = {400: errors.BadRequestError, 413: errors.MediaTooLargeError}
_CARRIES_FILE = ("multipart/", "image/", "video/", "audio/", "application/octet-stream")


def _wrong_route(error: HTTPException) -> TelltaleError | None:
    """No such route, or not with this method; who sent a file is told where files go."""
    sent = request.method == "POST" and request.mimetype.startswith(_CARRIES_FILE)
    go = "Files to analyse go by POST to /api/detect; " if sent else ""
    if isinstance(error, MethodNotAllowed):
        wrong = HttpError(error)
        methods = " and ".join(sorted(set(error.valid_methods or ()) - {"HEAD", "OPTIONS"}))
        wrong.detail, wrong.remedy = f"{request.method} is not allowed here, but {methods}.", go + HttpError.remedy
        return wrong
    if isinstance(error, NotFound):
        return errors.NotFoundError("There is no such route.", remedy=go + HttpError.remedy)
    return None


def _http_error(error: HTTPException) -> Response:
    known = _KNOWN.get(error.code or 500)
    ours = _wrong_route(error) or (known(error.description or "") if known else HttpError(error))
    response = problem_response(ours)
    for name, value in error.get_headers(request.environ):
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _database_error(error: OperationalError) -> Response:
    log.error("the database refused: %s", error.orig)
    if "full" in str(error.orig):  # SQLite's "database or disk is full"
        return problem_response(errors.StorageFullError())
    return problem_response(errors.UnavailableError("The database does not answer.", retry_after_s=DATABASE_RETRY_S))


def _unforeseen(error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        log.error("the disk is full: %s", error)
        return problem_response(errors.StorageFullError())
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return problem_response(TelltaleError())
