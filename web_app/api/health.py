"""Health and readiness."""

from __future__ import annotations

from flask import Response

from web_app.api.routing import json_answer, route
from web_app.api.schemas.admin import CheckModel, Health, Ready
from web_app.observability.health import readiness
from web_app.services import services
from web_app.version import VERSION


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
