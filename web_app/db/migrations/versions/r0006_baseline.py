"""All tables as they stood when the history began; later steps follow in files of their own."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "r0006"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

OPEN_TASK = sa.text("task NOT IN ('analyse', 'explain') AND state IN ('queued', 'running')")


def _text(name: str, length: int | None = None, **more: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text() if length is None else sa.String(length), nullable=False, **more)


def _time(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(), nullable=False)


def _number(name: str, *reference: sa.ForeignKey, **more: Any) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), *reference, nullable=False, **more)


def _maybe(name: str, kind: Any, *reference: sa.ForeignKey, **more: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, *reference, nullable=True, **more)


def _json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(), nullable=False)


def _created() -> sa.Column[Any]:
    return _time("created_at")


def _id() -> sa.Column[int]:
    return _number("id", primary_key=True)


def upgrade() -> None:
    _jobs()
    _feedback()
    _callers()
    _webhooks()


def _jobs() -> None:
    op.create_table(
        "jobs", _id(), _text("public_id", 32, unique=True), _text("task", 16), _text("state", 16),
        _maybe("stage", sa.String(16)), sa.Column("fraction", sa.Double(), nullable=False), _number("attempts"),
        _maybe("lease_until", sa.DateTime()), _maybe("worker_id", sa.String(64)), _maybe("error_code", sa.String(64)),
        _maybe("error_detail", sa.Text()), _maybe("payload", sa.JSON(none_as_null=True)),
        _maybe("result", sa.JSON(none_as_null=True)), _created(), _maybe("started_at", sa.DateTime()),
        _maybe("finished_at", sa.DateTime()),
        sqlite_autoincrement=True,
    )  # fmt: skip
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])
    op.create_index("ix_jobs_state_task", "jobs", ["state", "task"])
    op.create_index(
        "uq_jobs_open_task", "jobs", ["task"], unique=True, sqlite_where=OPEN_TASK, postgresql_where=OPEN_TASK
    )
    op.create_table(
        "media", _id(), _text("sha256", 64, unique=True), sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        _text("format", 32), _text("mime", 64), _text("kind", 16), _text("stored_name", 128), _created(),
    )  # fmt: skip
    op.create_table(
        "workers", _text("id", 64, primary_key=True), _number("pid"), _time("started_at"), _time("seen_at"),
        _json("facts"),
    )  # fmt: skip
    op.create_table(
        "detections", _number("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        _number("media_id", sa.ForeignKey("media.id", ondelete="RESTRICT"), index=True),
        _text("client_id", 64, index=True), _text("display_name", 200), _maybe("report", sa.JSON(none_as_null=True)),
        _maybe("prediction", sa.String(16), index=True), _maybe("fake_probability", sa.Double()),
        _maybe("model_version", sa.String(64)), _json("notices"), _maybe("reuse_key", sa.String(64), index=True),
        _maybe("idempotency_key", sa.String(64)), _maybe("expires_at", sa.DateTime()),
    )  # fmt: skip
    op.create_index(
        "uq_detections_client_id_idempotency_key", "detections", ["client_id", "idempotency_key"], unique=True
    )
    op.create_table(
        "closeups", _number("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        _number("detection_id", sa.ForeignKey("detections.job_id", ondelete="CASCADE")), _number("face"),
        sa.UniqueConstraint("detection_id", "face"),
    )  # fmt: skip


def _feedback() -> None:
    op.create_table(
        "feedback", _id(), _text("media_sha256", 64), _text("client_id", 64),
        _maybe("detection_id", sa.Integer(), sa.ForeignKey("detections.job_id", ondelete="SET NULL"), index=True),
        _text("prediction", 16), _maybe("fake_probability", sa.Double()), _text("model_version", 64),
        _text("judgement", 16), _text("actual", 16), _text("category", 16), _maybe("note", sa.Text()),
        _json("face_labels"), sa.Column("trusted", sa.Boolean(), nullable=False), _text("state", 16, index=True),
        _maybe("reason", sa.Text()), _maybe("tried_version", sa.String(64)), _maybe("learned_version", sa.String(64)),
        _created(), sa.UniqueConstraint("media_sha256", "client_id"),
    )  # fmt: skip
    op.create_table(
        "reviewed_media", _text("media_sha256", 64, primary_key=True), _maybe("phash", sa.String(16)),
        _maybe("domain_reason", sa.Text()), _maybe("features", sa.JSON(none_as_null=True)),
        _maybe("experts", sa.String(64)), _maybe("examined_at", sa.DateTime()), _maybe("decision", sa.String(16)),
        _maybe("decision_label", sa.String(16)), _maybe("decision_note", sa.Text()),
        _maybe("decided_by", sa.String(64)), _maybe("decided_at", sa.DateTime()),
    )  # fmt: skip


def _callers() -> None:
    op.create_table(
        "api_keys", _id(), _text("public", 32, unique=True), _text("name", 64), _text("secret_sha256", 64),
        _text("scopes", 64), _created(), _maybe("expires_at", sa.DateTime()), _maybe("revoked_at", sa.DateTime()),
    )  # fmt: skip
    op.create_table("sessions", _text("token_sha256", 64, primary_key=True), _text("public", 32), _time("ends_at"))
    op.create_table(
        "batches", _id(), _text("public_id", 32, unique=True), _text("client_id", 64, index=True), _json("items"),
        _created(),
    )  # fmt: skip


def _webhooks() -> None:
    op.create_table(
        "webhooks", _id(), _text("public_id", 32, unique=True), _text("client_id", 64, index=True),
        _text("url", 2000), _text("secret", 64), _created(),
    )  # fmt: skip
    op.create_table(
        "deliveries", _id(), _number("webhook_id", sa.ForeignKey("webhooks.id", ondelete="CASCADE")),
        _text("job_public_id", 32), _json("payload"), _text("state", 16), _number("attempts"), _time("due_at"),
        _maybe("status", sa.Integer()), _maybe("error", sa.String(300)), _created(),
        sa.UniqueConstraint("webhook_id", "job_public_id"),
    )  # fmt: skip
    op.create_index("ix_deliveries_state_due_at", "deliveries", ["state", "due_at"])
