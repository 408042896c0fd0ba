"""The oldest state that is taken; a new database is made of the models and begins at the last one."""

from __future__ import annotations

revision = "r0006"
down_revision: str | None = None


def upgrade() -> None:
    """Nothing leads here any more."""
