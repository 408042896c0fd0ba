"""What the version in use says today of each vote that was accepted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0008"
down_revision: str | None = "r0007"


def upgrade() -> None:
    """Add the columns; nothing is known of the votes that stand until the worker has checked them."""
    for name, kind in (
        ("checked_version", sa.String(64)), ("checked_prediction", sa.String(16)),
        ("checked_probability", sa.Double()), ("right_version", sa.String(64)),
    ):  # fmt: skip
        op.add_column("feedback", sa.Column(name, kind, nullable=True))
