"""What the history offers beyond one page of it: the same file under several versions, and clearing everything."""

from __future__ import annotations

import sqlalchemy as sa
from flask import Response, jsonify

from web_app.api import present
from web_app.api.detections import require_detection
from web_app.auth import identity
from web_app.db.models import DetectionRow, JobRow, JobState
from web_app.services import services

MOST_VERSIONS = 50


def get_versions(id: str) -> Response:
    """Your finished analyses of the same file, newest first, to compare what different versions said."""
    asking = identity.caller()
    with services().database.read() as session:
        row = require_detection(session, id)
        same = (
            sa.select(DetectionRow)
            .join(DetectionRow.job)
            .where(DetectionRow.media_id == row.media_id, JobRow.state == JobState.DONE)
            .order_by(JobRow.id.desc())
            .limit(MOST_VERSIONS)
        )
        if "admin" not in asking.scopes:
            same = same.where(DetectionRow.client_id == asking.id)
        items = [
            {
                "id": other.job.public_id,
                "model_version": other.model_version,
                "prediction": other.prediction,
                "fake_probability": other.fake_probability,
                "created": present.moment(other.job.created_at),
            }
            for other in session.scalars(same)
        ]
    return jsonify(items=items)


def clear_history() -> Response:
    """Delete all your own analyses with their reports and feedback, and every file that nobody else's analysis uses."""
    parts = services()
    asking = identity.caller()
    with parts.database.read() as session:
        own = session.scalars(
            sa.select(JobRow.public_id)
            .join(DetectionRow, DetectionRow.job_id == JobRow.id)
            .where(DetectionRow.client_id == asking.id)
        ).all()
    deleted = sum(parts.delete_detection(public_id) for public_id in own)
    return jsonify(deleted=deleted)
