"""The OpenAPI document, made of the table of routes and the pydantic models."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from web_app.api import schemas
from web_app.api.routes import EVENTS, MEDIA, UPLOAD, Answer, Route
from web_app.problems import MIME as PROBLEM_MIME
from web_app.version import VERSION

REFERENCE = "#/components/schemas/{model}"
PLACE_HOLDER = re.compile(r"<(\w+)>")
UPLOAD_BODY = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary", "description": "picture or video"}},
    "required": ["file"],
}
WAIT_PARAMETERS = [
    {
        "name": "wait", "in": "query", "required": False, "schema": {"type": "integer", "enum": [0, 1]},
        "description": "1 waits for the verdict, at most two minutes; 0 does not wait",
    },
    {
        "name": "Prefer", "in": "header", "required": False, "schema": {"type": "string"},
        "description": "RFC 7240: `respond-async`, or `wait=` and seconds",
    },
]  # fmt: skip


def openapi_document(routes: Iterable[Route], prefix: str) -> dict[str, Any]:
    """The OpenAPI 3.1 description of the routes.

    Args:
        routes: the table.
        prefix: under which they are reached, `/api`.
    """
    routes = tuple(routes)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        paths[prefix + PLACE_HOLDER.sub(r"{\1}", route.path)][route.method.lower()] = _operation(route)
    models: set[type[BaseModel]] = {schemas.Problem, *(model for route in routes for model in _models(route))}
    _, definitions = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda m: m.__name__)], ref_template=REFERENCE
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Telltale",
            "version": VERSION,
            "description": "Deepfake detection that says what it knows, and when it does not.",
        },
        "paths": dict(paths),
        "components": {"schemas": definitions["$defs"]},
    }


def _operation(route: Route) -> dict[str, Any]:
    description = inspect.getdoc(route.view) or ""
    operation: dict[str, Any] = {
        "operationId": route.view.__name__,
        "summary": description.split("\n", 1)[0],
        "parameters": [*_path_parameters(route), *_query_parameters(route), *(WAIT_PARAMETERS if route.waits else ())],
        "responses": {str(status): _answer(status, answer) for status, answer in route.answers.items()},
    }
    if route.request == UPLOAD:
        operation["requestBody"] = {"required": True, "content": {UPLOAD: {"schema": UPLOAD_BODY}}}
    elif isinstance(route.request, type):
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(route.request)}}}
    by_status: dict[int, list[str]] = defaultdict(list)
    for failure in route.failures:
        by_status[failure.status].append(f"`{failure.code}`: {failure.title}")
    for status, reasons in sorted(by_status.items()):
        operation["responses"][str(status)] = _problem("; ".join(reasons))
    operation["responses"]["default"] = _problem("Any other error")
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in PLACE_HOLDER.findall(route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    properties = route.query.model_json_schema()["properties"]
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in properties.items()]


def _answer(status: int, answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(answer, type):
        described["content"] = {"application/json": {"schema": _ref(answer)}}
    elif answer == MEDIA:
        described["content"] = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    elif answer == EVENTS:
        described["content"] = {EVENTS: {"schema": {"type": "string"}}}
        described["description"] = "A stream whose `data` lines are Job objects"
    elif answer is not None:
        described["content"] = {answer: {"schema": {"type": "object"}}}
    return described


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {PROBLEM_MIME: {"schema": _ref(schemas.Problem)}}}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}


def _models(route: Route) -> list[type[BaseModel]]:
    return [item for item in (*route.answers.values(), route.request) if isinstance(item, type)]
