"""The history is filtered within indexes, and names are found by parts of them, without reading every report."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from web_app.db.models import KEPT, LISTED

revision = "r0013"
down_revision: str | None = "r0012"


def upgrade() -> None:
    """Add columns, which `migrate` fills in, and indexes; that of names is made by `migrate`, too."""
    op.add_column("detections", sa.Column("media_kind", sa.String(16)))
    op.add_column("detections", sa.Column("overall", sa.String(16)))
    op.drop_index("ix_detections_prediction", "detections")
    for name, columns in (("ix_detections_listed", LISTED), ("ix_detections_listed_own", ("client_id", *LISTED))):
        op.create_index(name, "detections", columns, sqlite_where=KEPT, postgresql_where=KEPT)
