"""The figures of the page *Model learning progress* and of `GET /api/rl/stats`, so that both tell one story."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.feedback.history import verify_history
from utils.feedback.quarantine import Status
from utils.weights import current_version
from web_app.db.models import TRAIN, FeedbackRow, JobRow, JobState
from web_app.feedback.versions import Entry, golden_point, history_entries, loaded_versions
from web_app.jobs.instance import Instance
from web_app.paths import InstancePaths


def learning_stats(instance: Instance) -> dict[str, Any]:
    """Everything about the learning, as `Stats` of the API."""
    with instance.database.read() as session:
        feedback, accuracy = _feedback(session)
        running = session.scalar(
            sa.select(JobRow.public_id).where(
                JobRow.task == TRAIN, JobRow.state.in_((JobState.QUEUED, JobState.RUNNING))
            )
        )
    loaded = loaded_versions(instance)
    chosen = current_version(instance.settings)
    trainings = training_entries(instance.paths)
    return {
        "feedback": feedback,
        "accuracy_on_feedback": accuracy,
        "trainings": {**_trainings(instance.paths, trainings), "running": running},
        "golden": golden_points(trainings),
        "model_version": loaded[-1]["version"] if loaded else chosen,
        "chosen_version": chosen,
        "loaded": loaded,
        "poison_drill": None,
    }


def count_states(session: Session) -> dict[str, int]:
    """Votes by what became of them, every state named."""
    counted = session.execute(sa.select(FeedbackRow.state, sa.func.count()).group_by(FeedbackRow.state)).all()
    return {**{status.value: 0 for status in Status}, **dict(counted)}


def training_entries(paths: InstancePaths) -> list[Entry]:
    """The lines of the history that tell of a training, oldest first."""
    return [entry for entry in history_entries(paths) if entry.get("event") == "training"]


def golden_points(trainings: list[Entry]) -> list[dict[str, Any]]:
    """What the golden set says of the base that was started from, and of each version since; oldest first."""
    points: list[dict[str, Any]] = []
    if trainings and trainings[0].get("old"):
        first = trainings[0]
        before = {"version": first.get("parent") or first.get("base") or "", "promoted": True, "new": first["old"]}
        points.append(golden_point(before))
    return [*points, *(golden_point(entry) for entry in trainings)]


def _feedback(session: Session) -> tuple[dict[str, Any], float | None]:
    groups = session.execute(
        sa.select(FeedbackRow.judgement, FeedbackRow.actual, FeedbackRow.prediction, sa.func.count()).group_by(
            FeedbackRow.judgement, FeedbackRow.actual, FeedbackRow.prediction
        )
    ).all()
    decided = [(actual, prediction, n) for _, actual, prediction, n in groups if prediction in ("fake", "real")]
    judged = sum(n for *_, n in decided)
    right = sum(n for actual, prediction, n in decided if actual == prediction)
    states = count_states(session)
    accepted = FeedbackRow.state == Status.ACCEPTED.value
    feedback = {
        "total": sum(n for *_, n in groups),
        "correct": sum(n for judgement, _, _, n in groups if judgement == "correct"),
        "incorrect": sum(n for judgement, _, _, n in groups if judgement == "incorrect"),
        "by_label": {label: sum(n for _, actual, _, n in groups if actual == label) for label in ("real", "fake")},
        "accepted": states.pop(Status.ACCEPTED.value),
        "learned": _count(session, accepted, FeedbackRow.learned_version.is_not(None)),
        "new": _count(session, accepted, FeedbackRow.tried_version.is_(None)),
        "quarantined": states,
    }
    return feedback, right / judged if judged else None


def _count(session: Session, *conditions: sa.ColumnElement[bool]) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(FeedbackRow).where(*conditions)) or 0


def _trainings(paths: InstancePaths, trainings: list[Entry]) -> dict[str, Any]:
    check = verify_history(paths.training_history)
    promoted = [entry for entry in trainings if entry["promoted"]]
    rejected = [entry for entry in trainings if not entry["promoted"]]
    losses = [entry["loss"] for entry in trainings if entry.get("loss") is not None]
    last = trainings[-1] if trainings else None
    return {
        "total": len(trainings),
        "promoted": len(promoted),
        "rejected": len(rejected),
        "improvements": sum(entry.get("improvements", 0) for entry in promoted),
        "regressions": sum(entry.get("regressions", 0) for entry in promoted),
        "mean_loss": sum(losses) / len(losses) if losses else None,
        "accuracy_before": last.get("accuracy_before") if last else None,
        "accuracy_after": last.get("accuracy_after") if last else None,
        "last_rejection": rejected[-1].get("reason") if rejected else None,
        "last": last,
        "damaged_lines": check.torn,
        "chain_intact": check.ok,
    }
