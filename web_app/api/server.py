"""What the server says of itself: health, readiness, and the description of the API for programs and for readers."""

from __future__ import annotations

import functools
import json
from typing import Any

from flask import Response, current_app, jsonify, render_template, request

from web_app import VERSION
from web_app.api.openapi import SERVERS, openapi_document
from web_app.api.routing import DOCUMENT, HTML, ROUTES, conditional, json_answer, route
from web_app.api.schemas.admin import CheckModel, Health, Ready
from web_app.observability.health import readiness
from web_app.services import services


@route("GET", "/health", {200: Health}, scope=None)
def get_health() -> Health:
    """This process answers; says nothing about anything else."""
    return Health(status="ok")


@route("GET", "/ready", {200: Ready, 503: Ready}, scope=None)
def get_ready() -> Response:
    """Whether analyses can be made: database, weights, worker and disk; 503 while one of them fails."""
    parts = services()
    found = readiness(parts.settings, parts.database, parts.queue, parts.weights)
    checks = [CheckModel.of(check) for check in found.checks]
    return json_answer(Ready.of(found, checks=checks, version=VERSION), 200 if found.ready else 503)


@route("GET", "/openapi.json", {200: DOCUMENT, 304: None}, scope=None)
def get_openapi() -> Response:
    """This description of the API (OpenAPI 3.1)."""
    return conditional(jsonify(_description()))


@route("GET", "/docs", {200: HTML}, scope=None)
def get_docs() -> Response:
    """This description as a page to read."""
    document = _description()
    operations = [
        {"method": method.upper(), "path": path, **operation}
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    pretty = functools.partial(json.dumps, indent=2, ensure_ascii=False)
    page = render_template("reference.html", document=document, operations=operations, pretty=pretty)
    return current_app.response_class(page, mimetype=HTML)


def _description() -> dict[str, Any]:
    """The OpenAPI document as it is for the present request, behind the path that the application is mounted at."""
    return openapi_document(ROUTES, [request.script_root + prefix for prefix in SERVERS])
