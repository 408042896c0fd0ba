"""Each accepted vote is a test from then on: what the version in use says of it today, beside what was said first.

Whenever another version serves than the one that was asked last (a promotion, a rollback, another base), the idle
worker queues a check, which runs beside the analyses. A vote is *lost* when a version was right about it and the
present one is not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.feedback.quarantine import Status
from utils.weights import current_speech
from web_app.db.models import CHECK, FeedbackRow, JobRow, JobState, utc_now
from web_app.feedback.rulings import VerdictToday, verdict_today
from web_app.feedback.training import AFTER_FAILURE, accepted_items
from web_app.jobs.instance import Instance
from web_app.jobs.queue import Claim

if TYPE_CHECKING:
    from utils.feedback.cached_judge import Said
    from web_app.feedback.learner import Learner, Progress

STATES = ("lost", "open", "holds", "unknown")
Correction = tuple[FeedbackRow, VerdictToday]
"""An accepted vote with what is said of it today."""
ACCEPTED = FeedbackRow.state == Status.ACCEPTED.value


def list_corrections(session: Session) -> list[Correction]:
    """Every accepted vote, those that are lost first and the latest first among each."""
    rows = session.scalars(sa.select(FeedbackRow).where(ACCEPTED).order_by(FeedbackRow.created_at.desc()))
    return sorted(((row, verdict_today(row)) for row in rows), key=lambda pair: STATES.index(pair[1].state))


def count_corrections(corrections: Iterable[Correction]) -> dict[str, int]:
    """How many are in each state, every state named."""
    counts = Counter(today.state for _, today in corrections)
    return {state: counts[state] for state in STATES}


def queue_check(instance: Instance, serving: str | None) -> bool:
    """Queue a check where an accepted vote has its last verdict from another version than `serving` or that of speech
    in use.
    """
    serve = [name for name in (serving, current_speech(instance.settings)) if name]
    said_by = sa.func.coalesce(FeedbackRow.checked_version, FeedbackRow.model_version)
    outdated = sa.select(FeedbackRow.id).where(ACCEPTED, said_by.not_in(serve)).limit(1)
    earlier = sa.select(JobRow).where(JobRow.task == CHECK).order_by(JobRow.id.desc()).limit(1)
    with instance.database.read() as session:
        due, last = session.scalar(outdated) is not None, session.scalar(earlier)
    failed = last is not None and last.state == JobState.FAILED and last.finished_at
    if not due or (last and not JobState(last.state).final) or (failed and utc_now() - failed < AFTER_FAILURE):
        return False
    with instance.database.write() as session:
        session.execute(sa.delete(JobRow).where(JobRow.task == CHECK))
        instance.queue.add_task(session, CHECK, {})
    return True


def run_check(instance: Instance, learner: Learner, _claim: Claim, progress: Progress) -> dict[str, Any]:
    """The handler of the task `check`: ask the version in use about every accepted vote, and note what it says."""
    with instance.database.read() as session:
        items = accepted_items(session, instance.paths)
    version, said = learner.check(items, progress)
    with instance.database.write() as session:
        note(session, version, said)
        lost = count_corrections(list_corrections(session))["lost"]
    return {"version": version, "lost": lost}


def note(session: Session, version: str, said: Sequence[Said]) -> None:
    """Store what a version says of all accepted votes; those of which it was not asked cannot be known. Of voices
    another one says it.

    Args:
        said: one for each face that a vote is about.
    """
    of_row: dict[int, list[Said]] = defaultdict(list)
    for each in said:
        if each.outcome:
            of_row[each.row_id].append(each)
    for row in session.scalars(sa.select(FeedbackRow).where(ACCEPTED)):
        faces = of_row[row.id]
        wrong = [face for face in faces if face.outcome != ("real", "fake")[face.label]]
        shown = next(iter(wrong or faces), None)
        if row.right_version is None and row.prediction == row.actual:
            row.right_version = row.model_version
        row.checked_version = (shown and shown.version) or version
        row.checked_prediction, row.checked_probability = (shown.outcome, shown.probability) if shown else (None, None)
        if faces and not wrong:
            row.right_version = row.checked_version
