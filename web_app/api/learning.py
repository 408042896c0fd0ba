"""Trainings, versions and figures of the learning from feedback."""

from __future__ import annotations

from flask import Response, jsonify, request, url_for
from sqlalchemy.orm import Session

from utils.errors import NotFoundError
from utils.feedback.versions import serving
from utils.weights import weights_root
from web_app.api import present
from web_app.api.learning_schemas import RollbackRequest
from web_app.api.parse import parse_json
from web_app.auth import identity
from web_app.db.models import TRAIN, JobRow, JobState
from web_app.errors import error_of
from web_app.feedback.stats import learning_stats
from web_app.feedback.training import request_training
from web_app.feedback.versions import list_versions, roll_back
from web_app.services import Services, services

PRIVATE = frozenset({"asked_by"})  # a caller's id opens what belongs to them where keys are off


def get_stats() -> Response:
    """What users said, what became of it, what was learned, and how the golden set judged each version."""
    return jsonify(learning_stats(services().settings, services().database))


def retrain() -> Response:
    """Queue a training on all accepted feedback; it runs beside the analyses."""
    parts = services()
    served = serving(weights_root(parts.settings))
    learning, asked_by = parts.settings.learning, identity.caller().id
    with parts.database.write() as session:
        job = request_training(session, parts.queue, parts.paths, learning, served, asked_by)
    with parts.database.read() as session:
        answer = jsonify(_training(parts, session, job.public_id))
    answer.status_code = 202
    answer.headers["Location"] = url_for("api.get_training", id=job.public_id)
    return answer


def get_training(id: str) -> Response:
    """The state of a training, with its outcome once it is done."""
    parts = services()
    with parts.database.read() as session:
        return jsonify(_training(parts, session, id))


def get_learning_versions() -> Response:
    """Every version on disk, with its verdict of the golden set, and which one is loaded."""
    parts = services()
    return jsonify(list_versions(parts.settings, parts.database))


def rollback() -> Response:
    """Serve an earlier version again; without a name, the one that was served before. The worker changes at once."""
    parts = services()
    wanted = parse_json(RollbackRequest, request)
    return jsonify(roll_back(parts.settings, wanted.version))


def _training(parts: Services, session: Session, public_id: str) -> dict[str, object]:
    job = session.query(JobRow).filter(JobRow.public_id == public_id, JobRow.task == TRAIN).one_or_none()
    if job is None:
        raise NotFoundError("There is no training with this id.")
    failed = job.state == JobState.FAILED
    return {
        "id": job.public_id,
        "state": job.state,
        "stage": job.stage,
        "fraction": job.fraction,
        "attempts": job.attempts,
        "created": present.moment(job.created_at),
        "started": present.moment(job.started_at),
        "finished": present.moment(job.finished_at),
        "error": error_of(job.error_code or "internal", job.error_detail or "").to_problem() if failed else None,
        "result": None if job.result is None else {key: job.result[key] for key in job.result if key not in PRIVATE},
        "links": {"self": url_for("api.get_training", id=job.public_id)},
    }
