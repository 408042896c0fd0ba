"""Batches, webhooks with their deliveries, and what tells a repeated upload."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0004"
down_revision: str | None = "r0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("detections", sa.Column("reuse_key", sa.String(length=64), nullable=True))
    op.add_column("detections", sa.Column("idempotency_key", sa.String(length=64), nullable=True))
    op.add_column("detections", sa.Column("expires_at", sa.DateTime(), nullable=True))
    op.create_index("ix_detections_reuse_key", "detections", ["reuse_key"], unique=False)
    op.create_index(
        "uq_detections_client_id_idempotency_key", "detections", ["client_id", "idempotency_key"], unique=True
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("items", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.UniqueConstraint("public_id", name="uq_batches_public_id"),
    )
    op.create_index("ix_batches_client_id", "batches", ["client_id"], unique=False)
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
        sa.UniqueConstraint("public_id", name="uq_webhooks_public_id"),
    )
    op.create_index("ix_webhooks_client_id", "webhooks", ["client_id"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("webhook_id", sa.Integer(), nullable=False),
        sa.Column("job_public_id", sa.String(length=32), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(length=300), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name="fk_deliveries_webhook_id_webhooks", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("webhook_id", "job_public_id", name="uq_deliveries_webhook_id_job_public_id"),
    )
    op.create_index("ix_deliveries_state_due_at", "deliveries", ["state", "due_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_deliveries_state_due_at", table_name="deliveries")
    op.drop_table("deliveries")
    op.drop_index("ix_webhooks_client_id", table_name="webhooks")
    op.drop_table("webhooks")
    op.drop_index("ix_batches_client_id", table_name="batches")
    op.drop_table("batches")
    op.drop_index("uq_detections_client_id_idempotency_key", table_name="detections")
    op.drop_index("ix_detections_reuse_key", table_name="detections")
    op.drop_column("detections", "expires_at")
    op.drop_column("detections", "idempotency_key")
    op.drop_column("detections", "reuse_key")
