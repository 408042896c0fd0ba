"""How the learning goes, for its page and the API: figures, versions with what the golden set said of each, which one
is loaded, and the way back to an earlier one."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils import weights
from utils.errors import ConflictError, NotFoundError, WeightsError, WeightsMissingError
from utils.feedback.history import Entry, History, read_history, verify_history
from utils.feedback.quarantine import Status
from utils.feedback.versions import rollback
from utils.weights import CARD_FILE, current_speech, current_version, read_document
from web_app.db.models import OPEN, TRAIN, FeedbackRow, JobRow, JobState
from web_app.jobs.shared import Instance
from web_app.observability.health import living_workers
from web_app.paths import Branch, branches


def learning_stats(instance: Instance) -> dict[str, Any]:
    """Everything about the learning, as `Stats` of the API."""
    settings = instance.settings
    with instance.database.read() as session:
        feedback, accuracy = _feedback(session)
        running = session.scalar(sa.select(JobRow.public_id).where(JobRow.task == TRAIN, JobRow.state.in_(OPEN)))
    loaded, chosen = loaded_versions(instance), current_version(settings)
    histories = [verify_history(branch.history) for branch in branches(settings)]
    of_faces, of_speech = map(_trainings, histories)
    every = sorted([*of_faces, *of_speech], key=lambda entry: str(entry.get("time")))
    return {
        "feedback": feedback,
        "accuracy_on_feedback": accuracy,
        "trainings": {**_figures(histories, every), "running": running},
        "golden": golden_points(of_faces),
        "golden_speech": golden_points(of_speech),
        "model_version": loaded[-1]["version"] if loaded else chosen,
        "speech_version": loaded[-1]["speech_version"] if loaded else current_speech(settings),
        "chosen_version": chosen,
        "loaded": loaded,
        "poison_drill": None,
    }


def count_states(session: Session) -> dict[str, int]:
    """Votes by what became of them, every state named."""
    counted = session.execute(sa.select(FeedbackRow.state, sa.func.count()).group_by(FeedbackRow.state)).all()
    return {**{status.value: 0 for status in Status}, **dict(counted)}


def _trainings(history: History) -> list[Entry]:
    """The readable lines that tell of a training, oldest first."""
    return [entry for entry in history.entries if entry.get("event") == "training"]


def golden_points(trainings: Sequence[Entry]) -> list[dict[str, Any]]:
    """What the golden set says of the base that was started from, and of each version since; oldest first."""
    points: list[dict[str, Any]] = []
    if trainings and trainings[0].get("old"):
        first = trainings[0]
        before = {"version": first.get("parent") or first.get("base") or "", "promoted": True, "new": first["old"]}
        points.append(golden_point(before))
    return [*points, *(golden_point(entry) for entry in trainings)]


def _feedback(session: Session) -> tuple[dict[str, Any], float | None]:
    """Votes that stand, and the share of real and fake verdicts that they confirm; None without such a vote."""
    vote, states = FeedbackRow, count_states(session)
    accepted, judged = vote.state == Status.ACCEPTED.value, vote.prediction.in_(("fake", "real"))
    conditions = {
        "total": sa.true(),
        "correct": vote.judgement == "correct",
        "incorrect": vote.judgement == "incorrect",
        "real": vote.actual == "real",
        "fake": vote.actual == "fake",
        "learned": accepted & vote.learned_version.is_not(None),
        "new": accepted & vote.tried_version.is_(None),
        "judged": judged,
        "right": judged & (vote.actual == vote.prediction),
    }
    counts = [sa.func.count().filter(condition).label(name) for name, condition in conditions.items()]
    counted = session.execute(sa.select(*counts).select_from(vote)).one()._asdict()
    by_label = {label: counted.pop(label) for label in ("real", "fake")}
    right, judged_in_all = counted.pop("right"), counted.pop("judged")
    feedback = {**counted, "by_label": by_label, "accepted": states.pop(Status.ACCEPTED.value), "quarantined": states}
    return feedback, right / judged_in_all if judged_in_all else None


def _figures(histories: Sequence[History], trainings: Sequence[Entry]) -> dict[str, Any]:
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
        "damaged_lines": sum(len(history.damaged) for history in histories),
        "chain_intact": all(history.ok for history in histories),
    }


def loaded_versions(instance: Instance) -> list[dict[str, Any]]:
    """What each living worker has in its memory; its refusal of a version, where there is one."""
    with instance.database.read() as session:
        rows = living_workers(session, instance.settings)
    names = {"version": "model_version", "speech_version": "speech_version", "refused": "refused"}
    return [{"worker": row.id, **{name: row.facts.get(fact) for name, fact in names.items()}} for row in rows]


def list_versions(instance: Instance) -> dict[str, Any]:
    """All versions, those of faces and then of speech, the oldest first, as `LearnedVersions`."""
    settings, workers = instance.settings, loaded_versions(instance)
    (faces, speech), current = branches(settings), (current_version(settings), current_speech(settings))
    items = [
        *_versions(faces, current[0], {each["version"] for each in workers}),
        *_versions(speech, current[1], {each["speech_version"] for each in workers}),
    ]
    return {"items": items, "pinned": bool(settings.weights.version)}


def _versions(branch: Branch, current: str | None, loaded: set[str | None]) -> list[dict[str, Any]]:
    trained = {entry["version"]: entry for entry in _trainings(read_history(branch.history))}
    items = []
    for name in weights.list_versions(branch.root):
        entry, made = trained.get(name, {}), None
        with contextlib.suppress(WeightsError, OSError):  # then it is refused when it is loaded
            card = read_document(branch.root / name / CARD_FILE)
            made = None if "learning" in card else card.get("made")  # who learned has the card of its base
        of_training = {key: entry.get(key) for key in ("base", "parent", "promoted", "reason")}
        items.append(
            {
                "version": name, "part": branch.name, "current": name == current, "loaded": name in loaded,
                **of_training, "created": entry.get("time") or (made if isinstance(made, str) else None),
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


def roll_back(instance: Instance, name: str | None, part: str = "faces") -> dict[str, Any]:
    """Point `CURRENT` at the version of a name, or of `faces` or `speech` the one before; workers change between jobs.

    Raises:
        ConflictError: the settings pin a version, or there is none to go back to.
        NotFoundError: there is no version of this name.
        WeightsError: it does not verify.
    """
    settings = instance.settings
    if settings.weights.version:
        raise ConflictError("[weights] version pins one; empty it to follow promotions and rollbacks.")
    (branch, speech), previous = branches(settings), current_version(settings)
    faces, voices = (name in weights.list_versions(each.root) for each in (branch, speech))
    if part == "speech" if name is None else voices and not faces:
        branch, previous = speech, current_speech(settings)
    with instance.database.read() as session:
        training = sa.select(JobRow.id).where(JobRow.task == TRAIN, JobRow.state == JobState.RUNNING)
        if instance.shared.on and session.scalar(training) is not None:
            raise ConflictError("A training is going on at another machine; its end decides which version serves.")
    try:
        with instance.shared.acting():
            version = rollback(branch.root, branch.history, name)
    except WeightsMissingError as error:
        raise NotFoundError(error.detail) from error
    return {"version": version.name, "previous": previous}
