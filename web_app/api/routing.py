"""How a view becomes a route: one decorator says where it answers, what it takes, gives and refuses, and to whom."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_type_hints

from flask import Blueprint, Request, Response, current_app, jsonify, request, stream_with_context
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from utils import errors
from web_app.api.schemas import Schema
from web_app.auth.identity import require_scope
from web_app.services import services

PREFIXES = "/api/v1", "/api"
"""Each route answers below both; the first will stay as it is."""
MAX_JSON_BYTES = 64 * 1024
PRIVATE = "private, no-cache"  # kept by the client alone, and only with asking each time
DEPENDS_ON = "Authorization, Cookie"

UPLOAD = "multipart/form-data"
UPLOADS = "multipart/form-data with several files"
MEDIA = "the file's own media type"
EVENTS, DOCUMENT, CSV = "text/event-stream", "application/json", "text/csv"
PNG, JPEG, HTML, PDF, ZIP = "image/png", "image/jpeg", "text/html", "application/pdf", "application/zip"

Answer = type[BaseModel] | str | None
"""Schema of a JSON answer, the media type of another one, or None for an empty body."""
Given = Schema | Response | None
"""What a view returns: the answer's values, a finished answer, or None for 204."""
View = TypeVar("View", bound=Callable[..., Given])
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Route:
    """One route, as `route` takes it; the name and docstring of `view` are its id and description."""

    method: str
    path: str
    view: Callable[..., Given]
    answers: Mapping[int, tuple[Answer, ...]]
    failures: Sequence[type[errors.TelltaleError]]
    body: type[BaseModel] | str | None
    query: type[BaseModel] | None
    waits: bool
    scope: str | None


blueprint = Blueprint("api", __name__)
ROUTES: list[Route] = []
"""Every route, in the order of the modules; the OpenAPI document is made of it."""


def route(
    method: str,
    path: str,
    answers: Mapping[int, Answer | tuple[Answer, ...]],
    *failures: type[errors.TelltaleError],
    body: str | None = None,
    waits: bool = False,
    scope: str | None = "analyse",
) -> Callable[[View], View]:
    """Make a view the route `method path` below /api and /api/v1.

    The view gets the place holders of the path, and what else it names: `query` and `said`, the query string and the
    JSON body, checked by the models that they are annotated with; a `session` of the database that ends with it, to
    read for GET, else in a writing transaction. The values it returns are answered as JSON with the first status; where
    304 is among them, with an ETag.

    Args:
        path: below the prefix, with Flask's place holders.
        answers: status to body, the usual status first.
        failures: errors that it answers with, beside those that follow from the rest.
        body: the media type of a body that is no JSON.
        waits: whether `wait` and `Prefer` are understood.
        scope: what the caller's key must allow; None answers everybody.
    """
    given_answers = {status: each if isinstance(each, tuple) else (each,) for status, each in answers.items()}

    def note(view: View) -> View:
        named = get_type_hints(view)
        said, query = named.get("said"), named.get("query")
        raised = list(failures)
        if "<" in path:
            raised.append(errors.NotFoundError)
        if query is not None:
            raised.append(errors.InvalidFieldError)
        if said or body:
            raised.append(errors.ContentEncodingError)
        if said is not None:
            raised += (errors.BadRequestError, errors.InvalidFieldError, errors.MediaTooLargeError)
        if scope is not None:
            raised += (errors.UnauthorizedError, errors.ForbiddenError)
        if method != "GET":
            raised.append(errors.CrossSiteError)

        @functools.wraps(view)
        def answer(**values: object) -> Response:
            if scope is not None:
                require_scope(scope)
            if query is not None:
                values["query"] = _validate(query, dict(request.args))
            if said or body:
                _refuse_coded(request)
            if said is not None:
                values["said"] = _parse_json(said, request)
            with contextlib.ExitStack() as held:
                if "session" in named:
                    database = services().database
                    values["session"] = held.enter_context(database.read() if method == "GET" else database.write())
                given = view(**values)
            if given is None:
                return current_app.response_class(status=204)
            if isinstance(given, Response):
                return given
            made = json_answer(given, next(iter(answers)))
            return conditional(made) if 304 in answers else made

        ROUTES.append(Route(method, path, view, given_answers, raised, said or body, query, waits, scope))
        blueprint.add_url_rule(
            path, endpoint=view.__name__, view_func=answer, methods=[method], provide_automatic_options=False
        )
        return view

    return note


def json_answer(values: Schema, status: int = 200, location: str | None = None) -> Response:
    """A JSON answer; `location` becomes the header of that name."""
    answer = jsonify(values.plain())
    answer.status_code = status
    if location is not None:
        answer.headers["Location"] = location
    return answer


def streamed(pieces: Iterator[str] | Iterator[bytes], mimetype: str, name: str = "") -> Response:
    """An answer that is sent while it is made and kept nowhere; with a name it is a file to save."""
    answer = current_app.response_class(stream_with_context(pieces), mimetype=mimetype)
    answer.headers["Cache-Control"] = "no-store"
    if name:
        answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def conditional(answer: Response) -> Response:
    """A whole answer with an ETag of its bytes, or 304 without a body for a client that has it already.

    Source: RFC 9110, sections 8.8.3 (ETag) and 13.1.2 (If-None-Match).
    """
    answer.add_etag()
    answer.headers["Cache-Control"] = PRIVATE
    answer.headers["Vary"] = DEPENDS_ON
    answer.make_conditional(request)
    return answer


def _refuse_coded(asked: Request) -> None:
    coding = asked.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() not in ("", "identity"):
        raise errors.ContentEncodingError(f"The body comes with Content-Encoding: {coding[:40]}; none is decoded here.")


def needs_body(model: type[BaseModel]) -> bool:
    """Whether a request must have a body: some field of it has no default."""
    return any(each.is_required() for each in model.model_fields.values())


def _parse_json(model: type[Model], asked: Request) -> Model:
    """The body as a checked value; BadRequestError where it is no JSON object, or not declared as JSON."""
    asked.max_content_length = MAX_JSON_BYTES
    try:
        untrusted = asked.get_json() if needs_body(model) or asked.get_data() else {}
    except (BadRequest, UnsupportedMediaType, RecursionError) as error:
        raise errors.BadRequestError("Send a JSON object with Content-Type application/json.") from error
    if not isinstance(untrusted, dict):
        raise errors.BadRequestError("The body must be a JSON object.")
    return _validate(model, untrusted)


def _validate(model: type[Model], untrusted: object) -> Model:
    """A checked value, without the character NUL, which PostgreSQL keeps in no text.

    Raises:
        InvalidFieldError: with every wrong field and what is wrong about it.
    """
    try:
        found = model.model_validate(untrusted)
    except ValidationError as error:
        problems = [
            {"field": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"]}
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    else:
        nul = [name for name, value in found if isinstance(value, str) and "\0" in value]
        problems = [{"field": name, "message": "Input should hold no NUL"} for name in nul]
        if not problems:
            return found
    named = "; ".join(f"{fault['field'] or 'body'}: {fault['message']}" for fault in problems)
    raise errors.InvalidFieldError(f"{named}.", errors=problems)
