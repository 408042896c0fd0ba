"""Feedback: one vote per user and medium, on the disk before the answer, changeable and withdrawable."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from utils.errors import ConflictError, FeedbackError, NotFoundError
from utils.feedback.feedback_log import MAX_NOTE_CHARACTERS, Category, FeedbackEntry, Judgement, Label
from utils.types import MediaKind, Outcome
from web_app.api.routing import route
from web_app.api.schemas import FeedbackState, Schema
from web_app.auth import identity
from web_app.db.models import DetectionRow, utc_now
from web_app.feedback.votes import find_medium, save_vote, voice_of, withdraw_vote
from web_app.services import require_detection, services

OPPOSITE = {Outcome.REAL: Outcome.FAKE, Outcome.FAKE: Outcome.REAL}
TRUSTED_SCOPE = "moderate"
SHA256 = re.compile(r"[0-9a-f]{64}")  # an id has half as many digits


class FeedbackRequest(Schema):
    id: str = Field(min_length=1, max_length=64, description="of the analysis")
    feedback: Judgement = Field(description="was the verdict right?")
    actual: Label | None = Field(default=None, description="needed after an inconclusive verdict")
    faces: dict[int, Label] = Field(
        default_factory=dict, max_length=64, description="what single faces really are, by their number in the report"
    )
    part: Literal["voice"] | None = Field(default=None, description="of a video: the answer is about its voice")
    category: Category | None = Field(default=None, description="follows from verdict and label if absent")
    note: str | None = Field(default=None, max_length=MAX_NOTE_CHARACTERS)


@route("POST", "/feedback", {201: FeedbackState}, NotFoundError, ConflictError, FeedbackError, scope="feedback")
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
        return FeedbackState.told(session, vote, parts.settings, said.id, row.report)


class WithdrawalQuery(Schema):
    part: Literal["voice"] | None = Field(default=None, description="of a video: the answer about its voice")


@route("DELETE", "/feedback/<id>", {204: None}, scope="feedback")
def withdraw_feedback(id: str, query: WithdrawalQuery) -> None:
    """Take your feedback on a medium back, named by its analysis or, once that is gone, by the SHA-256 of the file."""
    parts = services()
    with parts.database.read() as session:
        media = find_medium(session, id) if SHA256.fullmatch(id) else require_detection(session, id).media
    media_sha256 = id if media is None or SHA256.fullmatch(id) else media.sha256
    if query.part == "voice" and (media is None or media.kind != MediaKind.AUDIO):
        media_sha256 = voice_of(media_sha256)
    if not withdraw_vote(parts, media_sha256, identity.caller().id):
        raise NotFoundError("You have given no feedback on this medium.")


def resolve_label(prediction: Outcome, judgement: str, actual: str | None) -> Outcome:
    """What the medium really is: the judgement `correct` keeps the verdict, `incorrect` flips it.

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
