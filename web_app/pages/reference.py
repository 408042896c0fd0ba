"""The API's description as a page to read: no script, both themes, any width. Swagger UI is there to try it out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template

from web_app.api import description

blueprint = Blueprint("reference", __name__)


@dataclass(frozen=True)
class Parameter:
    """One value that a request may carry; `kind` says where, `values` which ones are allowed."""

    name: str
    kind: str
    required: bool
    values: str
    description: str


@dataclass(frozen=True)
class Body:
    """What a request or an answer carries: media type, and an example as JSON where the description has one."""

    mime: str
    example: str


@dataclass(frozen=True)
class Operation:
    """One route: everything that the page says of it."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[Parameter, ...]
    sent: Body | None
    answered: Body | None
    answers: tuple[tuple[str, str], ...]


@blueprint.get("/reference")
def reference() -> str:
    """The page."""
    document = description()
    servers = [server["url"] for server in document["servers"]]
    return render_template("reference.html", parts=read_operations(document), servers=servers)


def read_operations(document: Mapping[str, Any]) -> dict[str, list[Operation]]:
    """The operations of an OpenAPI document, by the part of the API that they belong to."""
    models = document["components"]["schemas"]
    parts: dict[str, list[Operation]] = defaultdict(list)
    for path, methods in document["paths"].items():
        for method, found in methods.items():
            parts[found["tags"][0]].append(_operation(method, path, found, models))
    return dict(parts)


def _operation(method: str, path: str, found: Mapping[str, Any], models: Mapping[str, Any]) -> Operation:
    good: Mapping[str, Any] = next(
        (answer for status, answer in found["responses"].items() if status.startswith("2")), {}
    )
    return Operation(
        id=found["operationId"],
        method=method.upper(),
        path=path,
        summary=found["summary"],
        description=found["description"],
        parameters=tuple(map(_parameter, found["parameters"])),
        sent=_body(found.get("requestBody", {}), models),
        answered=_body(good, models),
        answers=tuple((status, answer["description"]) for status, answer in found["responses"].items()),
    )


def _parameter(found: Mapping[str, Any]) -> Parameter:
    schema = found["schema"]
    low, high = schema.get("minimum"), schema.get("maximum")
    if "enum" in schema:
        values = ", ".join(map(str, schema["enum"]))
    elif low is not None and high is not None:
        values = f"{low} to {high}"
    else:
        values = schema.get("format", schema.get("type", ""))
    description = found.get("description") or schema.get("description", "")
    return Parameter(found["name"], found["in"], found["required"], values, description)


def _body(found: Mapping[str, Any], models: Mapping[str, Any]) -> Body | None:
    for mime, content in found.get("content", {}).items():
        model = models.get(content["schema"].get("$ref", "").rpartition("/")[2], {})
        examples = model.get("examples", ())
        return Body(mime, json.dumps(examples[0], indent=2, ensure_ascii=False) if examples else "")
    return None
