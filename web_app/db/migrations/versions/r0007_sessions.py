"""Sessions are in signed cookies; their table goes."""

from __future__ import annotations

from alembic import op

revision = "r0007"
down_revision: str | None = "r0006"


def upgrade() -> None:
    """Drop the table; who is signed in signs in again."""
    op.drop_table("sessions")
