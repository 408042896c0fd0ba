"""The learning from feedback: its figures, trainings and versions, and what is said of corrections today.

And the review of feedback by a moderator: media with what users said about them, and the moderator's word.
"""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from flask import Response, jsonify, url_for
from pydantic import Field
from sqlalchemy.orm import Session

from utils.errors import ConflictError, FeedbackError, NotFoundError, NothingNewError, WeightsError
from utils.feedback.feedback_log import MAX_NOTE_CHARACTERS, Decision, DecisionEntry, Label
from utils.feedback.quarantine import Status
from utils.feedback.versions import serving
from utils.types import MediaKind
from utils.weights import weights_root
from web_app.api import schemas
from web_app.api.detections import serve_media
from web_app.api.routing import MEDIA, json_answer, route
from web_app.api.schemas import Probability, Schema
from web_app.auth import identity
from web_app.db.models import TRAIN, DetectionRow, FeedbackRow, JobRow, ReviewedMediumRow, utc_now
from web_app.feedback.stats import count_states, learning_stats, list_versions, roll_back
from web_app.feedback.training import Correction, count_corrections, list_corrections, request_training
from web_app.feedback.votes import decide, find_medium
from web_app.services import services

PRIVATE = frozenset({"asked_by"})  # a caller's id opens what belongs to them where keys are off
StatusName = Literal[
    "accepted", "duplicate", "replaced", "waiting", "contradiction", "quota", "out_of_domain", "rejected"
]
assert set(StatusName.__args__) == {status.value for status in Status}  # type: ignore[attr-defined]


class CorrectionItem(Schema):
    """An accepted vote as a test: the verdict that it was about, and the one of today."""

    medium: str = Field(description="first digits of the file's SHA-256")
    id: str | None = Field(description="of the analysis, if you may see it")
    name: str | None
    actual: Label
    before: schemas.OutcomeName
    before_version: str
    now: schemas.VerdictNow
    created: schemas.Moment


class Corrections(schemas.Paged):
    items: list[CorrectionItem] = Field(description="those that are lost first, then those that never held")
    counts: dict[str, int] = Field(description="by state: lost, open, holds, unknown")


class LabelCounts(Schema):
    real: int
    fake: int


class FeedbackFigures(Schema):
    """Votes that stand, by what became of them."""

    total: int
    correct: int
    incorrect: int
    by_label: LabelCounts
    accepted: int = Field(description="learned from, or to be at the next training")
    learned: int = Field(description="of these, part of a version that was promoted")
    new: int = Field(description="of these, not tried by any training yet")
    quarantined: dict[str, int] = Field(description="kept and not learned from, by reason")


class GoldenPoint(Schema):
    """What the golden set says of one version."""

    version: str
    time: str | None
    promoted: bool
    auc: float | None
    ece: float | None
    worst_slice: float | None = Field(description="lowest AUC over the slices (sources, manipulations)")


class TrainingFigures(Schema):
    total: int
    promoted: int
    rejected: int
    improvements: int = Field(description="media that were judged wrong before a promoted training and right after it")
    regressions: int = Field(description="the other way round")
    mean_loss: float | None = Field(description="over all trainings")
    accuracy_before: Probability | None = Field(description="of the last training, on the feedback it learned from")
    accuracy_after: Probability | None
    last_rejection: str | None = Field(description="why the last rejected candidate was rejected")
    last: dict[str, Any] | None = Field(description="the last line of the training history")
    damaged_lines: int = Field(description="lines of the history that cannot be read")
    chain_intact: bool = Field(description="the hash chain over the history holds")
    running: str | None = Field(description="id of the training that waits or runs")


class LoadedVersion(Schema):
    """What one living worker has in its memory."""

    worker: str
    version: str | None
    speech_version: str | None = Field(description="of speech")
    refused: dict[str, Any] | None = Field(description="a version it would not take, and why")


class Stats(Schema):
    """What users said, and what was learned from it."""

    feedback: FeedbackFigures
    accuracy_on_feedback: Probability | None = Field(description="share of real and fake verdicts that users confirm")
    trainings: TrainingFigures
    golden: list[GoldenPoint] = Field(description="one per version, oldest first")
    golden_speech: list[GoldenPoint] = Field(description="likewise of speech")
    model_version: str | None = Field(description="that answers: what the workers have loaded, else what is chosen")
    speech_version: str | None = Field(description="likewise of speech; null without its weights")
    chosen_version: str | None = Field(description="what the pointer file names")
    loaded: list[LoadedVersion]
    poison_drill: dict[str, Any] | None = Field(description="always null; earlier versions told of a drill")


class Training(schemas.JobStatus):
    """The state of a training; `result` is its line of the history once it is done."""

    result: dict[str, Any] | None
    links: dict[str, str]


class LearnedVersion(Schema):
    """One version on disk."""

    version: str
    part: Literal["faces", "speech"] = Field(default="faces", description="what it judges")
    current: bool = Field(description="the pointer file names it")
    loaded: bool = Field(description="a living worker has it in its memory")
    base: str | None = Field(description="that its training started from; null for one trained from scratch")
    parent: str | None = Field(description="that was served when it was trained")
    created: str | None
    promoted: bool | None = Field(description="null for one that did not come from feedback")
    reason: str | None
    lost: int = Field(description="accepted votes that the version before it judged right and it does not")
    golden: GoldenPoint | None


class LearnedVersions(Schema):
    items: list[LearnedVersion]
    pinned: bool = Field(description="[weights] version pins one; promotions and rollbacks have no effect then")


class RollbackRequest(Schema):
    version: str | None = Field(
        default=None, min_length=1, max_length=64, description="of faces or speech; the one before, if absent"
    )
    part: Literal["faces", "speech"] = Field(default="faces", description="whose version before, if none is named")


class RolledBack(Schema):
    version: str
    previous: str | None


@route("GET", "/rl/stats", {200: Stats})
def get_stats() -> Response:
    """What users said, what became of it, what was learned, and how the golden set judged each version."""
    return jsonify(learning_stats(services()))


@route("POST", "/rl/retrain", {202: Training}, ConflictError, NothingNewError, scope="admin")
def retrain(session: Session) -> Response:
    """Queue a training on all accepted feedback; it runs beside the analyses."""
    parts = services()
    job = request_training(session, parts, serving(weights_root(parts.settings)), identity.caller().id)
    training = _training(job)
    return json_answer(training, 202, location=training.links["self"])


@route("GET", "/rl/retrain/<id>", {200: Training})
def get_training(id: str, session: Session) -> Training:
    """The state of a training, with its outcome once it is done."""
    job = session.scalar(sa.select(JobRow).where(JobRow.public_id == id, JobRow.task == TRAIN))
    if job is None:
        raise NotFoundError("There is no training with this id.")
    return _training(job)


@route("GET", "/rl/versions", {200: LearnedVersions})
def get_learning_versions() -> Response:
    """Every version on disk, with its verdict of the golden set, and which one is loaded."""
    return jsonify(list_versions(services()))


@route("POST", "/rl/rollback", {200: RolledBack}, NotFoundError, ConflictError, WeightsError, scope="admin")
def rollback(said: RollbackRequest) -> Response:
    """Serve an earlier version again; without a name, the one that was served before. The worker changes at once."""
    return jsonify(roll_back(services(), said.version, said.part))


@route("GET", "/rl/corrections", {200: Corrections})
def get_corrections(query: schemas.Page, session: Session) -> Corrections:
    """Every accepted vote as a test: the verdict that it was about, and what the version in use says today."""
    first, every = (query.page - 1) * query.per_page, list_corrections(session)
    items = [_correction(session, each) for each in every[first : first + query.per_page]]
    counts = count_corrections(every)
    return Corrections(items=items, counts=counts, page=query.page, per_page=query.per_page, total=len(every))


def _correction(session: Session, correction: Correction) -> CorrectionItem:
    """A correction; only who may see its analysis is told which that is."""
    row, today = correction
    analysis = None if row.detection_id is None else session.get(DetectionRow, row.detection_id)
    if analysis is not None and not identity.caller().owns(analysis.client_id):
        analysis = None
    return CorrectionItem.of(
        row, medium=row.media_sha256[:12], id=analysis and analysis.job.public_id,
        name=analysis and analysis.display_name, before=row.prediction, before_version=row.model_version,
        now=schemas.VerdictNow.of(today),
    )  # fmt: skip


def _training(job: JobRow) -> Training:
    result = None if job.result is None else {key: job.result[key] for key in job.result if key not in PRIVATE}
    links = {"self": url_for("api.get_training", id=job.public_id)}
    return Training.of(job, error=schemas.Problem.of_job(job), result=result, links=links)


class ReviewQuery(schemas.Page):
    state: StatusName | Literal["all"] = "waiting"


class ReviewVote(schemas.Said):
    """One user's word; users are told apart by a number within the medium only."""

    user: int
    trusted: bool
    state: StatusName
    reason: str | None
    prediction: schemas.OutcomeName
    fake_probability: Probability | None
    model_version: str
    learned_version: str | None


class ReviewDecision(Schema):
    decision: Decision
    label: Label | None
    note: str | None
    decided: schemas.Moment


class ReviewCase(Schema):
    """A medium with everything that was said about it."""

    media_sha256: str
    kind: schemas.KindName | None = Field(description="null when the file is gone")
    part: Literal["voice"] | None = Field(default=None, description="of a video: it is about the voice")
    media: str | None = Field(description="address of the file; null when it is gone")
    votes: list[ReviewVote]
    decision: ReviewDecision | None
    learnable: str | None = Field(
        description="why nothing can be learned from it; null when it can, or is not known yet"
    )


class Review(schemas.Paged):
    items: list[ReviewCase]
    counts: dict[str, int] = Field(description="votes by state")


class DecisionRequest(Schema):
    decision: Decision
    label: Label | None = Field(default=None, description="of the votes it is about; only `reject` may leave it out")
    note: str | None = Field(default=None, max_length=MAX_NOTE_CHARACTERS)


@route("GET", "/rl/review", {200: Review}, scope="moderate")
def get_review(query: ReviewQuery, session: Session) -> Review:
    """Media that users gave feedback on, the latest vote first; `state` chooses those with such a vote."""
    wanted = sa.select(FeedbackRow.media_sha256).group_by(FeedbackRow.media_sha256)
    if query.state != "all":
        wanted = wanted.where(FeedbackRow.state == query.state)
    page = wanted.order_by(sa.func.max(FeedbackRow.created_at).desc(), FeedbackRow.media_sha256)
    page = page.offset((query.page - 1) * query.per_page).limit(query.per_page)
    total = session.scalar(sa.select(sa.func.count()).select_from(wanted.subquery())) or 0
    items, counts = [_case(session, each) for each in session.scalars(page).all()], count_states(session)
    return Review(items=items, page=query.page, per_page=query.per_page, total=total, counts=counts)


@route("POST", "/rl/review/<sha256>", {200: ReviewCase}, FeedbackError, scope="moderate")
def decide_case(sha256: str, said: DecisionRequest) -> ReviewCase:
    """Accept one label for a medium, or reject one label or all; the worker judges by it in its next idle moment."""
    parts = services()
    with parts.database.read() as session:
        labels = set(session.scalars(sa.select(FeedbackRow.actual).where(FeedbackRow.media_sha256 == sha256)))
    if not labels:
        raise NotFoundError("Nobody has given feedback on this medium.")
    if said.label is None and said.decision == "accept":
        raise FeedbackError("Say which label is accepted: real or fake.")
    if said.label is not None and said.label not in labels:
        raise FeedbackError(f"Nobody called this medium {said.label}.")
    entry = DecisionEntry(
        time=utc_now(),
        media_sha256=sha256,
        moderator_id=identity.caller().id,
        decision=said.decision,
        label=said.label,
        note=said.note,
    )
    decide(parts, entry)
    with parts.database.read() as session:
        return _case(session, sha256)


@route("GET", "/rl/review/<sha256>/media", {200: MEDIA, 206: MEDIA, 304: None}, scope="moderate")
def get_case_media(sha256: str) -> Response:
    """The file that feedback was given on, without its metadata, for moderators; ranges are served."""
    parts = services()
    with parts.database.read() as session:
        spoken = session.scalar(sa.select(FeedbackRow.id).where(FeedbackRow.media_sha256 == sha256).limit(1))
        media = find_medium(session, sha256)
    if spoken is None or media is None or parts.store.size(media.stored_name) is None:
        raise NotFoundError("There is no file that feedback was given on under this address.")
    return serve_media(media)


def _case(session: Session, sha256: str) -> ReviewCase:
    """A medium with what was said about it; no vote shows its owner's id, which opens what belongs to them."""
    said = sa.select(FeedbackRow).where(FeedbackRow.media_sha256 == sha256)
    votes = session.scalars(said.order_by(FeedbackRow.created_at, FeedbackRow.id))
    reviewed, stored, decision = session.get(ReviewedMediumRow, sha256), find_medium(session, sha256), None
    if reviewed is not None and reviewed.decision is not None:
        decision = ReviewDecision.of(
            reviewed, label=reviewed.decision_label, note=reviewed.decision_note, decided=reviewed.decided_at
        )
    return ReviewCase(
        media_sha256=sha256,
        kind=None if stored is None else MediaKind(stored.kind).value,
        part="voice" if stored is not None and stored.sha256 != sha256 else None,
        media=None if stored is None else url_for("api.get_case_media", sha256=sha256),
        votes=[ReviewVote.of(vote, user=number) for number, vote in enumerate(votes, start=1)],
        decision=decision,
        learnable=None if reviewed is None else reviewed.domain_reason,
    )
