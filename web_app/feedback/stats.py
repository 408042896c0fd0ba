"""How the learning goes, for its page and the API: figures, versions with what the golden set said of each, which one
is loaded, and the way back to an earlier one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils import weights
from utils.errors import ConflictError, NotFoundError, WeightsError, WeightsMissingError
from utils.feedback.history import read_history, verify_history
from utils.feedback.quarantine import Status
from utils.feedback.versions import rollback
from utils.weights import CARD_FILE, SPEECH_FOLDER, current_speech, current_version, read_document, weights_root
from web_app.db.models import OPEN, TRAIN, FeedbackRow, JobRow, JobState
from web_app.jobs.shared import Instance
from web_app.observability.health import living_workers
from web_app.paths import InstancePaths

Entry = dict[str, Any]


def learning_stats(instance: Instance) -> dict[str, Any]:
    """Everything about the learning, as `Stats` of the API."""
    with instance.database.read() as session:
        feedback, accuracy = _feedback(session)
        running = session.scalar(sa.select(JobRow.public_id).where(JobRow.task == TRAIN, JobRow.state.in_(OPEN)))
    loaded = loaded_versions(instance)
    chosen = current_version(instance.settings)
    trainings, of_voices = (training_entries(history) for history in _histories(instance.paths))
    every = sorted([*trainings, *of_voices], key=lambda entry: str(entry.get("time")))
    return {
        "feedback": feedback,
        "accuracy_on_feedback": accuracy,
        "trainings": {**_trainings(instance.paths, every), "running": running},
        "golden": golden_points(trainings),
        "golden_speech": golden_points(of_voices),
        "model_version": loaded[-1]["version"] if loaded else chosen,
        "speech_version": loaded[-1]["speech_version"] if loaded else current_speech(instance.settings),
        "chosen_version": chosen,
        "loaded": loaded,
        "poison_drill": None,
    }


def count_states(session: Session) -> dict[str, int]:
    """Votes by what became of them, every state named."""
    counted = session.execute(sa.select(FeedbackRow.state, sa.func.count()).group_by(FeedbackRow.state)).all()
    return {**{status.value: 0 for status in Status}, **dict(counted)}


def training_entries(history: Path) -> list[Entry]:
    """The readable lines of a history that tell of a training, oldest first."""
    return [dict(entry) for entry in read_history(history).entries if entry.get("event") == "training"]


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
    checks = [verify_history(history) for history in _histories(paths)]
    promoted = [entry for entry in trainings if entry["promoted"]]
    rejected = [entry for entry in trainings if not entry["promoted"]]
    losses = [entry["loss"] for entry in trainings if entry.get("loss") is not None]
    last = trainings[-1] if trainings else {}
    return {
        "total": len(trainings),
        "promoted": len(promoted),
        "rejected": len(rejected),
        "improvements": sum(entry.get("improvements", 0) for entry in promoted),
        "regressions": sum(entry.get("regressions", 0) for entry in promoted),
        "mean_loss": sum(losses) / len(losses) if losses else None,
        "accuracy_before": last.get("accuracy_before"),
        "accuracy_after": last.get("accuracy_after"),
        "last_rejection": rejected[-1].get("reason") if rejected else None,
        "last": last or None,
        "damaged_lines": sum(len(check.damaged) for check in checks),
        "chain_intact": all(check.ok for check in checks),
    }


def loaded_versions(instance: Instance) -> list[dict[str, Any]]:
    """What each living worker has in its memory; its refusal of a version, where there is one."""
    with instance.database.read() as session:
        rows = living_workers(session, instance.settings)
    names = {"version": "model_version", "speech_version": "speech_version", "refused": "refused"}
    return [{"worker": row.id, **{name: row.facts.get(fact) for name, fact in names.items()}} for row in rows]


def _histories(paths: InstancePaths) -> tuple[Path, Path]:
    return paths.training_history, paths.speech_history


def list_versions(instance: Instance) -> dict[str, Any]:
    """All versions, those of faces and then of speech, the oldest first, as `LearnedVersions`."""
    root, settings = weights_root(instance.settings), instance.settings
    faces, voices = (training_entries(history) for history in _histories(instance.paths))
    workers = loaded_versions(instance)
    items = _versions(root, current_version(settings), {each["version"] for each in workers}, faces)
    heard = {each["speech_version"] for each in workers}
    of_speech = _versions(root / SPEECH_FOLDER, current_speech(settings), heard, voices)
    return {
        "items": [*items, *({**item, "part": "speech"} for item in of_speech)],
        "pinned": bool(settings.weights.version),
    }


def _versions(root: Path, current: str | None, loaded: set[str | None], trainings: list[Entry]) -> list[dict[str, Any]]:
    trained = {entry["version"]: entry for entry in trainings}
    items = []
    for name in weights.list_versions(root):
        entry, made = trained.get(name, {}), None
        with contextlib.suppress(WeightsError, OSError):  # then it is refused when it is loaded
            card = read_document(root / name / CARD_FILE)
            made = None if "learning" in card else card.get("made")  # who learned has the card of its base
        of_training = {key: entry.get(key) for key in ("base", "parent", "promoted", "reason")}
        items.append(
            {
                "version": name, "part": "faces", "current": name == current, "loaded": name in loaded, **of_training,
                "created": entry.get("time") or (made if isinstance(made, str) else None),
                "lost": len(entry.get("lost", ())), "golden": golden_point(entry) if entry else None,
            }
        )  # fmt: skip
    return sorted(items, key=lambda item: (item["created"] or "", item["version"]))


def golden_point(entry: Entry) -> dict[str, Any]:
    """What the golden set said of the version that a line of the history is about."""
    figures = entry.get("new") or {}
    slices = figures.get("slices") or {}
    return {
        "version": entry["version"],
        "time": entry.get("time"),
        "promoted": bool(entry.get("promoted")),
        "auc": figures.get("auc"),
        "ece": figures.get("ece"),
        "worst_slice": min(slices.values()) if slices else None,
    }


def roll_back(instance: Instance, name: str | None) -> dict[str, Any]:
    """Point `CURRENT` at an earlier version, of speech where the name is one of those; the workers change between jobs.

    Raises:
        ConflictError: the settings pin a version, or there is none to go back to.
        NotFoundError: there is no version of this name.
        WeightsError: it does not verify.
    """
    settings = instance.settings
    if settings.weights.version:
        raise ConflictError("[weights] version pins one; empty it to follow promotions and rollbacks.")
    root, history, previous = weights_root(settings), instance.paths.training_history, current_version(settings)
    if name not in weights.list_versions(root) and name in weights.list_versions(root / SPEECH_FOLDER):
        root, history, previous = root / SPEECH_FOLDER, instance.paths.speech_history, current_speech(settings)
    with instance.database.read() as session:
        training = sa.select(JobRow.id).where(JobRow.task == TRAIN, JobRow.state == JobState.RUNNING)
        if instance.shared.on and session.scalar(training) is not None:
            raise ConflictError("A training is going on at another machine; its end decides which version serves.")
    try:
        with instance.shared.acting():
            version = rollback(root, history, name)
    except WeightsMissingError as error:
        raise NotFoundError(error.detail) from error
    return {"version": version.name, "previous": previous}
