"""Accepted votes as tests of every version from then on: held, lost, not known, and what page and command say."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from tests.web_app.feedback.hand_in import Trainer, hand_in_worker, say, say_accepted, wait_for_state
from tests.web_app.helpers import wait_until
from utils.config import Settings
from utils.errors import WeightsCorruptError
from utils.feedback.cached_judge import Said
from web_app.api.learning import Corrections
from web_app.db.models import CHECK, FeedbackRow, JobRow
from web_app.feedback.training import list_corrections, note, queue_check
from web_app.services import Services


def serve(monkeypatch: pytest.MonkeyPatch, trainer: Trainer, version: str, says: dict[int, str]) -> None:
    trainer.served, trainer.says = version, says
    monkeypatch.setattr("web_app.worker.current_version", lambda settings: version)


def counts(client: FlaskClient) -> dict[str, int]:
    return {state: n for state, n in client.get("/api/rl/corrections").get_json()["counts"].items() if n}


def test_each_version_is_held_against_all_corrections(
    client: FlaskClient, settings: Settings, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web_app.worker.current_version", lambda settings: "v-test")
    with hand_in_worker(settings) as trainer:
        wrong, _ = say(client, "fake", "real")
        right, _ = say(client, "real", "real")
        for public_id in (wrong, right):
            wait_for_state(client, public_id, "accepted")
        assert counts(client) == {"open": 1, "holds": 1}, "by the verdicts that were shown"
        serve(monkeypatch, trainer, "v-two", {0: "real"})
        wait_until(lambda: counts(client) == {"holds": 2})
        feedback = client.get(f"/api/detections/{wrong}").get_json()["feedback"]
        assert (feedback["now"]["state"], feedback["now"]["version"]) == ("holds", "v-two")
        serve(monkeypatch, trainer, "v-three", {0: "inconclusive"})
        wait_until(lambda: counts(client) == {"lost": 2})
        answer = client.get("/api/rl/corrections?per_page=1").get_json()
        Corrections.model_validate(answer)
        (first,) = answer["items"]
        assert (answer["total"], first["id"], first["before"]) == (2, right, "real")
        assert first["now"] == {"state": "lost", "prediction": "inconclusive", "probability": 0.5, "version": "v-three"}
        stranger = client.get("/api/rl/corrections", headers={"User-Agent": "x", "X-Forwarded-For": "192.0.2.1"})
        assert stranger.get_json()["items"][0]["name"] is None or parts.settings.security.keys == "off"
    page = client.get("/learning").get_data(as_text=True)
    assert page.count("Lost: right once, not now") == 3
    with parts.database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).where(JobRow.task == CHECK)) == 1, "earlier checks are gone"


def test_a_changed_label_and_features_that_are_gone(client: FlaskClient, settings: Settings, parts: Services) -> None:
    with hand_in_worker(settings):
        public_id = say_accepted(client)
    with parts.database.write() as session:
        row = session.scalars(sa.select(FeedbackRow)).one()
        faces = [Said(row.id, label, "real", 0.2) for label in (0, 1)]
        note(session, "v9", faces[:1])
        assert (row.checked_prediction, row.right_version) == ("real", "v9")
        note(session, "v10", faces)
        assert [today.state for _, today in list_corrections(session)] == ["lost"], "one of its faces is wrong"
        note(session, "v11", [Said(row.id, 0, "", None)])
        assert [today.state for _, today in list_corrections(session)] == ["unknown"]
    client.post("/api/feedback", json={"id": public_id, "feedback": "correct"})
    with parts.database.read() as session:
        row = session.scalars(sa.select(FeedbackRow)).one()
        assert (row.checked_version, row.right_version) == (None, None)


def test_a_check_that_failed_waits(client: FlaskClient, settings: Settings, parts: Services) -> None:
    with hand_in_worker(settings):
        say_accepted(client)
    with parts.database.write() as session:
        session.execute(sa.delete(JobRow).where(JobRow.task == CHECK))
    assert queue_check(parts, "v-new")
    assert not queue_check(parts, "v-new"), "it waits already"
    claim = parts.queue.claim("w", (CHECK,))
    assert claim is not None
    parts.queue.fail(claim, WeightsCorruptError("damaged"))
    assert not queue_check(parts, "v-new")
    assert not queue_check(parts, "v-test"), "whose verdict it was"
