"""The history of some days, and what has become too old, are found without reading every job."""

from __future__ import annotations

from alembic import op

revision = "r0012"
down_revision: str | None = "r0011"


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_jobs_created_at", "jobs", ["created_at"])
