"""Trainings: what is learned from, whether there is anything new, and the job that does it.

The request for a training (by hand or by itself) is a row of `jobs` with the task `train`; the worker runs it in a lane
beside the analyses. Every training learns *all* accepted votes from the base again, so that nothing adds up unseen and
a withdrawn vote is really unlearned. Faces and voices have versions and a history each; one job trains what has news.

Each accepted vote is also a test from then on: what the version in use says of it today, beside what was said first.
Whenever another version serves than the one that was asked last (a promotion, a rollback, another base), the idle
worker queues a check, which runs beside the analyses. A vote is *lost* when a version was right about it and the
present one is not.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.config import LearningSettings
from utils.errors import ConflictError, JobCancelledError, NothingNewError, TelltaleError, UnavailableError
from utils.feedback.quarantine import VOICE, LearningItem, Status
from utils.feedback.versions import Serving, serving
from utils.log import get_logger
from utils.weights import SPEECH_FOLDER, current_speech, weights_root
from web_app.db.models import CHECK, FINAL, OPEN, TRAIN, FeedbackRow, JobRow, JobState, ReviewedMediumRow, utc_now
from web_app.feedback.features import DECIDING, feature_path, unexamined
from web_app.feedback.rulings import LABEL_NUMBERS, VerdictToday, serving_speech, verdict_today
from web_app.jobs.queue import Claim
from web_app.jobs.shared import Instance
from web_app.paths import InstancePaths

if TYPE_CHECKING:
    from utils.feedback.cached_judge import Said
    from web_app.feedback.learner import Learner, Progress

MARKED_AT_ONCE = 500
AFTER_FAILURE = dt.timedelta(hours=1)  # what failed would fail again at once
BY_ITSELF = "automatic"
NO_VOICES = "Voices wait: the version of speech in use has no golden set, without which none is learned."
STATES = ("lost", "open", "holds", "unknown")
Correction = tuple[FeedbackRow, VerdictToday]
"""An accepted vote with what is said of it today."""
ACCEPTED = FeedbackRow.state == Status.ACCEPTED.value
STATE = [f"{of}{name}" for of in ("", "speech_") for name in ("digest", "base_sha256", "serving")]
"""What the result of a training says of faces and of voices; of those without news, what the one before said."""

log = get_logger(__name__)


def accepted_items(session: Session, paths: InstancePaths) -> list[LearningItem]:
    """Everything that may be learned from, in the order of the media; the deciding face, or those that have labels."""
    pairs = session.execute(
        sa.select(FeedbackRow, ReviewedMediumRow)
        .join(ReviewedMediumRow, ReviewedMediumRow.media_sha256 == FeedbackRow.media_sha256)
        .where(ACCEPTED)
        .order_by(FeedbackRow.media_sha256)
    ).all()
    items: list[LearningItem] = []
    for row, medium in pairs:
        looked_at = medium.features or {}
        labels = row.face_labels or {VOICE if VOICE in looked_at else DECIDING: row.actual}
        for face in sorted(labels):
            path = feature_path(paths, row.media_sha256, face)
            if looked_at.get(face) == "":
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
        served: of faces; after a rollback or with another base the same feedback may be learned again.

    Raises:
        ConflictError: a training waits or runs; the fact `id` names it.
        NothingNewError: nothing is accepted, or voices only where theirs cannot be learned, or all of it was learned
            from in the last training already.
    """
    items = accepted_items(session, instance.paths)
    parts = list(_parts(items, instance, served))
    waits = session.scalar(sa.select(sa.func.count()).where(FeedbackRow.state == Status.WAITING.value)) or 0
    beside = f" {waits} votes wait to be accepted." if waits else ""
    if any(item.voice for item in items) and not any(part.voices for part in parts):
        beside = f" {NO_VOICES}{beside}"
    opened = session.scalar(sa.select(JobRow.public_id).where(JobRow.task == TRAIN, JobRow.state.in_(OPEN)))
    if opened is not None:
        raise ConflictError("A training waits or runs already.", id=opened)
    if not parts:
        raise NothingNewError(beside.strip() if items else f"No accepted feedback is there to learn from.{beside}")
    last = last_result(session)
    if all(part.is_known(last) for part in parts):
        raise NothingNewError(f"The last training learned from exactly this feedback.{beside}")
    return instance.queue.add_task(session, TRAIN, {"asked_by": asked_by})


class Part(NamedTuple):
    """What a training has to learn of faces or of voices, and the version of them in use."""

    voices: bool
    items: list[LearningItem]
    served: Serving
    digest: str

    def key(self, name: str) -> str:
        """What `name` is called in the result of a training."""
        return f"speech_{name}" if self.voices else name

    def told(self, **facts: object) -> dict[str, object]:
        """Facts by what they are called there."""
        return {self.key(name): value for name, value in facts.items()}

    def is_known(self, done: dict[str, Any]) -> bool:
        """Whether the training with this result learned exactly this, and what it left is in use."""
        return (done.get(self.key("digest")), done.get(self.key("serving"))) == (self.digest, self.served.current)


def _parts(items: Sequence[LearningItem], instance: Instance, served: Serving) -> Iterator[Part]:
    """Faces, then voices, where there are any; voices only where their version can learn."""
    for voices, version in ((False, served), (True, serving_speech(instance.settings))):
        mine = [item for item in items if item.voice is voices]
        if mine and (version.base or not voices):
            yield Part(voices, mine, version, digest(mine, instance.settings.learning, version.base_sha256))


def last_result(session: Session) -> dict[str, Any]:
    """Of the last training that ended with a verdict; empty before the first."""
    done = sa.select(JobRow.result).where(JobRow.task == TRAIN, JobRow.state == JobState.DONE)
    return session.scalar(done.order_by(JobRow.id.desc()).limit(1)) or {}


def training_is_due(session: Session, settings: LearningSettings, now: dt.datetime, *, rebased: bool = False) -> bool:
    """Whether a training shall start by itself: enough has changed since the last one, or something has and it is time.

    What changes is votes that are newly accepted, and votes that the last training learned from and that count no
    more: withdrawn, contradicted, or rejected since. Where it `is_rebased`, nothing was tried yet. A rollback alone
    starts none: whoever went back would get the same version again at once. After a training that failed, none starts
    for an hour.
    """
    if not settings.auto_after and not settings.auto_hours:
        return False
    accepted = sa.select(sa.func.count()).where(ACCEPTED)
    total = session.scalar(accepted) or 0
    newest = session.scalar(sa.select(JobRow).where(JobRow.task == TRAIN).order_by(JobRow.id.desc()).limit(1))
    ended = newest.finished_at if newest is not None and newest.state == JobState.FAILED else None
    if not total or (ended is not None and now - ended < AFTER_FAILURE):
        return False
    changed, last = total, last_result(session)
    if not rebased:
        untried = session.scalar(accepted.where(FeedbackRow.tried_version.is_(None))) or 0
        names = list(last.get("tried", {}).values()) or [last.get("version")]
        standing = session.scalar(accepted.where(FeedbackRow.tried_version.in_(names))) or 0
        changed = untried + max(0, int(last.get("voices", 0)) - standing)
    if not changed:
        return False
    if settings.auto_after and changed >= settings.auto_after:
        return True
    if not settings.auto_hours:
        return False
    return newest is None or now - newest.created_at >= dt.timedelta(hours=settings.auto_hours)


def is_rebased(session: Session, instance: Instance, served: Serving) -> bool:
    """Whether there are faces or voices to learn whose base is another one than in the last training of them."""
    last, speech = last_result(session), serving_speech(instance.settings)
    bases = {"base_sha256": served.base_sha256, "speech_base_sha256": speech.base_sha256}
    other = {key for key, base in bases.items() if last.get(key, base) != base}
    if not other:
        return False  # without a look at all that is accepted
    parts = _parts(accepted_items(session, instance.paths), instance, served)
    return any(part.key("base_sha256") in other for part in parts)


def start_if_due(instance: Instance, served: Serving, *, all_prepared: bool) -> bool:
    """Queue a training when the settings [learning] auto_after or auto_hours say so, or when the base was changed.

    With another base everything is learned again, once all media that are still stored have been prepared again.
    """
    how = instance.settings.learning
    with instance.database.read() as session:
        rebased, last = is_rebased(session, instance, served), last_result(session)
        due = dataclasses.replace(how, auto_after=1) if rebased and all_prepared else how
        if not training_is_due(session, due, utc_now(), rebased=rebased):
            return False
        if all(part.is_known(last) for part in _parts(accepted_items(session, instance.paths), instance, served)):
            return False  # what could teach nothing stays untried; it shall not take the write lock again and again
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

    Returns:
        The outcome of faces, or of voices where only they have one; that of voices beside faces under `speech`. Of a
        part that could not learn, code and reason lie under `faces` or `speech`; it ends the job where no part could.

    Raises:
        NothingNewError: what was accepted has been withdrawn meanwhile, or can teach nothing.
    """
    progress("collect", 0.0)
    database, root = instance.database, weights_root(instance.settings)
    with database.read() as session:
        everything = accepted_items(session, instance.paths)
        last = last_result(session)
    items = [item for item in everything if learner.is_whole(item.features)]
    if unread := {item.media_sha256 for item in set(everything) - set(items)}:
        with database.write() as session:
            medium = ReviewedMediumRow
            of_these = medium.media_sha256.in_(unread), medium.examined_at.is_not(None)  # not withdrawn meanwhile
            again = sa.update(medium).where(*of_these).values(examined_at=None).returning(medium.media_sha256)
            if damaged := session.scalars(again).all():
                log.warning("features of %d media are damaged; they are left out and made again", len(damaged))
    parts = list(_parts(items, instance, serving(root)))
    with database.write() as session:
        job = session.get_one(JobRow, claim.job_id)
        payload = dict(job.payload or {})
        attempts: dict[str, Any] = dict(payload.get("attempts", {}))
        if not parts and not attempts:
            raise NothingNewError("What was accepted has been withdrawn meanwhile.")
        for part in parts:
            rows = sorted({item.row_id for item in part.items})
            attempts.setdefault(part.digest, {"rows": rows, "base_sha256": part.served.base_sha256})
        job.payload = payload | {"attempts": attempts}
    news = [part for part in parts if not part.is_known(last)] or parts or [Part(False, [], serving(root), "")]
    kinds = {item.voice for item in everything}  # of what is accepted no more, nothing holds that was said
    state = {key: last[key] for key in STATE if key in last and key.startswith("speech_") in kinds}
    tried: dict[str, Any] = dict(last.get("tried", {}))
    outcomes: dict[str, dict[str, Any]] = {}
    errors: dict[str, TelltaleError] = {}
    for part in news:
        name = "speech" if part.voices else "faces"
        of_voices = {"voices": True} if part.voices else {}
        tried.pop(part.key("version"), None)
        try:
            with instance.shared.acting():
                outcome = learner.train(part.items, progress, claim.public_id, part.digest, **of_voices)
        except (JobCancelledError, UnavailableError):
            raise
        except TelltaleError as error:
            errors[name] = error
            log.warning("%s could not learn: %s", name, error)
            with database.read() as session:  # features that are made anew may teach more
                unseen = session.scalar(unexamined(learner.fingerprint(), learner.voice_fingerprint()))
            if isinstance(error, NothingNewError) and unseen is None:
                was = part.served
                state |= part.told(digest=part.digest, base_sha256=was.base_sha256, serving=was.current)
            continue
        learned = str(outcome.get("digest") or part.digest)
        attempt = attempts[learned]
        moved = outcome.get("code") == "moved"  # then the same feedback may be learned again
        if not moved:
            tried[part.key("version")] = outcome["version"]
            with database.write() as session:
                _mark(session, attempt["rows"], outcome)
        now = None if moved else serving(root / SPEECH_FOLDER if part.voices else root).current
        state |= part.told(digest=learned, base_sha256=attempt["base_sha256"], serving=now)
        outcomes[name] = {key: value for key, value in outcome.items() if key != "digest"}
    if not outcomes:
        raise min(errors.values(), key=lambda error: isinstance(error, NothingNewError))
    with database.write() as session:
        session.get_one(JobRow, claim.job_id).payload = payload  # the rows are told by the votes now
    first = outcomes.pop(next(iter(outcomes)))
    failed = {name: {"promoted": False, "code": e.code, "reason": e.detail} for name, e in errors.items()}
    votes = sum(len(attempts[part.digest]["rows"]) for part in parts if part.key("version") in tried)
    asked_by = claim.payload.get("asked_by", "")
    return {**first, **outcomes, **failed, **state, "tried": tried, "voices": votes, "asked_by": asked_by}


def _mark(session: Session, rows: Sequence[int], outcome: dict[str, Any]) -> None:
    version = outcome["version"]
    values = {"tried_version": version} | ({"learned_version": version} if outcome["promoted"] else {})
    for start in range(0, len(rows), MARKED_AT_ONCE):
        chunk = rows[start : start + MARKED_AT_ONCE]
        session.execute(sa.update(FeedbackRow).where(FeedbackRow.id.in_(chunk)).values(values))


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
    if not due or (last and last.state not in FINAL) or (failed and utc_now() - failed < AFTER_FAILURE):
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
    """Store what a version says of all accepted votes, of each face that one is about; of voices another one says it.

    What the version was not asked about cannot be known.
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
