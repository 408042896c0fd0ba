"""The OpenAPI document, made of the routes and the pydantic models.

`make openapi` writes it to docs/openapi.json, which the server hands out, and docs/report.schema.json beside it, so
that a change of the API shows in review.
"""

from __future__ import annotations

import inspect
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from web_app import VERSION, api
from web_app.api import routing
from web_app.api.schemas import Problem
from web_app.errors import MIME as PROBLEM_MIME
from web_app.paths import OPENAPI, ROOT

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/components/schemas/{model}"
PLACE_HOLDER = re.compile(r"<(\w+)>")
EXAMPLE_ID = "5f2b8c1d9e4a7f306b1c2d3e4f5a6b7c"
EXAMPLE_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
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


_VERDICT = {
    "outcome": "fake", "headline": "Substantial evidence of manipulation", "probability": 0.93,
    "interval": [0.88, 0.97],
    "reasons": [{"code": "above_band", "text": "The probability of manipulation lies above 80%."}],
}  # fmt: skip
_EXPERTS = [
    {
        "name": "vit", "title": "ViT-B/16", "looks_at": "the whole face", "available": True, "probability": 0.93,
        "weight": 1.0, "missing_because": None,
    }
]  # fmt: skip
EXAMPLES: dict[str, dict[str, Any]] = {
    "Problem": {
        "type": "urn:telltale:error:media_too_large", "title": "The file is larger than allowed",
        "status": 413, "detail": "The file is larger than 200 MB.", "code": "media_too_large",
        "remedy": "Send a smaller file, or raise the limit in config.ini, section [media].",
        "limit_bytes": 200000000, "instance": "/api/v1/detect",
    },
    "Result": {
        "id": EXAMPLE_ID, "schema_version": 1,
        "media": {
            "kind": "image", "format": "jpeg", "mime": "image/jpeg", "width": 640, "height": 480, "size_bytes": 81234,
            "sha256": EXAMPLE_SHA256, "duration_s": None, "fps": None, "codec": None,
        },
        "verdict": _VERDICT,
        "faces": [
            {
                "id": 0, "verdict": _VERDICT, "experts": _EXPERTS,
                "frames": [{"frame": 0, "time_s": 0.0, "probability": 0.93, "box": [210.5, 80.0, 330.5, 240.0]}],
                "quality": {"face_px": 160.0},
            }
        ],
        "deciding_face": 0, "model_version": "v1", "model_sha256": EXAMPLE_SHA256, "threshold": 0.5,
        "times_ms": {"decode": 61.0, "detect": 40.2, "experts": 310.5, "decide": 1.2, "total": 412.9}, "notices": [],
        "settings": {
            "threshold": 0.5, "experts": "cnn,resnext,vit,lstm", "max_faces": 32, "frames": 16, "min_face_px": 40,
        },
        "prediction": "fake", "fake_probability": 0.93, "real_probability": 0.07, "confidence": 0.93,
        "experts": _EXPERTS, "timeline": [{"frame": 0, "time_s": 0.0, "probability": 0.93}],
    },
    "FeedbackRequest": {"id": EXAMPLE_ID, "feedback": "incorrect", "actual": "real", "note": "my own photo"},
    "DecisionRequest": {"decision": "accept", "label": "real", "note": "The photographer confirms it."},
}  # fmt: skip
"""An example of each of these schemas, by its name."""


def openapi_document(routes: Iterable[routing.Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 description of the routes."""
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
        "servers": [{"url": prefix} for prefix in routing.PREFIXES],
        "security": [{"key": []}, {}],
        "paths": dict(paths),
        "components": {
            "schemas": _with_examples(definitions["$defs"]),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "an API key; needed where keys are on"}
            },
        },
    }


def _with_examples(schemas: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    sorted_examples = json.loads(json.dumps(EXAMPLES, sort_keys=True))
    shown = {name: {"examples": [sorted_examples[name]]} for name in schemas.keys() & EXAMPLES}
    return {name: dict(sorted({**schema, **shown.get(name, {})}.items())) for name, schema in schemas.items()}


def documents() -> dict[Path, str]:
    """What the present code says, by the file that holds it."""
    report = api.reports.ReportDocument.model_json_schema()
    of_file = {
        OPENAPI: openapi_document(routing.ROUTES),
        ROOT / "docs" / "report.schema.json": {"$schema": DIALECT, **report, "$defs": _with_examples(report["$defs"])},
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


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")
