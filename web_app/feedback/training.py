"""Trainings: what is learned from, whether there is anything new, and the job that does it.

The request for a training (by hand or by itself) is a row of `jobs` with the task `train`; the worker runs it in a lane
beside the analyses. Every training learns *all* accepted votes from the base again, so that nothing adds up unseen and
a withdrawn vote is really unlearned.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.config import LearningSettings
from utils.errors import ConflictError, NothingNewError
from utils.feedback.quarantine import LearningItem, Status
from utils.feedback.versions import Serving, serving
from utils.log import get_logger
from utils.weights import weights_root
from web_app.db.models import OPEN, TRAIN, FeedbackRow, JobRow, JobState, ReviewedMediumRow, utc_now
from web_app.feedback.features import DECIDING, feature_path
from web_app.feedback.rulings import LABEL_NUMBERS
from web_app.jobs.instance import Instance
from web_app.jobs.queue import Claim
from web_app.paths import InstancePaths

if TYPE_CHECKING:
    from web_app.feedback.learner import Learner, Progress

MARKED_AT_ONCE = 500
AFTER_FAILURE = dt.timedelta(hours=1)  # what failed would fail again at once
BY_ITSELF = "automatic"

log = get_logger(__name__)


def accepted_items(session: Session, paths: InstancePaths) -> list[LearningItem]:
    """Everything that may be learned from, in the order of the media; the deciding face, or those that have labels."""
    pairs = session.execute(
        sa.select(FeedbackRow, ReviewedMediumRow)
        .join(ReviewedMediumRow, ReviewedMediumRow.media_sha256 == FeedbackRow.media_sha256)
        .where(FeedbackRow.state == Status.ACCEPTED.value)
        .order_by(FeedbackRow.media_sha256)
    ).all()
    items: list[LearningItem] = []
    for row, medium in pairs:
        labels = row.face_labels or {DECIDING: row.actual}
        for face in sorted(labels):
            path = feature_path(paths, row.media_sha256, face)
            if (medium.features or {}).get(face) == "":
                label = LABEL_NUMBERS[labels[face]]
                source = f"user {hashlib.sha256(row.client_id.encode()).hexdigest()[:12]}"
                items.append(LearningItem(row.media_sha256, label, path, source, row.id))
    return items


def digest(items: Sequence[LearningItem], settings: LearningSettings, base_sha256: str) -> str:
    """A fingerprint of what a training would do: the same one again could give the same candidate only."""
    plain = [f"{item.media_sha256} {item.features.name} {item.label}" for item in items]
    return hashlib.sha256(repr([base_sha256, *plain, settings]).encode()).hexdigest()


def request_training(session: Session, instance: Instance, served: Serving, asked_by: str) -> JobRow:
    """Queue a training within a writing transaction.

    Args:
        served: the version in use; after a rollback or with another base the same feedback may be learned again.

    Raises:
        ConflictError: a training waits or runs; the fact `id` names it.
        NothingNewError: nothing is accepted, or all of it was learned from in the last training already.
    """
    items, settings = accepted_items(session, instance.paths), instance.settings.learning
    waits = session.scalar(sa.select(sa.func.count()).where(FeedbackRow.state == Status.WAITING.value)) or 0
    beside = f" {waits} votes wait to be accepted." if waits else ""
    opened = session.scalar(sa.select(JobRow.public_id).where(JobRow.task == TRAIN, JobRow.state.in_(OPEN)))
    if opened is not None:
        raise ConflictError("A training waits or runs already.", id=opened)
    if not items:
        raise NothingNewError(f"No accepted feedback is there to learn from.{beside}")
    last = last_training(session)
    done = {} if last is None else last.result or {}
    if done.get("serving") == served.current and done.get("digest") == digest(items, settings, served.base_sha256):
        raise NothingNewError(f"The last training learned from exactly this feedback.{beside}")
    return instance.queue.add_task(session, TRAIN, {"asked_by": asked_by})


def last_training(session: Session) -> JobRow | None:
    """The last training that ended with a verdict."""
    return session.scalar(
        sa.select(JobRow).where(JobRow.task == TRAIN, JobRow.state == JobState.DONE).order_by(JobRow.id.desc()).limit(1)
    )


def training_is_due(session: Session, settings: LearningSettings, served: Serving, now: dt.datetime) -> bool:
    """Whether a training shall start by itself: enough has changed since the last one, or something has and it is time.

    What changes is votes that are newly accepted, and votes that the last training learned from and that count no
    more: withdrawn, contradicted, or rejected since. With another base than that of the last training nothing was tried
    yet. A rollback alone starts none: whoever went back would get the same version again at once. After a training that
    failed, none starts for an hour.
    """
    if not settings.auto_after and not settings.auto_hours:
        return False
    accepted = sa.select(sa.func.count()).where(FeedbackRow.state == Status.ACCEPTED.value)
    total = session.scalar(accepted) or 0
    newest = session.scalar(sa.select(JobRow).where(JobRow.task == TRAIN).order_by(JobRow.id.desc()).limit(1))
    ended = newest.finished_at if newest is not None and newest.state == JobState.FAILED else None
    if not total or (ended is not None and now - ended < AFTER_FAILURE):
        return False
    last_result = getattr(last_training(session), "result", None) or {}
    changed = total
    if last_result.get("base_sha256", served.base_sha256) == served.base_sha256:
        untried = session.scalar(accepted.where(FeedbackRow.tried_version.is_(None))) or 0
        standing = session.scalar(accepted.where(FeedbackRow.tried_version == last_result.get("version"))) or 0
        changed = untried + max(0, int(last_result.get("voices", 0)) - standing)
    if not changed:
        return False
    if settings.auto_after and changed >= settings.auto_after:
        return True
    if not settings.auto_hours:
        return False
    last = session.scalar(sa.select(sa.func.max(JobRow.created_at)).where(JobRow.task == TRAIN))
    return last is None or (now - last).total_seconds() >= 3600 * settings.auto_hours


def start_if_due(instance: Instance, served: Serving, *, all_prepared: bool) -> bool:
    """Queue a training when the settings [learning] auto_after or auto_hours say so, or when the base was changed.

    With another base everything is learned again, once all media that are still stored have been prepared again.
    """
    how = instance.settings.learning
    with instance.database.read() as session:
        last = getattr(last_training(session), "result", None) or {}
        rebased = all_prepared and last.get("base_sha256", served.base_sha256) != served.base_sha256
        due = dataclasses.replace(how, auto_after=1) if rebased else how
        if not training_is_due(session, due, served, utc_now()):
            return False
    try:
        with instance.database.write() as session:
            job = request_training(session, instance, served, BY_ITSELF)
    except (ConflictError, NothingNewError):
        return False
    log.info("training %s starts by itself", job.public_id)
    return True


def run_training(instance: Instance, learner: Learner, claim: Claim, progress: Progress) -> dict[str, Any]:
    """The handler of the task `train`: learn, note which votes were tried, and tell the outcome.

    A worker may be killed after the candidate was promoted and before the job ended. The next attempt then finds the
    outcome, and which votes it was learned from. Features that are damaged are left out and made again.

    Raises:
        NothingNewError: what was accepted has been withdrawn meanwhile.
    """
    progress("collect", 0.0)
    database, settings = instance.database, instance.settings
    root = weights_root(settings)
    base = serving(root).base_sha256
    with database.read() as session:
        everything = accepted_items(session, instance.paths)
    items = [item for item in everything if learner.is_whole(item.features)]
    tried = digest(items, settings.learning, base)
    damaged = {item.media_sha256 for item in set(everything) - set(items)}
    if damaged:
        log.warning("features of %d media are damaged; they are left out and made again", len(damaged))
        with database.write() as session:
            medium = ReviewedMediumRow
            session.execute(sa.update(medium).where(medium.media_sha256.in_(damaged)).values(examined_at=None))
    with database.write() as session:
        job = session.get_one(JobRow, claim.job_id)
        payload = dict(job.payload or {})
        attempts: dict[str, Any] = dict(payload.get("attempts", {}))
        if not items and not attempts:
            raise NothingNewError("What was accepted has been withdrawn meanwhile.")
        attempts.setdefault(tried, {"rows": sorted({item.row_id for item in items}), "base_sha256": base})
        job.payload = payload | {"attempts": attempts}
    with instance.shared.acting():
        outcome = learner.train(items, progress, claim.public_id, tried)
    learned = str(outcome.get("digest") or tried)
    attempt = attempts[learned]
    moved = outcome.get("code") == "moved"  # then the same feedback may be learned again
    with database.write() as session:
        if not moved:
            _mark(session, attempt["rows"], outcome)
        session.get_one(JobRow, claim.job_id).payload = payload  # the rows are told by the votes now
    return {
        **outcome,
        "voices": 0 if moved else len(attempt["rows"]),
        "digest": learned,
        "base_sha256": attempt["base_sha256"],
        "serving": None if moved else serving(root).current,
        "asked_by": claim.payload.get("asked_by", ""),
    }


def _mark(session: Session, rows: Sequence[int], outcome: dict[str, Any]) -> None:
    values = {"tried_version": outcome["version"]}
    if outcome["promoted"]:
        values["learned_version"] = outcome["version"]
    for start in range(0, len(rows), MARKED_AT_ONCE):
        chunk = rows[start : start + MARKED_AT_ONCE]
        session.execute(sa.update(FeedbackRow).where(FeedbackRow.id.in_(chunk)).values(values))
