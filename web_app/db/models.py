"""The tables: media, jobs, detections, workers, feedback, API keys and cases.

The job row is the truth about an analysis; what may happen to it stands in `web_app/jobs/queue.py`. The tables are made
by the migrations in `migrations`; a test holds them against these models.
"""

from __future__ import annotations

import datetime as dt
import enum
import secrets
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship


class JobState(enum.StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (JobState.QUEUED, JobState.RUNNING)
FINAL = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class UtcDateTime(sa.types.TypeDecorator[dt.datetime]):
    """An aware datetime in UTC; stored without a zone, because SQLite has none."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        return None if value is None else value.astimezone(dt.UTC).replace(tzinfo=None)

    def process_result_value(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        return None if value is None else value.replace(tzinfo=dt.UTC)


NO_OVERALL = "none"


class Overall(sa.types.TypeDecorator[str]):
    """What faces and voice of a finished analysis say together; `NO_OVERALL`, read as None, where nothing.

    Null is what has not been looked for: of analyses that have not finished, or that an earlier version finished.
    """

    impl = sa.String(16)
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value == NO_OVERALL else value


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def new_id() -> str:
    """An id for users, which nobody can guess."""
    return secrets.token_hex(16)


ANALYSE = "analyse"
TRAIN = "train"
CHECK = "check"
EXPLAIN = "explain"
COPY = "copy"

OPEN_TASK = sa.text("task NOT IN ('analyse', 'explain') AND state IN ('queued', 'running')")
"""Of each task other than analyses and close-ups, only one job may wait or run."""


LISTED, KEPT = ("job_id", "media_kind", "prediction", "overall"), sa.text("expires_at IS NULL")
"""What the history is filtered by, newest first, of the analyses that are kept."""


class Base(DeclarativeBase):
    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class MediaRow(Base):
    """One stored file. The same bytes uploaded twice are one row; `stored_name` is relative to the uploads folder."""

    __tablename__ = "media"

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(sa.String(64), unique=True)
    size_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    format: Mapped[str] = mapped_column(sa.String(32))
    mime: Mapped[str] = mapped_column(sa.String(64))
    kind: Mapped[str] = mapped_column(sa.String(16))
    stored_name: Mapped[str] = mapped_column(sa.String(128))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)


class JobRow(Base):
    """One piece of work; `task` says which kind, `id` orders the queue, `public_id` is for users.

    An analysis (`analyse`) has a row in `detections`; other tasks (`train`) carry `payload` and `result` here.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        sa.Index("ix_jobs_state_id", "state", "id"),
        sa.Index("ix_jobs_created_at", "created_at"),  # the history of some days, and what has become too old
        sa.Index("ix_jobs_state_task", "state", "task"),  # counting what waits reads no rows
        sa.Index("uq_jobs_open_task", "task", unique=True, sqlite_where=OPEN_TASK, postgresql_where=OPEN_TASK),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(sa.String(32), unique=True, default=new_id)
    task: Mapped[str] = mapped_column(sa.String(16))
    state: Mapped[str] = mapped_column(sa.String(16), default=JobState.QUEUED)
    stage: Mapped[str | None] = mapped_column(sa.String(16))
    fraction: Mapped[float] = mapped_column(default=0.0)
    attempts: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    worker_id: Mapped[str | None] = mapped_column(sa.String(64))
    error_code: Mapped[str | None] = mapped_column(sa.String(64))
    error_detail: Mapped[str | None] = mapped_column(sa.Text)
    payload: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))
    result: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)
    started_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)


class DetectionRow(Base):
    """One analysis of one medium for one user: the job's subject and, once done, its report.

    `media_kind` is the medium's kind, `overall` what faces and voice of a video say together; both stand here too, so
    that the history is filtered within an index. `model_version` is of the networks of faces, also of a recording.
    """

    __tablename__ = "detections"
    __table_args__ = (
        sa.Index("uq_detections_client_id_idempotency_key", "client_id", "idempotency_key", unique=True),
        sa.Index("ix_detections_listed", *LISTED, sqlite_where=KEPT, postgresql_where=KEPT),
        sa.Index("ix_detections_listed_own", "client_id", *LISTED, sqlite_where=KEPT, postgresql_where=KEPT),
    )

    job_id: Mapped[int] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    media_id: Mapped[int] = mapped_column(sa.ForeignKey("media.id", ondelete="RESTRICT"), index=True)
    client_id: Mapped[str] = mapped_column(sa.String(64), index=True)
    display_name: Mapped[str] = mapped_column(sa.String(200))
    report: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))
    media_kind: Mapped[str | None] = mapped_column(sa.String(16))
    prediction: Mapped[str | None] = mapped_column(sa.String(16))
    overall: Mapped[str | None] = mapped_column(Overall)
    fake_probability: Mapped[float | None]
    model_version: Mapped[str | None] = mapped_column(sa.String(64))
    speech_version: Mapped[str | None] = column_property(report["speech", "model_version"].as_string(), deferred=True)
    notices: Mapped[list[dict[str, str]]] = mapped_column(sa.JSON, default=list)
    reuse_key: Mapped[str | None] = mapped_column(sa.String(64), index=True)
    idempotency_key: Mapped[str | None] = mapped_column(sa.String(64))
    expires_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)

    job: Mapped[JobRow] = relationship(lazy="joined", innerjoin=True)
    media: Mapped[MediaRow] = relationship(lazy="joined", innerjoin=True)

    @classmethod
    def kind_of_medium(cls) -> sa.ColumnElement[str]:
        """The medium's kind, also of rows that an earlier version writes beside this one."""
        of_medium = sa.select(MediaRow.kind).where(MediaRow.id == cls.media_id)
        return sa.func.coalesce(cls.media_kind, of_medium.scalar_subquery())


class FeedbackRow(Base):
    """What one user last said about one medium, and where it stands under review; the log keeps every line.

    The analysis that was judged may be gone (`retention_days` ends) while its vote still waits to be learned from;
    who deletes an analysis deletes the vote with it. `state` is a `utils.feedback.quarantine.Status`;
    `tried_version` is the last candidate trained with it, `learned_version` the last one that was promoted;
    `checked_version` is the last one that was asked about it, `checked_prediction` its verdict (None: it could not be
    asked), `right_version` the last one that was right.
    """

    __tablename__ = "feedback"
    __table_args__ = (sa.UniqueConstraint("media_sha256", "client_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    media_sha256: Mapped[str] = mapped_column(sa.String(64))
    client_id: Mapped[str] = mapped_column(sa.String(64))
    detection_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("detections.job_id", ondelete="SET NULL"), index=True
    )
    prediction: Mapped[str] = mapped_column(sa.String(16))
    fake_probability: Mapped[float | None]
    model_version: Mapped[str] = mapped_column(sa.String(64))
    judgement: Mapped[str] = mapped_column(sa.String(16))
    actual: Mapped[str] = mapped_column(sa.String(16))
    category: Mapped[str] = mapped_column(sa.String(16))
    note: Mapped[str | None] = mapped_column(sa.Text)
    face_labels: Mapped[dict[str, str]] = mapped_column(sa.JSON, default=dict)
    trusted: Mapped[bool] = mapped_column(default=False)
    state: Mapped[str] = mapped_column(sa.String(16), index=True, default="waiting")
    reason: Mapped[str | None] = mapped_column(sa.Text)
    tried_version: Mapped[str | None] = mapped_column(sa.String(64))
    learned_version: Mapped[str | None] = mapped_column(sa.String(64))
    checked_version: Mapped[str | None] = mapped_column(sa.String(64))
    checked_prediction: Mapped[str | None] = mapped_column(sa.String(16))
    checked_probability: Mapped[float | None]
    right_version: Mapped[str | None] = mapped_column(sa.String(64))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)


class ReviewedMediumRow(Base):
    """A medium that somebody gave feedback on: what the worker found in it, and what a moderator decided.

    `features` maps each face that was looked at (`deciding`, or its number) to an empty text when its derived
    features are on the disk, and to the reason when nothing can be learned from it; `experts` is the fingerprint of
    the networks that made them.
    """

    __tablename__ = "reviewed_media"

    media_sha256: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    phash: Mapped[str | None] = mapped_column(sa.String(16))
    domain_reason: Mapped[str | None] = mapped_column(sa.Text)
    features: Mapped[dict[str, str] | None] = mapped_column(sa.JSON(none_as_null=True))
    experts: Mapped[str | None] = mapped_column(sa.String(64))
    examined_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    decision: Mapped[Literal["accept", "reject"] | None] = mapped_column(sa.String(16))
    decision_label: Mapped[str | None] = mapped_column(sa.String(16))
    decision_note: Mapped[str | None] = mapped_column(sa.Text)
    decided_by: Mapped[str | None] = mapped_column(sa.String(64))
    decided_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)


class CloseupRow(Base):
    """A closer look at one face of a finished analysis; the job's `result` holds what came of it."""

    __tablename__ = "closeups"
    __table_args__ = (sa.UniqueConstraint("detection_id", "face"),)

    job_id: Mapped[int] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    detection_id: Mapped[int] = mapped_column(sa.ForeignKey("detections.job_id", ondelete="CASCADE"))
    face: Mapped[int]

    job: Mapped[JobRow] = relationship(lazy="joined", innerjoin=True)


class JournalRow(Base):
    """A line of the feedback log, where machines share no folder; one machine has a file."""

    __tablename__ = "journal"

    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str] = mapped_column(sa.Text)


class SharedRow(Base):
    """A small file that all machines have alike; `number` grows with each change."""

    __tablename__ = "shared"

    name: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    number: Mapped[int]
    content: Mapped[bytes] = mapped_column(sa.LargeBinary)


class ApiKeyRow(Base):
    """An API key; `public` finds it, of its secret only the hash is kept, `scopes` are separated by commas."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    public: Mapped[str] = mapped_column(sa.String(32), unique=True)
    name: Mapped[str] = mapped_column(sa.String(64))
    secret_sha256: Mapped[str] = mapped_column(sa.String(64))
    scopes: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)
    expires_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)


class WorkerRow(Base):
    """A worker process and when it was last heard of; `facts` are what it says of itself (versions, sandbox)."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    pid: Mapped[int]
    started_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)
    seen_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)
    facts: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=dict)


class OwnedRow(Base):
    """What belongs to a caller, under an id for users."""

    __abstract__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(sa.String(32), unique=True, default=new_id)
    client_id: Mapped[str] = mapped_column(sa.String(64), index=True)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)


class BatchRow(OwnedRow):
    """Several uploads of one request: for each file the id of its analysis, or the problem that it was refused with."""

    __tablename__ = "batches"

    items: Mapped[list[dict[str, Any]]] = mapped_column(sa.JSON, default=list)


class WebhookRow(OwnedRow):
    """An address that is told when a caller's analyses end; `secret` signs what is sent there."""

    __tablename__ = "webhooks"

    url: Mapped[str] = mapped_column(sa.String(2000))
    secret: Mapped[str] = mapped_column(sa.String(64))


class DeliveryRow(Base):
    """One message to a webhook: pending until it was taken or given up; `due_at` is when it is tried next."""

    __tablename__ = "deliveries"
    __table_args__ = (
        sa.UniqueConstraint("webhook_id", "job_public_id"),
        sa.Index("ix_deliveries_state_due_at", "state", "due_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    webhook_id: Mapped[int] = mapped_column(sa.ForeignKey("webhooks.id", ondelete="CASCADE"))
    job_public_id: Mapped[str] = mapped_column(sa.String(32))
    payload: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    state: Mapped[str] = mapped_column(sa.String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(sa.String(300))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)


class CaseRow(OwnedRow):
    """Analyses that somebody keeps together, with notes; they may be in other cases too."""

    __tablename__ = "cases"

    title: Mapped[str] = mapped_column(sa.String(200))
    notes: Mapped[str] = mapped_column(sa.Text)


class CaseItemRow(Base):
    """One analysis in a case; it goes with either of them."""

    __tablename__ = "case_items"

    case_id: Mapped[int] = mapped_column(sa.ForeignKey("cases.id", ondelete="CASCADE"), primary_key=True)
    detection_id: Mapped[int] = mapped_column(
        sa.ForeignKey("detections.job_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    note: Mapped[str] = mapped_column(sa.Text)
    added_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utc_now)

    detection: Mapped[DetectionRow] = relationship(lazy="joined", innerjoin=True)


class PictureHashRow(Base):
    """What a medium, or a face in it, looks like: `look` is a perceptual hash, 64 bits in hexadecimal digits.

    `number` counts the frames of the part `WHOLE`; of the part `FACE` it is the face's number in the report.
    """

    WHOLE, FACE = "whole", "face"

    __tablename__ = "picture_hashes"

    media_id: Mapped[int] = mapped_column(sa.ForeignKey("media.id", ondelete="CASCADE"), primary_key=True)
    part: Mapped[str] = mapped_column(sa.String(8), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    look: Mapped[str] = mapped_column(sa.String(16))
