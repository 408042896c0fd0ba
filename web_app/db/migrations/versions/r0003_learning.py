"""Learning: a voice belongs to a medium and stands under review; jobs carry what other tasks than analyses need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0003"
down_revision: str | None = "r0002"
branch_labels: str | None = None
depends_on: str | None = None

OPEN_TASK = sa.text("task NOT IN ('analyse', 'explain') AND state IN ('queued', 'running')")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("payload", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("result", sa.JSON(none_as_null=True), nullable=True))
    op.create_index(
        "uq_jobs_open_task", "jobs", ["task"], unique=True, sqlite_where=OPEN_TASK, postgresql_where=OPEN_TASK
    )
    op.create_table(
        "reviewed_media",
        sa.Column("media_sha256", sa.String(length=64), nullable=False),
        sa.Column("phash", sa.String(length=16), nullable=True),
        sa.Column("domain_reason", sa.Text(), nullable=True),
        sa.Column("features", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("experts", sa.String(length=64), nullable=True),
        sa.Column("examined_at", sa.DateTime(), nullable=True),
        sa.Column("decision", sa.String(length=16), nullable=True),
        sa.Column("decision_label", sa.String(length=16), nullable=True),
        sa.Column("decision_note", sa.Text(), nullable=True),
        sa.Column("decided_by", sa.String(length=64), nullable=True),
        sa.Column("decided_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("media_sha256", name="pk_reviewed_media"),
    )
    op.execute(
        "CREATE TABLE feedback_kept AS SELECT f.id, f.client_id, f.detection_id, f.judgement, f.actual, f.category, "
        "f.note, f.created_at, m.sha256 AS media_sha256, d.prediction, d.fake_probability, "
        "d.model_version FROM feedback f JOIN detections d ON d.job_id = f.detection_id "
        "JOIN media m ON m.id = d.media_id"
    )
    op.drop_table("feedback")
    _create_feedback()
    op.execute(
        "INSERT INTO feedback (id, media_sha256, client_id, detection_id, prediction, fake_probability, "
        "model_version, judgement, actual, category, note, face_labels, trusted, state, created_at) "
        "SELECT id, media_sha256, client_id, detection_id, prediction, fake_probability, "
        "COALESCE(model_version, ''), judgement, actual, category, note, '{}', 1 = 0, 'waiting', created_at "
        "FROM feedback_kept k WHERE NOT EXISTS (SELECT 1 FROM feedback_kept later "
        "WHERE later.media_sha256 = k.media_sha256 AND later.client_id = k.client_id AND later.id > k.id)"
    )
    op.drop_table("feedback_kept")


def _create_feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("media_sha256", sa.String(length=64), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("detection_id", sa.Integer(), nullable=True),
        sa.Column("prediction", sa.String(length=16), nullable=False),
        sa.Column("fake_probability", sa.Double(), nullable=True),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("judgement", sa.String(length=16), nullable=False),
        sa.Column("actual", sa.String(length=16), nullable=False),
        sa.Column("category", sa.String(length=16), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("face_labels", sa.JSON(), nullable=False),
        sa.Column("trusted", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("tried_version", sa.String(length=64), nullable=True),
        sa.Column("learned_version", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["detection_id"], ["detections.job_id"], name="fk_feedback_detection_id_detections", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.UniqueConstraint("media_sha256", "client_id", name="uq_feedback_media_sha256_client_id"),
    )
    op.create_index("ix_feedback_detection_id", "feedback", ["detection_id"], unique=False)
    op.create_index("ix_feedback_state", "feedback", ["state"], unique=False)


def downgrade() -> None:
    op.execute("CREATE TABLE feedback_kept AS SELECT * FROM feedback WHERE detection_id IS NOT NULL")
    op.drop_table("feedback")
    op.create_table(
        "feedback",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("detection_id", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("judgement", sa.String(length=16), nullable=False),
        sa.Column("actual", sa.String(length=16), nullable=False),
        sa.Column("category", sa.String(length=16), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["detection_id"], ["detections.job_id"], name="fk_feedback_detection_id_detections", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.UniqueConstraint("detection_id", "client_id", name="uq_feedback_detection_id_client_id"),
    )
    op.execute(
        "INSERT INTO feedback (id, detection_id, client_id, judgement, actual, category, note, created_at) "
        "SELECT id, detection_id, client_id, judgement, actual, category, note, created_at FROM feedback_kept"
    )
    op.drop_table("feedback_kept")
    op.drop_table("reviewed_media")
    op.execute("DELETE FROM jobs WHERE task <> 'analyse'")
    op.drop_index("uq_jobs_open_task", table_name="jobs")
    op.drop_column("jobs", "result")
    op.drop_column("jobs", "payload")
