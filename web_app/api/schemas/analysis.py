"""Analyses: reports, jobs, the history, batches, close-ups, and the requests for them."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict, JsonValue

from utils.feedback.feedback_log import Judgement
from utils.feedback.quarantine import Outlook
from utils.provenance_types import Provenance
from web_app.api.schemas import (
    EXAMPLE_ID,
    EXAMPLE_SHA256,
    KindName,
    Links,
    Moment,
    OutcomeName,
    Probability,
    Problem,
    Schema,
    StateName,
)
from web_app.api.schemas.feedback import FeedbackState
from web_app.db.models import DetectionRow

MAX_PER_PAGE = 100
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2999, 12, 31)


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


class OverallModel(Schema):
    """What faces and voice of a video say together; neither hides the other."""

    outcome: OutcomeName
    headline: str
    reasons: list[NoticeModel]


class TimelinePoint(Schema):
    frame: int
    time_s: float
    probability: Probability = Field(description="highest over all faces of the frame")


_VERDICT: JsonDict = {
    "outcome": "fake", "headline": "Substantial evidence of manipulation", "probability": 0.93,
    "interval": [0.88, 0.97],
    "reasons": [{"code": "above_band", "text": "The probability of manipulation lies above 80%."}],
}  # fmt: skip
_EXPERTS: list[JsonValue] = [
    {
        "name": "vit", "title": "ViT-B/16", "looks_at": "the whole face", "available": True, "probability": 0.93,
        "weight": 1.0, "missing_because": None,
    }
]  # fmt: skip
_RESULT: JsonDict = {
    "id": EXAMPLE_ID, "schema_version": 1,
    "media": {
        "kind": "image", "format": "jpeg", "mime": "image/jpeg", "width": 640, "height": 480, "size_bytes": 81234,
        "sha256": EXAMPLE_SHA256, "duration_s": None, "fps": None, "codec": None,
    },
    "verdict": _VERDICT,
    "faces": [
        {
            "id": 0, "verdict": _VERDICT, "experts": _EXPERTS,
            "frames": [{"frame": 0, "time_s": 0.0, "probability": 0.93, "box": [210.5, 80.0, 330.5, 240.0]}],
            "quality": {"face_px": 160.0},
        }
    ],
    "deciding_face": 0, "model_version": "v1", "model_sha256": EXAMPLE_SHA256, "threshold": 0.5,
    "times_ms": {"decode": 61.0, "detect": 40.2, "experts": 310.5, "decide": 1.2, "total": 412.9}, "notices": [],
    "settings": {"threshold": 0.5, "experts": "cnn,resnext,vit,lstm", "max_faces": 32, "frames": 16, "min_face_px": 40},
    "prediction": "fake", "fake_probability": 0.93, "real_probability": 0.07, "confidence": 0.93,
    "experts": _EXPERTS, "timeline": [{"frame": 0, "time_s": 0.0, "probability": 0.93}],
}  # fmt: skip


class Result(Schema):
    """The report of one analysis, with its id. `verdict` is that of the faces, of a recording that of its voice."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RESULT]})

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


class Detection(Result):
    """A finished analysis with its name, its time and this client's feedback."""

    model_config = ConfigDict(json_schema_extra={})

    name: str
    created: Moment
    feedback: FeedbackState | None
    links: Links


class ModelFacts(Schema):
    """Which networks answered."""

    version: str
    sha256: str = Field(min_length=64, max_length=64, description="of the version's list of checksums")


class SignatureModel(Schema):
    """An Ed25519 signature over the canonical JSON of the document, its own `value` left out."""

    algorithm: Literal["Ed25519"]
    canonical: Literal["RFC 8785"]
    key: str = Field(description="fingerprint: SHA-256 of the public key, 64 hexadecimal digits")
    public_key: str = Field(description="32 bytes, base64; proves only that the document is whole")
    value: str = Field(description="64 bytes, base64")


class ReportDocument(Schema):
    """The report of one analysis, made to be kept, passed on and checked."""

    document: Literal["telltale-report"]
    document_version: Literal[1]
    telltale_version: str = Field(description="of the program that wrote the document")
    id: str
    name: str = Field(description="of the file, as it was given")
    analysed: str = Field(description="end of the analysis, ISO 8601, UTC")
    sha256: str = Field(min_length=64, max_length=64, description="of the input file")
    model: ModelFacts
    settings: dict[str, float | str] = Field(description="that the score depends on, by their names in config.ini")
    limits: list[str] = Field(description="what the method cannot say")
    analysis: Result
    reproduce: str = Field(description="the command that replays the analysis")
    signature: SignatureModel | None = Field(default=None, description="absent in old reports")


class ReportQuery(Schema):
    format: Literal["json", "html", "pdf"] = "json"
    download: Literal["0", "1"] = Field(default="0", description="1 makes browsers save it")


class Accepted(Schema):
    """The analysis is queued; follow `links.job` or `links.events`."""

    id: str
    state: StateName
    repeated: bool = Field(description="it is an earlier analysis of the same upload")
    links: Links


class UrlRequest(Schema):
    url: str = Field(min_length=1, max_length=2000, examples=["https://example.org/photo.jpg"])


class Job(Schema):
    """The state of an analysis."""

    id: str
    state: StateName
    stage: str | None = Field(description="decode, detect, speech, experts or decide while it runs")
    fraction: Probability = Field(description="of the whole analysis")
    position: int | None = Field(description="jobs ahead of this one while it waits")
    attempts: int
    created: Moment
    started: Moment | None
    finished: Moment | None
    error: Problem | None
    result: Result | None
    links: Links


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
    created: Moment
    finished: bool = Field(description="nothing waits or runs any more")
    counts: dict[str, int] = Field(description="files by state")
    items: list[BatchItem]


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
    overall: OutcomeName | None = Field(description="of faces and voice together; null but for videos with both")
    model_version: str | None
    created: Moment
    finished: Moment | None
    error: Problem | None
    feedback: Judgement | None
    outlook: Outlook | None = Field(default=None, description="what will happen to your feedback or has; null without")
    thumbnail: str | None = Field(description="address of a small JPEG; null where there is none")
    links: Links


class History(Schema):
    """One page of the history, newest first."""

    items: list[HistoryItem]
    page: int
    per_page: int
    total: int = Field(description="of all pages; those more than 10,000 after this one are not counted")
    more: bool = Field(description="whether there are more than `total`")


class Cleared(Schema):
    deleted: int = Field(ge=0)


class VersionItem(Schema):
    """One finished analysis of the same file."""

    id: str
    model_version: str
    prediction: OutcomeName
    fake_probability: Probability | None
    created: Moment


class Versions(Schema):
    """Your analyses of the same file, the newest first, this one among them."""

    items: list[VersionItem]


class FrameModel(Schema):
    """One frame of a video that was analysed."""

    time_s: float = Field(ge=0, description="seconds from the first frame")
    jpeg: str = Field(description="a small JPEG, base64")


class Frames(Schema):
    frames: list[FrameModel]
    waveform: list[float] = Field(
        default_factory=list, description="loudest sample of each of as many equal parts of the sound, 0 to 1"
    )
