"""Feedback, what was learned from it, and its review by a moderator."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field
from sqlalchemy.orm import Session

from utils.config import LearningSettings
from utils.feedback.feedback_log import MAX_NOTE_CHARACTERS, Category, Decision, Judgement, Label
from utils.feedback.quarantine import Outlook, Status
from web_app.api.schemas import EXAMPLE_ID, KindName, Moment, OutcomeName, Probability, Problem, Schema, StateName
from web_app.db.models import FeedbackRow
from web_app.feedback.rulings import foresee, verdict_today

StatusName = Literal[
    "accepted", "duplicate", "replaced", "waiting", "contradiction", "quota", "out_of_domain", "rejected"
]
CorrectionState = Literal["lost", "open", "holds", "unknown"]
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
    category: Category | None = Field(default=None, description="follows from verdict and label if absent")
    note: str | None = Field(default=None, max_length=MAX_NOTE_CHARACTERS)


class VerdictNow(Schema):
    """The last verdict on an accepted vote, by the version that was in use then."""

    state: CorrectionState = Field(description="holds: it is right; open: never right; lost: right once, not now")
    prediction: str = Field(description="empty where it cannot be known: its file is gone, and other networks serve")
    probability: Probability | None
    version: str


class CorrectionItem(Schema):
    """An accepted vote as a test: the verdict that it was about, and the one of today."""

    medium: str = Field(description="first digits of the file's SHA-256")
    id: str | None = Field(description="of the analysis, if you may see it")
    name: str | None
    actual: Label
    before: OutcomeName
    before_version: str
    now: VerdictNow
    created: Moment


class Corrections(Schema):
    items: list[CorrectionItem] = Field(description="those that are lost first, then those that never held")
    counts: dict[str, int] = Field(description="by state: lost, open, holds, unknown")
    page: int
    per_page: int
    total: int


class Page(Schema):
    page: int = Field(default=1, ge=1, le=1_000_000)
    per_page: int = Field(default=20, ge=1, le=100)


class FeedbackState(Schema):
    """What this client last said about an analysis."""

    id: str
    feedback: Judgement
    actual: Label
    category: Category
    note: str | None
    faces: dict[int, Label] = Field(description="labels of single faces, by their number")
    state: str = Field(description="what becomes of it: waiting, accepted, or why it is not learned from")
    reason: str | None = Field(description="the state in a sentence")
    outlook: Outlook = Field(description="what will happen to it or has: at once, and again after each training")
    missing_users: int = Field(description="how many more users must agree, where it waits for them")
    tried_version: str | None = Field(description="the last candidate that learned from it, promoted or not")
    learned_version: str | None = Field(description="the promoted version that learned from it")
    now: VerdictNow | None = Field(description="what is said of it today; null until it is accepted")
    created: Moment

    @classmethod
    def told(cls, session: Session, vote: FeedbackRow, rules: LearningSettings, id: str, report: Any) -> Self:
        """A vote on an analysis, its id and report, with what will become of it by what is known now."""
        outlook, missing = foresee(session, vote, rules, report)
        now = VerdictNow.of(verdict_today(vote)) if vote.state == Status.ACCEPTED else None
        return cls.of(vote, id=id, outlook=outlook, missing_users=missing, now=now)


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
    refused: dict[str, Any] | None = Field(description="a version it would not take, and why")


class Stats(Schema):
    """What users said, and what was learned from it."""

    feedback: FeedbackFigures
    accuracy_on_feedback: Probability | None = Field(description="share of real and fake verdicts that users confirm")
    trainings: TrainingFigures
    golden: list[GoldenPoint] = Field(description="one per version, oldest first")
    model_version: str | None = Field(description="that answers: what the workers have loaded, else what is chosen")
    chosen_version: str | None = Field(description="what the pointer file names")
    loaded: list[LoadedVersion]
    poison_drill: dict[str, Any] | None = Field(description="always null; earlier versions told of a drill")


class Training(Schema):
    """The state of a training; `result` is its line of the history once it is done."""

    id: str
    state: StateName
    stage: str | None
    fraction: Probability
    attempts: int
    created: Moment
    started: Moment | None
    finished: Moment | None
    error: Problem | None
    result: dict[str, Any] | None
    links: dict[str, str]


class LearnedVersion(Schema):
    """One version on disk."""

    version: str
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
        default=None, min_length=1, max_length=64, description="the one served before, if absent"
    )


class RolledBack(Schema):
    version: str
    previous: str | None


class ReviewQuery(Page):
    state: StatusName | Literal["all"] = "waiting"


class ReviewVote(Schema):
    """One user's word; users are told apart by a number within the medium only."""

    user: int
    feedback: Judgement
    actual: Label
    category: Category
    note: str | None
    faces: dict[int, Label]
    trusted: bool
    state: StatusName
    reason: str | None
    prediction: OutcomeName
    fake_probability: Probability | None
    model_version: str
    learned_version: str | None
    created: Moment


class ReviewDecision(Schema):
    decision: Decision
    label: Label | None
    note: str | None
    decided: Moment


class ReviewCase(Schema):
    """A medium with everything that was said about it."""

    media_sha256: str
    kind: KindName | None = Field(description="null when the file is gone")
    media: str | None = Field(description="address of the file; null when it is gone")
    votes: list[ReviewVote]
    decision: ReviewDecision | None
    learnable: str | None = Field(
        description="why nothing can be learned from it; null when it can, or is not known yet"
    )


class Review(Schema):
    items: list[ReviewCase]
    page: int
    per_page: int
    total: int
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
