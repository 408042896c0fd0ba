"""The OpenAPI document, made of the routes and the pydantic models.

`make openapi` writes it to docs/openapi.json, and docs/report.schema.json beside it, so that a change of the API shows
in review.
"""

from __future__ import annotations

import inspect
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from web_app import VERSION
from web_app.api import routing
from web_app.api.reports import ReportDocument
from web_app.api.schemas import EXAMPLE_ID, EXAMPLE_SHA256, Problem
from web_app.errors import MIME as PROBLEM_MIME
from web_app.paths import ROOT

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/components/schemas/{model}"
PLACE_HOLDER = re.compile(r"<(\w+)>")
SERVERS = (routing.VERSIONED_PREFIX, routing.PREFIX)
PATH_EXAMPLES = {"id": EXAMPLE_ID, "detection": EXAMPLE_ID, "sha256": EXAMPLE_SHA256}
FILE = {"type": "string", "format": "binary", "description": "picture or video"}
BODIES = {
    routing.UPLOAD: {"type": "object", "properties": {"file": FILE}, "required": ["file"]},
    routing.UPLOADS: {
        "type": "object",
        "properties": {"file": {"type": "array", "items": FILE, "minItems": 1}},
        "required": ["file"],
    },
}
FLAG = {"type": "integer", "enum": [0, 1]}


def _parameter(name: str, place: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": False, "schema": schema, "description": description}


AGAIN = _parameter("again", "query", FLAG, "1 analyses although you sent the same file before")
KEEP = _parameter(
    "keep", "query", FLAG,
    "0 waits for the verdict and keeps nothing: file and analysis are deleted before the answer leaves",
)  # fmt: skip
WAIT_PARAMETERS = [
    _parameter("wait", "query", FLAG, "1 waits for the verdict, at most two minutes; 0 does not wait"),
    AGAIN,
    KEEP,
    _parameter("Prefer", "header", {"type": "string"}, "RFC 7240: `respond-async`, or `wait=` and seconds"),
    _parameter(
        "Idempotency-Key", "header",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
        "one value per request: sending it again gives the same analysis, also after a failure",
    ),
]  # fmt: skip
BINARY = {"type": "string", "format": "binary"}
PICTURES_AND_FILES = (routing.PNG, routing.JPEG, routing.PDF, routing.ZIP, routing.MEDIA)
CONTENTS: dict[str, Any] = {routing.DOCUMENT: {"type": "object"}, **dict.fromkeys(PICTURES_AND_FILES, BINARY)}
"""Schema of each media type that is no text."""


def openapi_document(routes: Iterable[routing.Route], servers: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI 3.1 description of the routes.

    Args:
        servers: prefixes under which they are reached, the preferred one first.
    """
    routes = sorted(routes, key=lambda route: route.path)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        paths[PLACE_HOLDER.sub(r"{\1}", route.path)][route.method.lower()] = _operation(route)
    said = (each for route in routes for each in (*itertools.chain(*route.answers.values()), route.body))
    models: set[type[BaseModel]] = {Problem, *(each for each in said if isinstance(each, type))}
    _, definitions = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda m: m.__name__)], ref_template=REFERENCE
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Telltale",
            "version": VERSION,
            "summary": "Deepfake detection that says what it knows, and when it does not.",
            "description": "The guide is docs/api.md. Errors are problem JSON (RFC 9457); its table lists every code.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server} for server in servers],
        "security": [{"key": []}, {}],
        "paths": dict(paths),
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "an API key; needed where keys are on"}
            },
        },
    }


def documents() -> dict[Path, str]:
    """What the present code says, by the file that holds it."""
    of_file = {
        ROOT / "docs" / "openapi.json": openapi_document(routing.ROUTES, SERVERS),
        ROOT / "docs" / "report.schema.json": {"$schema": DIALECT, **ReportDocument.model_json_schema()},
    }
    return {path: json.dumps(document, indent=1, ensure_ascii=False) + "\n" for path, document in of_file.items()}


def _operation(route: routing.Route) -> dict[str, Any]:
    description = inspect.getdoc(route.view) or ""
    summary, _, more = description.partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": route.view.__name__,
        "summary": " ".join(summary.split()),
        "description": _description(route, more),
        "tags": [route.path.split("/")[1].partition(".")[0]],
        "parameters": _parameters(route),
        "responses": {str(status): _answer(status, answers) for status, answers in route.answers.items()},
    }
    if route.scope is None:
        operation["security"] = []
    if isinstance(route.body, str):
        operation["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": BODIES[route.body]}},
        }
    elif route.body is not None:
        operation["requestBody"] = {
            "required": routing.needs_body(route.body),
            "content": {routing.DOCUMENT: {"schema": _ref(route.body)}},
        }
    by_status: dict[int, list[str]] = defaultdict(list)
    for failure in dict.fromkeys(route.failures):
        by_status[failure.status].append(f"`{failure.code}`: {failure.title}")
    for status, reasons in sorted(by_status.items()):
        operation["responses"][str(status)] = _problem("; ".join(reasons))
    operation["responses"]["default"] = _problem("Any other error")
    return operation


def _description(route: routing.Route, more: str) -> str:
    """The rest of the docstring up to its sections, and the scope."""
    text = re.split(r"\n*(?:Args|Returns|Raises|Source):", more)[0].strip()
    scope = "" if route.scope is None else f"Scope: `{route.scope}`."
    return "\n\n".join(part for part in (text, scope) if part)


def _parameters(route: routing.Route) -> list[dict[str, Any]]:
    """Those of the path, of the query, and what uploads understand beside their files."""
    described = {} if route.query is None else route.query.model_json_schema()
    needed = described.get("required", ())
    return [
        *(
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "example": PATH_EXAMPLES[name]}
            for name in PLACE_HOLDER.findall(route.path)
        ),
        *(
            {"name": name, "in": "query", "required": name in needed, "schema": _in_query(schema)}
            for name, schema in described.get("properties", {}).items()
        ),
        *(WAIT_PARAMETERS if route.waits else [AGAIN, KEEP] if route.body == routing.UPLOADS else []),
    ]


def _in_query(schema: dict[str, Any]) -> dict[str, Any]:
    """A field's schema without null, which a query string cannot say, and without pydantic's title."""
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "default", "title")}
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) == 1:
        kept |= choices[0]
    elif choices:
        kept["anyOf"] = choices
    if schema.get("default") is not None:
        kept["default"] = schema["default"]
    return kept


def _answer(status: int, answers: tuple[routing.Answer, ...]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    content: dict[str, Any] = {}
    for each in answers:
        if isinstance(each, type):
            content[routing.DOCUMENT] = {"schema": _ref(each)}
        elif each is not None:
            content["*/*" if each == routing.MEDIA else each] = {"schema": CONTENTS.get(each, {"type": "string"})}
    if routing.EVENTS in content:
        described["description"] = "A stream whose `data` lines are Job objects"
    if content:
        described["content"] = content
    return described


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {PROBLEM_MIME: {"schema": _ref(Problem)}}}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}
