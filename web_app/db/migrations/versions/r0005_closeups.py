"""Close-ups: heatmaps and stability of one face, asked for after an analysis."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0005"
down_revision: str | None = "r0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "closeups",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("detection_id", sa.Integer(), nullable=False),
        sa.Column("face", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_closeups_job_id_jobs", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["detection_id"], ["detections.job_id"], name="fk_closeups_detection_id_detections", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_closeups"),
        sa.UniqueConstraint("detection_id", "face", name="uq_closeups_detection_id_face"),
    )


def downgrade() -> None:
    op.drop_table("closeups")
