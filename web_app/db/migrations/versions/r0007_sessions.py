"""Sessions are in signed cookies; their table goes."""

from __future__ import annotations

from alembic import op

revision = "r0007"
down_revision: str | None = "r0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Drop the table; who is signed in signs in again."""
    op.drop_table("sessions")
