"""What pictures look like, so that near copies are known again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0011"
down_revision: str | None = "r0010"


def upgrade() -> None:
    """Add the table; of media that were analysed before nothing is known until they are analysed again."""
    op.create_table(
        "picture_hashes",
        sa.Column("media_id", sa.Integer(), sa.ForeignKey("media.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("part", sa.String(8), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("look", sa.String(16), nullable=False),
    )
