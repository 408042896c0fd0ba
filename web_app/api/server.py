"""What the server says of itself: health, readiness, and the description of the API for programs and for readers."""

from __future__ import annotations

import functools
import json
import shutil
from typing import Any, Literal

from flask import Response, current_app, jsonify, render_template, request
from pydantic import Field
from sqlalchemy.exc import SQLAlchemyError

from utils.weights import current_version
from web_app import VERSION
from web_app.api.routing import DOCUMENT, HTML, PREFIXES, conditional, json_answer, route
from web_app.api.schemas import Schema
from web_app.observability.health import living_workers
from web_app.paths import OPENAPI
from web_app.services import services


class Health(Schema):
    status: Literal["ok"]


class CheckModel(Schema):
    name: str
    ok: bool
    detail: str


class Ready(Schema):
    """Whether analyses can be made, and what stands in the way."""

    ready: bool
    checks: list[CheckModel]
    warnings: list[str] = Field(description="what does no harm now and will at the next start")
    waiting: int | None = Field(description="jobs that wait for a worker")
    version: str = Field(description="of Telltale")
    model_version: str | None
    workers: list[dict[str, Any]] = Field(description="each living worker with what it says of itself")


@route("GET", "/health", {200: Health}, scope=None)
def get_health() -> Health:
    """This process answers; says nothing about anything else."""
    return Health(status="ok")


@route("GET", "/ready", {200: Ready, 503: Ready}, scope=None)
def get_ready() -> Response:
    """Whether analyses can be made: database, weights, worker and disk; 503 while one of them fails."""
    parts = services()
    free = shutil.disk_usage(parts.paths.instance).free
    room = free > parts.settings.media.max_file_mb * 1e6
    waiting, alive, broken = None, [], ""
    try:
        with parts.database.read() as session:
            waiting, alive = parts.queue.waiting(session), living_workers(session, parts.settings)
    except SQLAlchemyError as error:
        broken = f"it does not answer ({type(error).__name__})"
    heard = f"{len(alive)} worker(s) are alive" if alive else "no worker has been heard of"
    (verified, detail), version, warnings = parts.weights.check(), current_version(parts.settings), []
    loaded = next((str(row.facts["model_version"]) for row in alive if row.facts.get("model_version")), None)
    if loaded is not None and not verified:  # what is loaded serves on, whatever happens to the files
        warnings.append(f"The next start of a worker will fail: {detail}")
        verified, detail, version = True, f"version {loaded} is loaded and serves on", loaded
    checks = [
        CheckModel(name="database", ok=not broken, detail=broken or "it answers"),
        CheckModel(name="weights", ok=verified, detail=detail),
        CheckModel(name="worker", ok=bool(alive), detail=heard),
        CheckModel(name="disk", ok=room, detail=f"{free / 1e9:.1f} GB are free"),
    ]
    found = Ready(
        ready=all(check.ok for check in checks),
        checks=checks,
        warnings=warnings,
        waiting=waiting,
        version=VERSION,
        model_version=version,
        workers=[{"id": row.id, "seen": row.seen_at.isoformat(), **row.facts} for row in alive],
    )
    return json_answer(found, 200 if found.ready else 503)


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
    document: dict[str, Any] = json.loads(OPENAPI.read_bytes())
    return document | {"servers": [{"url": request.script_root + prefix} for prefix in PREFIXES]}
