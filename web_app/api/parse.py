"""Requests into checked values: JSON bodies and query strings, with every wrong field named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from flask import Request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from utils.errors import BadRequestError, InvalidFieldError

MAX_JSON_BYTES = 64 * 1024

Model = TypeVar("Model", bound=BaseModel)


def parse_query(model: type[Model], untrusted: Mapping[str, str]) -> Model:
    """The query string as a checked value.

    Raises:
        InvalidFieldError: a parameter is unknown or has a value that is not allowed.
    """
    return _validate(model, dict(untrusted))


def parse_json(model: type[Model], request: Request) -> Model:
    """The body as a checked value.

    Raises:
        BadRequestError: the body is no JSON object, or not declared as JSON.
        InvalidFieldError: a field is missing, unknown or has a value that is not allowed.
    """
    request.max_content_length = MAX_JSON_BYTES
    try:
        untrusted = request.get_json()
    except (BadRequest, UnsupportedMediaType, RecursionError) as error:
        raise BadRequestError("Send a JSON object with Content-Type application/json.") from error
    if not isinstance(untrusted, dict):
        raise BadRequestError("The body must be a JSON object.")
    return _validate(model, untrusted)


def _validate(model: type[Model], untrusted: object) -> Model:
    try:
        return model.model_validate(untrusted)
    except ValidationError as error:
        problems = [
            {"field": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"]}
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        named = "; ".join(f"{fault['field'] or 'body'}: {fault['message']}" for fault in problems)
        raise InvalidFieldError(f"{named}.", errors=problems) from error
