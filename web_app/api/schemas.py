"""The values of the API as pydantic models: requests are checked with them, answers are described by them.

The OpenAPI document is made of these; the tests hold every real answer against them, unknown fields forbidden.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from utils.learning.feedback_log import MAX_NOTE_CHARACTERS, Category, Judgement, Label

MAX_PER_PAGE = 100

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
OutcomeName = Literal["fake", "real", "inconclusive", "no_face"]
StateName = Literal["queued", "running", "done", "failed", "cancelled"]
KindName = Literal["image", "video"]


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """An error (RFC 9457). Further members carry the facts of the case, such as `limit_bytes` or `errors`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="urn:telltale:error: and the code")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="what happened this time")
    code: str = Field(description="stable name for programs; docs/api.md lists all")
    remedy: str = Field(description="what to do about it")
    instance: str | None = Field(default=None, description="the path that was asked for")


class NoticeModel(Schema):
    code: str
    text: str


class MediaModel(Schema):
    kind: KindName
    format: str
    mime: str
    width: int = Field(gt=0, description="pixels, upright")
    height: int = Field(gt=0, description="pixels, upright")
    size_bytes: int
    sha256: str = Field(min_length=64, max_length=64)
    duration_s: float | None = Field(description="seconds; null for pictures")
    fps: float | None
    codec: str | None


class VerdictModel(Schema):
    outcome: OutcomeName
    headline: str
    probability: Probability | None = Field(description="calibrated probability of fake; null without a face")
    interval: tuple[Probability, Probability] | None = Field(description="95 % interval of the probability")
    reasons: list[NoticeModel]


class ExpertModel(Schema):
    name: str
    title: str
    looks_at: str
    available: bool
    probability: Probability | None
    weight: Probability = Field(description="share in the gate's mixture")
    missing_because: str | None


class FrameScoreModel(Schema):
    frame: int
    time_s: float
    probability: Probability
    box: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1 in pixels of the upright frame")


class FaceModel(Schema):
    id: int
    verdict: VerdictModel
    experts: list[ExpertModel]
    frames: list[FrameScoreModel]
    quality: dict[str, float]


class TimelinePoint(Schema):
    frame: int
    time_s: float
    probability: Probability = Field(description="highest over all faces of the frame")


class Links(Schema):
    job: str
    events: str
    detection: str
    media: str
    page: str


class Result(Schema):
    """The report of one analysis, with its id."""

    id: str
    schema_version: int
    media: MediaModel
    verdict: VerdictModel
    faces: list[FaceModel]
    deciding_face: int | None
    model_version: str
    model_sha256: str
    threshold: Probability
    times_ms: dict[str, float]
    notices: list[NoticeModel]
    prediction: OutcomeName = Field(description="the outcome again, for simple clients")
    fake_probability: Probability | None
    real_probability: Probability | None
    confidence: Probability | None = Field(description="the larger of the two probabilities")
    experts: list[ExpertModel] = Field(description="of the deciding face")
    timeline: list[TimelinePoint]


class FeedbackState(Schema):
    """What this client last said about an analysis."""

    id: str
    feedback: Judgement
    actual: Label
    category: Category
    note: str | None
    created: str


class Detection(Result):
    """A finished analysis with its name, its time and this client's feedback."""

    name: str
    created: str
    feedback: FeedbackState | None
    links: Links


class Accepted(Schema):
    """The analysis is queued; follow `links.job` or `links.events`."""

    id: str
    state: StateName
    links: Links


class Job(Schema):
    """The state of an analysis."""

    id: str
    state: StateName
    stage: str | None = Field(description="decode, detect, experts or decide while it runs")
    fraction: Probability = Field(description="of the whole analysis")
    position: int | None = Field(description="jobs ahead of this one while it waits")
    attempts: int
    created: str
    started: str | None
    finished: str | None
    error: Problem | None
    result: Result | None
    links: Links


class HistoryQuery(Schema):
    page: int = Field(default=1, ge=1, le=1_000_000)
    per_page: int = Field(default=20, ge=1, le=MAX_PER_PAGE)
    kind: KindName | None = None
    prediction: OutcomeName | None = None


class HistoryItem(Schema):
    id: str
    name: str
    kind: KindName
    format: str
    size_bytes: int
    sha256: str
    state: StateName
    prediction: OutcomeName | None
    fake_probability: Probability | None
    confidence: Probability | None
    model_version: str | None
    created: str
    finished: str | None
    error: Problem | None
    feedback: Judgement | None
    links: Links


class History(Schema):
    """One page of the history, newest first."""

    items: list[HistoryItem]
    page: int
    per_page: int
    total: int


class FeedbackRequest(Schema):
    id: str = Field(min_length=1, max_length=64, description="of the analysis")
    feedback: Judgement = Field(description="was the verdict right?")
    actual: Label | None = Field(default=None, description="needed after an inconclusive verdict")
    category: Category | None = Field(default=None, description="follows from verdict and label if absent")
    note: str | None = Field(default=None, max_length=MAX_NOTE_CHARACTERS)


class LabelCounts(Schema):
    real: int
    fake: int


class FeedbackCounts(Schema):
    total: int
    correct: int
    incorrect: int
    by_label: LabelCounts


class Stats(Schema):
    """What users said, and what was learned from it."""

    feedback: FeedbackCounts
    accuracy_on_feedback: Probability | None = Field(description="share of real and fake verdicts that users confirm")
    model_version: str | None
    trainings: int
    last_training: dict[str, Any] | None


class Health(Schema):
    status: Literal["ok"]


class CheckModel(Schema):
    name: str
    ok: bool
    detail: str


class Ready(Schema):
    """Whether analyses can be made, and what stands in the way."""

    ready: bool
    checks: list[CheckModel]
    waiting: int | None = Field(description="jobs that wait for a worker")
    version: str = Field(description="of Telltale")
    model_version: str | None
    workers: list[dict[str, Any]] = Field(description="each living worker with what it says of itself")
