"""Health, readiness, and the description of the API itself."""

from __future__ import annotations

import dataclasses

from flask import Response, jsonify

from web_app.observability.health import readiness
from web_app.services import services
from web_app.version import VERSION


def get_health() -> Response:
    """This process answers; says nothing about anything else."""
    return jsonify(status="ok")


def get_ready() -> Response:
    """Whether analyses can be made: database, weights, worker and disk; 503 while one of them fails."""
    parts = services()
    found = readiness(parts.settings, parts.database, parts.queue, parts.weights)
    answer = jsonify(
        ready=found.ready,
        checks=[dataclasses.asdict(check) for check in found.checks],
        warnings=list(found.warnings),
        waiting=found.waiting,
        version=VERSION,
        model_version=found.model_version,
        workers=list(found.workers),
    )
    answer.status_code = 200 if found.ready else 503
    return answer
