"""The values of the API as pydantic models: requests are checked with them, answers are made and described by them.

`Schema.of` makes one of a database row. This file holds what all of them are built from, and an analysis: its report as
it is stored and answered, and what the client said about it.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, Self

from flask import request, url_for
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy.orm import Session

from utils.config import Settings
from utils.errors import TelltaleError, error_of
from utils.feedback.feedback_log import Category, Judgement, Label
from utils.feedback.quarantine import Outlook, Status
from utils.media_types import Provenance
from web_app.db.models import DetectionRow, FeedbackRow, JobRow, JobState
from web_app.feedback.rulings import foresee, verdict_today

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
OutcomeName = Literal["fake", "real", "inconclusive", "no_face", "no_speech"]
StateName = Literal["queued", "running", "done", "failed", "cancelled"]
KindName = Literal["image", "video", "audio"]


Moment = Annotated[str, BeforeValidator(lambda value: value.isoformat() if isinstance(value, dt.datetime) else value)]
"""A time as ISO 8601 in UTC."""
ROW_NAMES = {
    "id": "public_id", "created": "created_at", "started": "started_at", "finished": "finished_at",
    "feedback": "judgement", "faces": "face_labels", "name": "display_name",
}  # fmt: skip
"""Fields whose column has another name."""


def address(view: str, **values: object) -> str:
    """The address of a view below the prefix that was asked (`/api` for a page), with that of the server before it."""
    asked = request.blueprint or ""
    return url_for(f"{asked if asked.startswith('api') else 'api'}.{view}", **values)  # type: ignore[arg-type]


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @classmethod
    def of(cls, *rows: object, **more: Any) -> Self:
        """The model with the values of `more`, and for every other field with that of the first row that has it."""
        read = {}
        for name in cls.model_fields.keys() - more.keys():
            keys = (ROW_NAMES.get(name, name), name)
            read[name] = next(getattr(row, key) for row in rows for key in keys if hasattr(row, key))
        return cls.model_validate(read | more)

    def plain(self) -> dict[str, Any]:
        """The JSON values that were given; what was left out, and stands for its default, is left out again."""
        return self.model_dump(mode="json", exclude_unset=True, warnings=False)


def job_error(job: JobRow) -> TelltaleError:
    """The error that a job ended with."""
    return error_of(job.error_code or "internal", job.error_detail or "")


class Problem(Schema):
    """An error (RFC 9457). Further members carry the facts of the case, such as `limit_bytes` or `errors`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="urn:telltale:error: and the code")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="what happened this time")
    code: str = Field(description="stable name for programs; docs/api.md lists all")
    remedy: str = Field(description="what to do about it")
    instance: str | None = Field(default=None, description="the path that was asked for")

    @classmethod
    def of_job(cls, job: JobRow) -> Self | None:
        """Why a job failed; None for one that did not."""
        return cls(**job_error(job).to_problem()) if job.state == JobState.FAILED else None


class Page(Schema):
    """Which page of a list is wanted."""

    page: int = Field(default=1, ge=1, le=1_000_000)
    per_page: int = Field(default=20, ge=1, le=100)


class Paged(Schema):
    """One page of a list; what is in it stands in `items`."""

    page: int
    per_page: int
    total: int


class JobStatus(Schema):
    """How far a job is."""

    id: str
    state: StateName
    stage: str | None = Field(description="of an analysis: decode, detect, speech, experts or decide while it runs")
    fraction: Probability = Field(description="of the whole job")
    attempts: int
    created: Moment
    started: Moment | None
    finished: Moment | None
    error: Problem | None


class Said(Schema):
    """What a user said about a medium."""

    feedback: Judgement
    actual: Label
    category: Category
    note: str | None
    faces: dict[int, Label] = Field(description="labels of single faces, by their number")
    created: Moment


class Links(Schema):
    """Addresses around one analysis."""

    job: str
    events: str
    detection: str
    media: str
    page: str

    @classmethod
    def to(cls, public_id: str) -> Self:
        return cls(
            job=address("get_job", id=public_id),
            events=address("get_job_events", id=public_id),
            detection=address("get_detection", id=public_id),
            media=address("get_media", id=public_id),
            page=f"{request.script_root}/detections/{public_id}",
        )


class Listed(Schema):
    """An analysis in a list."""

    id: str
    name: str
    kind: KindName
    sha256: str
    state: StateName
    prediction: OutcomeName | None
    overall: OutcomeName | None = Field(description="of faces and voice together; null but for videos with both")
    fake_probability: Probability | None
    created: Moment
    links: Links


class NoticeModel(Schema):
    code: str
    text: str


class SoundModel(Schema):
    codec: str
    rate_hz: int
    channels: int
    duration_s: float = Field(description="seconds that were decoded")


class MediaModel(Schema):
    kind: KindName
    format: str
    mime: str
    width: int = Field(ge=0, description="pixels, upright; 0 for sound alone")
    height: int = Field(ge=0, description="pixels, upright; 0 for sound alone")
    size_bytes: int
    sha256: str = Field(min_length=64, max_length=64)
    duration_s: float | None = Field(description="seconds; null for pictures")
    fps: float | None
    codec: str | None
    sound: SoundModel | None = Field(default=None, description="null without sound, and in old reports")


class OverallModel(Schema):
    """What faces and voice of a video say together; neither hides the other."""

    outcome: OutcomeName
    headline: str
    reasons: list[NoticeModel]


class VerdictModel(OverallModel):
    probability: Probability | None = Field(description="calibrated probability of fake; null without a face")
    interval: tuple[Probability, Probability] | None = Field(
        description="95 % interval of the probability; null where corrections moved it, and where nothing was judged"
    )


class ExpertModel(Schema):
    name: str
    title: str
    looks_at: str
    available: bool
    probability: Probability | None
    weight: Probability = Field(description="share in the gate's mixture")
    missing_because: str | None
    skipped: bool = Field(default=False, description="always false; reports of earlier versions may hold true")


class TimelinePoint(Schema):
    frame: int
    time_s: float
    probability: Probability = Field(description="in the timeline the highest over all faces of the frame")


class FrameScoreModel(TimelinePoint):
    box: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1 in pixels of the upright frame")


class SpanModel(Schema):
    start_s: float
    end_s: float


class FaceModel(Schema):
    id: int
    verdict: VerdictModel
    experts: list[ExpertModel]
    frames: list[FrameScoreModel]
    quality: dict[str, float]
    spans: list[SpanModel] = Field(
        default_factory=list,
        description="of a video, the times that the verdict rests on: where a part stands out, that part, else where "
        "the person is seen; empty for a person seen all along, and absent in old reports",
    )
    judged: bool = Field(
        default=True,
        description="false for a face that is too small, cut or unsharp: it never decides; its first reason says why",
    )


class SpeechWindowModel(Schema):
    start_s: float = Field(ge=0)
    end_s: float
    probability: Probability


class SpeechModel(Schema):
    """The voice of a recording or video."""

    verdict: VerdictModel
    windows: list[SpeechWindowModel] = Field(description="that hold speech, in time order; they overlap")
    speech_s: float = Field(description="seconds in which somebody speaks")
    duration_s: float
    model_version: str = Field(description="of the network of speech")
    model_sha256: str
    threshold: Probability


class Result(Schema):
    """The report of one analysis, with its id. `verdict` is that of the faces, of a recording that of its voice."""

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
    spans: list[SpanModel] = Field(default_factory=list, description="of the deciding face; absent in old reports")
    timeline: list[TimelinePoint]
    speech: SpeechModel | None = Field(
        default=None, description="null for pictures, without sound or weights of speech, and in old reports"
    )
    overall: OverallModel | None = Field(default=None, description="of a video whose faces or voice were judged")
    provenance: Provenance | None = Field(
        default=None, description="what the file says of itself, which no verdict depends on; null in old reports"
    )

    @classmethod
    def stored(cls, row: DetectionRow, **more: Any) -> Self:
        """The report as it was stored, whichever version of this program wrote it, with what the upload gave notice of.

        Nothing of it is checked again.
        """
        report = dict(row.report or {})
        report["notices"] = [*row.notices, *report.get("notices", [])]
        return cls.model_construct(**{"id": row.job.public_id, **report, **more})


CorrectionState = Literal["lost", "open", "holds", "unknown"]


class VerdictNow(Schema):
    """The last verdict on an accepted vote, by the version that was in use then."""

    state: CorrectionState = Field(description="holds: it is right; open: never right; lost: right once, not now")
    prediction: str = Field(description="empty where it cannot be known: its file is gone, and other networks serve")
    probability: Probability | None
    version: str


class FeedbackState(Said):
    """What this client last said about an analysis."""

    id: str
    state: str = Field(description="what becomes of it: waiting, accepted, or why it is not learned from")
    reason: str | None = Field(description="the state in a sentence")
    outlook: Outlook = Field(description="what will happen to it or has: at once, and again after each training")
    missing_users: int = Field(description="how many more users must agree, where it waits for them")
    tried_version: str | None = Field(description="the last candidate that learned from it, promoted or not")
    learned_version: str | None = Field(description="the promoted version that learned from it")
    now: VerdictNow | None = Field(description="what is said of it today; null until it is accepted")

    @classmethod
    def told(cls, session: Session, vote: FeedbackRow, settings: Settings, id: str, report: Any) -> Self:
        """A vote on an analysis, its id and report, with what will become of it by what is known now."""
        outlook, missing = foresee(session, vote, settings, report)
        now = VerdictNow.of(verdict_today(vote)) if vote.state == Status.ACCEPTED else None
        return cls.of(vote, id=id, outlook=outlook, missing_users=missing, now=now)
