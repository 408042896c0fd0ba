"""Feedback of the first tables becomes voices about media, and goes back."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command

from web_app.db.migrations import alembic_config
from web_app.db.models import Database

OLD = """
INSERT INTO media VALUES (1, 'aa', 3, 'png', 'image/png', 'image', 'aa/aa', '2026-01-01');
INSERT INTO jobs (id, public_id, task, state, fraction, attempts, created_at)
    VALUES (1, 'one', 'analyse', 'done', 1, 1, '2026-01-01'), (2, 'two', 'analyse', 'done', 1, 1, '2026-01-02');
INSERT INTO detections (job_id, media_id, client_id, display_name, prediction, fake_probability, model_version, notices)
    VALUES (1, 1, 'c', 'x', 'fake', 0.9, 'v1', '[]'), (2, 1, 'c', 'x', 'fake', 0.9, 'v1', '[]');
INSERT INTO feedback (id, detection_id, client_id, judgement, actual, category, note, created_at) VALUES
    (1, 1, 'c', 'correct', 'fake', 'confirmation', NULL, '2026-01-01'),
    (2, 2, 'c', 'incorrect', 'real', 'false_alarm', 'mine', '2026-01-02'),
    (3, 1, 'd', 'correct', 'fake', 'confirmation', NULL, '2026-01-03')
"""


def test_voices_move_to_their_medium_and_back(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'db.sqlite3'}")
    config = alembic_config()
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "r0002")
        for statement in OLD.strip().split(";\n"):
            connection.execute(sa.text(statement))
        command.upgrade(config, "r0003")
        wanted = "SELECT media_sha256, client_id, detection_id, actual, note, state, trusted FROM feedback ORDER BY id"
        assert [tuple(row) for row in connection.execute(sa.text(wanted))] == [
            ("aa", "c", 2, "real", "mine", "waiting", 0), ("aa", "d", 1, "fake", None, "waiting", 0),
        ]  # fmt: skip
        command.downgrade(config, "r0002")
        back = connection.execute(sa.text("SELECT detection_id, client_id, actual FROM feedback ORDER BY id"))
        assert [tuple(row) for row in back] == [(2, "c", "real"), (1, "d", "fake")]
    database.close()
