"""Feedback and what is learned from it: one voice per client and analysis, on the disk before the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Response, jsonify, request

from utils.errors import FeedbackError, NotAvailableError
from utils.learning.feedback_log import FeedbackEntry, append_feedback
from utils.log import get_logger
from utils.types import Outcome
from web_app import security
from web_app.api import present
from web_app.api.detections import find_voice, require_detection, require_done
from web_app.api.parse import parse_json
from web_app.api.schemas import FeedbackRequest
from web_app.db import DetectionRow, FeedbackRow, utc_now
from web_app.ops import current_version
from web_app.services import services

OPPOSITE = {Outcome.REAL: Outcome.FAKE, Outcome.FAKE: Outcome.REAL}

log = get_logger(__name__)


def give_feedback() -> Response:
    """Say whether a verdict was right. A second voice of the same client replaces the first; the log keeps both."""
    parts = services()
    said = parse_json(FeedbackRequest, request)
    client = security.client_id(parts.secret)
    with parts.database.read() as session:
        row = require_detection(session, said.id)
    require_done(row)
    actual = resolve_label(Outcome(row.prediction or ""), said.feedback, said.actual)
    category = said.category or default_category(Outcome(row.prediction or ""), actual)
    now = utc_now()
    append_feedback(
        parts.paths.feedback_log,
        FeedbackEntry(
            time=now,
            detection_id=said.id,
            client_id=client,
            media_sha256=row.media.sha256,
            model_version=row.model_version or "",
            prediction=row.prediction or "",
            fake_probability=row.fake_probability or 0.0,
            judgement=said.feedback,
            actual=actual.value,
            category=category,
            note=said.note,
        ),
    )
    with parts.database.write() as session:
        row = require_detection(session, said.id)
        voice = find_voice(session, row, client) or FeedbackRow(detection_id=row.job_id, client_id=client)
        voice.judgement, voice.actual, voice.category = said.feedback, actual.value, category
        voice.note, voice.created_at = said.note, now
        session.add(voice)
    answer = jsonify(present.feedback(said.id, voice))
    answer.status_code = 201
    return answer


def resolve_label(prediction: Outcome, judgement: str, actual: str | None) -> Outcome:
    """What the medium really is: `correct` keeps the verdict, `incorrect` flips it.

    Args:
        prediction: the verdict that was shown.
        judgement: `correct` or `incorrect`.
        actual: the label, if the client gave one.

    Raises:
        FeedbackError: there was no face; an inconclusive verdict comes without a label; or the given label
            contradicts the judgement.
    """
    if prediction is Outcome.NO_FACE:
        raise FeedbackError("No face was found, so there was no verdict to judge.")
    if prediction is Outcome.INCONCLUSIVE:
        if actual is None:
            raise FeedbackError("The verdict was inconclusive: `actual` must say real or fake.")
        return Outcome(actual)
    label = prediction if judgement == "correct" else OPPOSITE[prediction]
    if actual is not None and actual != label:
        raise FeedbackError(f"The verdict was {prediction}; `{judgement}` means {label}, but `actual` says {actual}.")
    return label


def default_category(prediction: Outcome, actual: Outcome) -> str:
    """What kind of word it is: a confirmation, a false alarm, a miss, or other (after an inconclusive verdict)."""
    if prediction is actual:
        return "confirmation"
    return {Outcome.FAKE: "false_alarm", Outcome.REAL: "miss"}.get(prediction, "other")


def get_stats() -> Response:
    """What users said so far, the version that answers now, and the trainings that were run."""
    parts = services()
    with parts.database.read() as session:
        groups = session.execute(
            sa.select(FeedbackRow.judgement, FeedbackRow.actual, DetectionRow.prediction, sa.func.count())
            .join(DetectionRow, DetectionRow.job_id == FeedbackRow.detection_id)
            .group_by(FeedbackRow.judgement, FeedbackRow.actual, DetectionRow.prediction)
        ).all()
    decided = [(actual, prediction, n) for _, actual, prediction, n in groups if prediction in ("fake", "real")]
    judged = sum(n for *_, n in decided)
    right = sum(n for actual, prediction, n in decided if actual == prediction)
    trainings = read_history(parts.paths.training_history)
    return jsonify(
        feedback={
            "total": sum(n for *_, n in groups),
            "correct": sum(n for judgement, _, _, n in groups if judgement == "correct"),
            "incorrect": sum(n for judgement, _, _, n in groups if judgement == "incorrect"),
            "by_label": {label: sum(n for _, actual, _, n in groups if actual == label) for label in ("real", "fake")},
        },
        accuracy_on_feedback=right / judged if judged else None,
        model_version=current_version(parts.settings),
        trainings=len(trainings),
        last_training=trainings[-1] if trainings else None,
    )


def retrain() -> Response:
    """Learning from feedback is not part of this version.

    Raises:
        NotAvailableError: always.
    """
    raise NotAvailableError("Feedback is collected, but this version does not train on it yet.")


def read_history(path: Path) -> list[dict[str, Any]]:
    """The trainings that were run, oldest first; a line that a crash has torn is skipped and logged."""
    if not path.is_file():
        return []
    trainings: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            log.warning("%s, line %d cannot be read: %s", path.name, number, error)
            continue
        if isinstance(entry, dict):
            trainings.append(entry)
    return trainings
