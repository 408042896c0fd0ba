"""The database's feedback made again from the log, with the command."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from tests.web_app.feedback.hand_in import hand_in_worker, say, wait_for_state
from utils.config import Settings
from web_app.__main__ import main
from web_app.db.models import FeedbackRow, ReviewedMediumRow
from web_app.services import Services


def run(parts: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    monkeypatch.setenv("TELLTALE_STORAGE__INSTANCE_DIR", str(parts.paths.instance))
    assert main(["rebuild"]) == 0
    said = capsys.readouterr()
    return said.out, said.err


def test_lost_rows_come_back(
    client: FlaskClient,
    settings: Settings,
    parts: Services,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with hand_in_worker(settings):
        first, _ = say(client, "fake", "real")
        second, _ = say(client, "real", "real")
        third, _ = say(client, "fake 2", "fake")
        client.delete(f"/api/feedback/{third}")
        case = client.get("/api/rl/review?state=all").get_json()["items"][0]
        client.post(f"/api/rl/review/{case['media_sha256']}", json={"decision": "reject"})
    with parts.database.read() as session:
        before = {row.media_sha256: (row.actual, row.detection_id) for row in session.scalars(sa.select(FeedbackRow))}
    with parts.database.write() as session:
        session.execute(sa.delete(FeedbackRow))
        session.execute(sa.delete(ReviewedMediumRow))
    with parts.paths.feedback_log.open("ab") as log:
        log.write(b'{"schema_version": 2, "time": "20')
    out, err = run(parts, monkeypatch, capsys)
    assert out.startswith("2 votes stand; 3 rows written, 0 removed, 1 damaged lines skipped")
    assert "line 6 is skipped" in err
    with parts.database.read() as session:
        after = {row.media_sha256: (row.actual, row.detection_id) for row in session.scalars(sa.select(FeedbackRow))}
        assert after == before
        assert session.scalars(
            sa.select(ReviewedMediumRow.decision).where(ReviewedMediumRow.decision.is_not(None))
        ).all()
    again, _ = run(parts, monkeypatch, capsys)
    assert again.startswith("2 votes stand; 0 rows written, 0 removed")
    with hand_in_worker(settings):
        accepted = first if case["votes"][0]["prediction"] == "real" else second
        wait_for_state(client, accepted, "accepted")
