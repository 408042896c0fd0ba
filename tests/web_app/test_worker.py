"""What goes wrong while learning stops no worker."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.web_app.feedback.hand_in import FakeLearner, hand_in_worker, look, say, wait_for_state
from utils.config import Settings
from utils.errors import WeightsMissingError
from web_app.feedback.features import UNFORESEEN
from web_app.services import Services
from web_app.worker import LearningTasks


def test_a_fault_in_looking_stops_nothing(
    client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(path: Path, faces: object) -> object:
        raise RuntimeError("a fault that the tests put here")

    monkeypatch.setattr("tests.web_app.feedback.hand_in.look", faulty)
    with hand_in_worker(settings):
        public_id, _ = say(client, "fake", "real")
        wait_for_state(client, public_id, "out_of_domain")
        assert client.get(f"/api/detections/{public_id}").get_json()["feedback"]["reason"] == UNFORESEEN


def test_learning_rests_where_the_networks_are_gone(client: FlaskClient, parts: Services) -> None:
    asked: list[int] = []

    def gone() -> str:
        asked.append(1)
        raise WeightsMissingError("The version was deleted.")

    tasks = LearningTasks(parts, FakeLearner(look, lambda *_: {}, gone))
    tasks.when_idle()
    tasks.when_idle()
    assert asked == [1]
