"""A request's id in its answer and in every line that is logged for it, and one line about each that matters."""

from __future__ import annotations

import contextlib
import secrets
import time

from flask import Response, current_app, g, request
from werkzeug.exceptions import MethodNotAllowed

from utils.log import get_logger, log_fields

HEADER = "X-Request-Id"
LOOKING = ("GET", "HEAD", "OPTIONS")

log = get_logger(__name__)


def begin() -> None:
    """Give the request an id of ours; what a client sends under that name is not looked at."""
    g.request_id = secrets.token_hex(8)
    g.request_began = time.perf_counter()
    g.log_context = contextlib.ExitStack()
    g.log_context.enter_context(log_fields(request_id=g.request_id))


def say(response: Response) -> Response:
    """Name the id in the answer. Requests that only look and succeed are logged at debug: pages ask many of them."""
    response.headers[HEADER] = g.request_id
    quiet = request.method in LOOKING and response.status_code < 400
    took_ms = round((time.perf_counter() - g.request_began) * 1e3, 1)
    route = _route()
    named = (request.view_args or {}).get("id")
    log.log(
        10 if quiet else 20, "%s %s %d %.1f ms", request.method, route, response.status_code, took_ms,
        extra={"method": request.method, "route": route, "status": response.status_code, "took_ms": took_ms,
               **({"job_id": str(named)[:64]} if named else {})},
    )  # fmt: skip
    return response


def _route() -> str:
    """The rule that the request's path has, also where it does not take the method."""
    rule, refused, adapter = request.url_rule, request.routing_exception, current_app.create_url_adapter(request)
    if adapter and isinstance(refused, MethodNotAllowed) and refused.valid_methods:
        rule, _ = adapter.match(method=next(iter(refused.valid_methods)), return_rule=True)
    return "unknown route" if rule is None else rule.rule


def end(_error: BaseException | None) -> None:
    """Later lines of this thread are not the request's."""
    stack = g.pop("log_context", None)
    if stack is not None:
        stack.close()
