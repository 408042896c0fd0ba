"""API keys, and indexes for what belongs to one caller and for what waits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision: str | None = "r0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("public", name="uq_api_keys_public"),
    )
    op.create_index("ix_detections_client_id", "detections", ["client_id"], unique=False)
    op.create_index("ix_jobs_state_task", "jobs", ["state", "task"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_jobs_state_task", table_name="jobs")
    op.drop_index("ix_detections_client_id", table_name="detections")
    op.drop_table("api_keys")
