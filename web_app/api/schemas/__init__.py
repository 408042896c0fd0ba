"""The values of the API as pydantic models: requests are checked with them, answers are made and described by them.

`Schema.of` makes one of a database row. This file holds what all of them are built from.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, Self

from flask import request, url_for
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from utils.errors import TelltaleError, error_of
from utils.feedback.feedback_log import Category, Judgement, Label
from web_app.db.models import JobRow, JobState

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
