"""What can be said about a request by its headers alone, before its body is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from utils.errors import BadRequestError, MediaTooLargeError, TelltaleError, UnauthorizedError
from web_app.api.routing import MAX_JSON_BYTES, PREFIX, UPLOAD, UPLOADS, VERSIONED_PREFIX, Route
from web_app.auth.identity import SESSION_COOKIE
from web_app.services import Services

BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})


class HeaderGate:
    """Refuses what cannot be accepted: no key where one is asked for, no multipart, too long, or the queue is full.

    The queue is known to be full for a moment after it has refused somebody; nobody waits for the database here, where
    all connections are served by one thread.

    Args:
        parts: of the application.
        routes: the table; those that take an upload are told apart from the others.
    """

    def __init__(self, parts: Services, routes: Iterable[Route]) -> None:
        self._queue = parts.queue
        uploads = [route.path for route in routes if route.body in (UPLOAD, UPLOADS)]
        self._uploads = {prefix + path for prefix in (PREFIX, VERSIONED_PREFIX) for path in uploads}
        self._keyed = parts.settings.security.keys == "on"
        self._prefix = parts.settings.page.prefix.rstrip("/")

    def __call__(self, method: str, path: str, headers: Mapping[str, str]) -> TelltaleError | None:
        if method not in BODY_METHODS:
            return None
        path = path.removeprefix(self._prefix) if self._prefix else path
        if self._keyed and path.startswith(f"{PREFIX}/") and not _has_credentials(headers):
            return UnauthorizedError("There is no API key in this request.")
        if path not in self._uploads:
            return _refuse_long_form(headers)
        content_type = headers.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if content_type != UPLOAD:
            return BadRequestError("Send the file as multipart/form-data in a part named `file`.")
        return self._queue.recently_full()


def _has_credentials(headers: Mapping[str, str]) -> bool:
    """Whether there is anything to look at; whether it opens something is found out later."""
    return "AUTHORIZATION" in headers or f"{SESSION_COOKIE}=" in headers.get("COOKIE", "")


def _refuse_long_form(headers: Mapping[str, str]) -> TelltaleError | None:
    """Everything but uploads is short, and says so before it comes."""
    if "TRANSFER_ENCODING" in headers:
        return BadRequestError("This route takes no chunked body: send Content-Length.")
    length = headers.get("CONTENT_LENGTH", "0")
    if length.isdecimal() and int(length) > MAX_JSON_BYTES:
        return MediaTooLargeError(f"This route takes no more than {MAX_JSON_BYTES} bytes.", limit_bytes=MAX_JSON_BYTES)
    return None
