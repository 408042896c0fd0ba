"""Feedback: one vote per user and medium, on the disk before the answer, changeable and withdrawable.

And its review by a moderator: media with what users said about them, and the moderator's word.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import sqlalchemy as sa
from flask import Response, url_for
from pydantic import ConfigDict, Field
from sqlalchemy.orm import Session

from utils.errors import ConflictError, FeedbackError, NotFoundError
from utils.feedback.feedback_log import (
    MAX_NOTE_CHARACTERS,
    Category,
    Decision,
    DecisionEntry,
    FeedbackEntry,
    Judgement,
    Label,
)
from utils.feedback.quarantine import Status
from utils.types import MediaKind, Outcome
from web_app.api.detections import serve_media
from web_app.api.routing import MEDIA, route
from web_app.api.schemas import EXAMPLE_ID, KindName, Moment, OutcomeName, Page, Paged, Probability, Said, Schema
from web_app.api.schemas.analysis import FeedbackState
from web_app.auth import identity
from web_app.db.models import DetectionRow, FeedbackRow, MediaRow, ReviewedMediumRow, utc_now
from web_app.feedback.stats import count_states
from web_app.feedback.votes import decide, find_medium, save_vote, voice_of, withdraw_vote
from web_app.services import require_detection, services

OPPOSITE = {Outcome.REAL: Outcome.FAKE, Outcome.FAKE: Outcome.REAL}
TRUSTED_SCOPE = "moderate"
SHA256 = re.compile(r"[0-9a-f]{64}")  # an id has half as many digits
StatusName = Literal[
    "accepted", "duplicate", "replaced", "waiting", "contradiction", "quota", "out_of_domain", "rejected"
]
assert set(StatusName.__args__) == {status.value for status in Status}  # type: ignore[attr-defined]


class FeedbackRequest(Schema):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": EXAMPLE_ID, "feedback": "incorrect", "actual": "real", "note": "my own photo"}]
        }
    )

    id: str = Field(min_length=1, max_length=64, description="of the analysis")
    feedback: Judgement = Field(description="was the verdict right?")
    actual: Label | None = Field(default=None, description="needed after an inconclusive verdict or without a face")
    faces: dict[int, Label] = Field(
        default_factory=dict, max_length=64, description="what single faces really are, by their number in the report"
    )
    part: Literal["voice"] | None = Field(default=None, description="of a video: the answer is about its voice")
    category: Category | None = Field(default=None, description="follows from verdict and label if absent")
    note: str | None = Field(default=None, max_length=MAX_NOTE_CHARACTERS)


@route(
    "POST", "/feedback", {201: FeedbackState}, NotFoundError, ConflictError, FeedbackError, body=FeedbackRequest,
    scope="feedback",
)  # fmt: skip
def give_feedback(said: FeedbackRequest) -> FeedbackState:
    """Say whether a verdict was right. A second vote of the same user on the same medium replaces the first."""
    parts = services()
    asking = identity.caller()
    with parts.database.read() as session:
        row = require_detection(session, said.id, done=True)
    prediction, media_sha256, speech = Outcome(row.prediction or ""), row.media.sha256, (row.report or {}).get("speech")
    version, probability = row.model_version or "", row.fake_probability
    if said.part == "voice" or row.media_kind == MediaKind.AUDIO:
        if not speech or said.faces:
            raise FeedbackError("No voice was judged here." if not speech else "A voice has no faces.")
        verdict, version = speech["verdict"], speech["model_version"]
        prediction, probability = Outcome(verdict["outcome"]), verdict["probability"]
        media_sha256 = media_sha256 if row.media_kind == MediaKind.AUDIO else voice_of(media_sha256)
    actual = resolve_label(prediction, said.feedback, said.actual)
    check_faces(row, actual, said.faces)
    entry = FeedbackEntry(
        time=utc_now(),
        detection_id=said.id,
        client_id=asking.id,
        media_sha256=media_sha256,
        model_version=version,
        prediction=prediction.value,
        fake_probability=probability,
        judgement=said.feedback,
        actual="fake" if actual is Outcome.FAKE else "real",
        category=said.category or default_category(prediction, actual),
        note=said.note,
        face_labels=said.faces,
        trusted=TRUSTED_SCOPE in asking.scopes,
    )
    vote = save_vote(parts, entry)
    with parts.database.read() as session:
        return FeedbackState.told(session, vote, parts.settings.learning, said.id, row.report)


class WithdrawalQuery(Schema):
    part: Literal["voice"] | None = Field(default=None, description="of a video: the answer about its voice")


@route("DELETE", "/feedback/<id>", {204: None}, NotFoundError, query=WithdrawalQuery, scope="feedback")
def withdraw_feedback(id: str, query: WithdrawalQuery) -> None:
    """Take your feedback on a medium back, named by its analysis or, once that is gone, by the SHA-256 of the file."""
    parts = services()
    media_sha256 = id
    if not SHA256.fullmatch(id):
        with parts.database.read() as session:
            media = require_detection(session, id).media
        of_voice = query.part == "voice" and media.kind != MediaKind.AUDIO
        media_sha256 = voice_of(media.sha256) if of_voice else media.sha256
    if not withdraw_vote(parts, media_sha256, identity.caller().id):
        raise NotFoundError("You have given no feedback on this medium.")


def resolve_label(prediction: Outcome, judgement: str, actual: str | None) -> Outcome:
    """What the medium really is: `correct` keeps the verdict, `incorrect` flips it.

    Args:
        prediction: the verdict that was shown.
        judgement: `correct` or `incorrect`.
        actual: the label, if the client gave one.

    Raises:
        FeedbackError: nothing was judged; an inconclusive verdict comes without a label; or the given label contradicts
            the judgement.
    """
    if prediction is Outcome.NO_FACE:
        raise FeedbackError("No face was found, so nothing was judged, and there is nothing to learn from.")
    if not prediction.judged:
        raise FeedbackError("No speech was found, so nothing was judged, and there is nothing to learn from.")
    if prediction not in OPPOSITE:
        if actual is None:
            raise FeedbackError("The verdict was inconclusive: `actual` must say real or fake.")
        return Outcome(actual)
    label = prediction if judgement == "correct" else OPPOSITE[prediction]
    if actual is not None and actual != label:
        raise FeedbackError(f"The verdict was {prediction}; `{judgement}` means {label}, but `actual` says {actual}.")
    return label


def check_faces(row: DetectionRow, actual: Outcome, labels: Mapping[int, str]) -> None:
    """Hold the labels of single faces against the report and against the label of the whole.

    Raises:
        FeedbackError: a face is not in the report; one is fake and the medium real; or all are real and it is fake.
    """
    known = {int(face["id"]) for face in (row.report or {}).get("faces", [])}
    if unknown := sorted(set(labels) - known):
        raise FeedbackError(f"The report has no face {', '.join(map(str, unknown))}; it has {sorted(known)}.")
    fakes = [face for face, label in labels.items() if label == Outcome.FAKE]
    if actual is Outcome.REAL and fakes:
        raise FeedbackError(f"Face {fakes[0]} is called fake, but the medium real.")
    if actual is Outcome.FAKE and labels and set(labels) == known and not fakes:
        raise FeedbackError("Every face is called real, but the medium fake.")


def default_category(prediction: Outcome, actual: Outcome) -> Category:
    """What kind of word it is: a confirmation, a false alarm, a miss, or other (after an open verdict)."""
    if prediction is actual:
        return "confirmation"
    if prediction is Outcome.FAKE:
        return "false_alarm"
    return "miss" if prediction is Outcome.REAL else "other"


class ReviewQuery(Page):
    state: StatusName | Literal["all"] = "waiting"


class ReviewVote(Said):
    """One user's word; users are told apart by a number within the medium only."""

    user: int
    trusted: bool
    state: StatusName
    reason: str | None
    prediction: OutcomeName
    fake_probability: Probability | None
    model_version: str
    learned_version: str | None


class ReviewDecision(Schema):
    decision: Decision
    label: Label | None
    note: str | None
    decided: Moment


class ReviewCase(Schema):
    """A medium with everything that was said about it."""

    media_sha256: str
    kind: KindName | None = Field(description="null when the file is gone")
    part: Literal["voice"] | None = Field(default=None, description="of a video: it is about the voice")
    media: str | None = Field(description="address of the file; null when it is gone")
    votes: list[ReviewVote]
    decision: ReviewDecision | None
    learnable: str | None = Field(
        description="why nothing can be learned from it; null when it can, or is not known yet"
    )


class Review(Paged):
    items: list[ReviewCase]
    counts: dict[str, int] = Field(description="votes by state")


class DecisionRequest(Schema):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"decision": "accept", "label": "real", "note": "The photographer confirms it."}]
        }
    )

    decision: Decision
    label: Label | None = Field(default=None, description="of the votes it is about; only `reject` may leave it out")
    note: str | None = Field(default=None, max_length=MAX_NOTE_CHARACTERS)


@route("GET", "/rl/review", {200: Review}, query=ReviewQuery, scope="moderate")
def get_review(query: ReviewQuery) -> Review:
    """Media that users gave feedback on, the latest vote first; `state` chooses those with such a vote."""
    wanted = sa.select(FeedbackRow.media_sha256).group_by(FeedbackRow.media_sha256)
    if query.state != "all":
        wanted = wanted.where(FeedbackRow.state == query.state)
    page = wanted.order_by(sa.func.max(FeedbackRow.created_at).desc(), FeedbackRow.media_sha256)
    page = page.offset((query.page - 1) * query.per_page).limit(query.per_page)
    with services().database.read() as session:
        total = session.scalar(sa.select(sa.func.count()).select_from(wanted.subquery())) or 0
        items = _cases(session, session.scalars(page).all())
        counts = count_states(session)
    return Review(items=items, page=query.page, per_page=query.per_page, total=total, counts=counts)


@route(
    "POST", "/rl/review/<sha256>", {200: ReviewCase}, NotFoundError, FeedbackError, body=DecisionRequest,
    scope="moderate",
)  # fmt: skip
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
        return _cases(session, [sha256])[0]


@route("GET", "/rl/review/<sha256>/media", {200: MEDIA, 206: MEDIA, 304: None}, NotFoundError, scope="moderate")
def get_case_media(sha256: str) -> Response:
    """The file that feedback was given on, without its metadata, for moderators; ranges are served."""
    parts = services()
    with parts.database.read() as session:
        spoken = session.scalar(sa.select(FeedbackRow.id).where(FeedbackRow.media_sha256 == sha256).limit(1))
        media = find_medium(session, sha256)
    if spoken is None or media is None or parts.store.size(media.stored_name) is None:
        raise NotFoundError("There is no file that feedback was given on under this address.")
    return serve_media(media)


def _cases(session: Session, media: Sequence[str]) -> list[ReviewCase]:
    said = sa.select(FeedbackRow).where(FeedbackRow.media_sha256.in_(media))
    votes: dict[str, list[FeedbackRow]] = defaultdict(list)
    for row in session.scalars(said.order_by(FeedbackRow.created_at, FeedbackRow.id)):
        votes[row.media_sha256].append(row)
    asked = sa.select(ReviewedMediumRow).where(ReviewedMediumRow.media_sha256.in_(media))
    reviewed = {row.media_sha256: row for row in session.scalars(asked)}
    return [_case(each, votes[each], reviewed.get(each), find_medium(session, each)) for each in media]


def _case(
    sha256: str, votes: Sequence[FeedbackRow], reviewed: ReviewedMediumRow | None, stored: MediaRow | None
) -> ReviewCase:
    """A medium with what was said about it; no vote shows its owner's id, which opens what belongs to them."""
    decision = None
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
