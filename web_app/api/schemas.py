"""The values of the API as pydantic models: requests are checked with them, answers are described by them.

The OpenAPI document is made of these; the tests hold every real answer against them, unknown fields forbidden.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from utils.feedback.feedback_log import MAX_NOTE_CHARACTERS, Category, Judgement, Label

MAX_PER_PAGE = 100
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2999, 12, 31)

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
    skipped: bool = Field(default=False, description="always false; reports of earlier versions may hold true")


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
    settings: dict[str, float | str] = Field(
        default_factory=dict, description="settings that the score depends on, as in config.ini; absent in old reports"
    )
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
    faces: dict[int, Label] = Field(description="labels of single faces, by their number")
    state: str = Field(description="what becomes of it: waiting, accepted, or why it is not learned from")
    reason: str | None = Field(description="the state in a sentence")
    learned_version: str | None = Field(description="the promoted version that learned from it")
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
    repeated: bool = Field(description="it is an earlier analysis of the same upload")
    links: Links


class UrlRequest(Schema):
    url: str = Field(min_length=1, max_length=2000, examples=["https://example.org/photo.jpg"])


class BatchItem(Schema):
    """One file of a batch."""

    name: str
    id: str | None = Field(description="of the analysis; null for a refused file")
    state: Literal["queued", "running", "done", "failed", "cancelled", "refused", "deleted"]
    prediction: OutcomeName | None
    fake_probability: Probability | None
    error: Problem | None
    links: Links | None


class Batch(Schema):
    """Several uploads of one request, in their order."""

    id: str
    created: str
    finished: bool = Field(description="nothing waits or runs any more")
    counts: dict[str, int] = Field(description="files by state")
    items: list[BatchItem]


class Webhook(Schema):
    """An address that is told when analyses end."""

    id: str
    url: str
    created: str


class NewWebhook(Webhook):
    """A webhook with its secret, which is shown this once."""

    secret: str = Field(description="whsec_ and base64; checks the header webhook-signature")


class Webhooks(Schema):
    items: list[Webhook]


class Delivery(Schema):
    """One message to a webhook."""

    analysis: str
    type: str = Field(description="analysis.done, analysis.failed or analysis.cancelled")
    state: Literal["pending", "delivered", "given_up"]
    attempts: int
    status: int | None = Field(description="HTTP status of the last answer")
    error: str | None
    next_attempt: str | None
    created: str


class Deliveries(Schema):
    items: list[Delivery]


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


class HistoryFilter(Schema):
    kind: KindName | None = None
    prediction: OutcomeName | None = None
    text: str | None = Field(default=None, min_length=1, max_length=200, description="a part of the name, in any case")
    since: date | None = Field(default=None, ge=FIRST_DAY, le=LAST_DAY, description="first day, UTC")
    until: date | None = Field(default=None, ge=FIRST_DAY, le=LAST_DAY, description="last day, UTC")


class HistoryQuery(HistoryFilter):
    page: int = Field(default=1, ge=1, le=1_000_000)
    per_page: int = Field(default=20, ge=1, le=MAX_PER_PAGE)


class CsvQuery(HistoryFilter):
    ids: str | None = Field(default=None, min_length=1, max_length=8000, description="of analyses, separated by commas")


class ReportQuery(Schema):
    format: Literal["json", "html", "pdf"] = "json"
    download: Literal["0", "1"] = Field(default="0", description="1 makes browsers save it")


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
    thumbnail: str | None = Field(description="address of a small JPEG; null where there is none")
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
    actual: Label | None = Field(default=None, description="needed after an inconclusive verdict or without a face")
    faces: dict[int, Label] = Field(
        default_factory=dict, max_length=64, description="what single faces really are, by their number in the report"
    )
    category: Category | None = Field(default=None, description="follows from verdict and label if absent")
    note: str | None = Field(default=None, max_length=MAX_NOTE_CHARACTERS)


class LabelCounts(Schema):
    real: int
    fake: int


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
    warnings: list[str] = Field(description="what does no harm now and will at the next start")
    waiting: int | None = Field(description="jobs that wait for a worker")
    version: str = Field(description="of Telltale")
    model_version: str | None
    workers: list[dict[str, Any]] = Field(description="each living worker with what it says of itself")
