"""The settings reach the learning core, and wrong ones stop the worker with a sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.web_app.feedback.hand_in import hand_in_worker, say, wait_for_state
from utils.config import LearningSettings, Settings
from utils.errors import ConfigError, WeightsMissingError
from utils.feedback.quarantine import QuarantineRules, rules_of
from utils.feedback.settings import LearnSettings, learn_settings
from web_app.feedback.features import UNFORESEEN
from web_app.feedback.tasks import LearningDuties


def test_the_defaults_are_those_of_the_core() -> None:
    assert learn_settings(LearningSettings()) == LearnSettings()
    assert rules_of(LearningSettings()) == QuarantineRules()


@pytest.mark.parametrize("parts", ["", "gate,tail"])
def test_unknown_parts_are_named(parts: str) -> None:
    with pytest.raises(ConfigError, match="parts"):
        learn_settings(LearningSettings(parts=parts))


def test_a_fault_in_looking_stops_nothing(
    client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(path: Path, face: int | None) -> object:
        raise RuntimeError("a fault that the tests put here")

    monkeypatch.setattr("tests.web_app.feedback.hand_in.look", faulty)
    with hand_in_worker(settings):
        public_id, _ = say(client, "fake", "real")
        wait_for_state(client, public_id, "out_of_domain")
        assert client.get(f"/api/detections/{public_id}").get_json()["feedback"]["reason"] == UNFORESEEN


def test_learning_rests_where_the_networks_are_gone(client: FlaskClient, settings: Settings) -> None:
    asked: list[int] = []

    def gone() -> str:
        asked.append(1)
        raise WeightsMissingError("The version was deleted.")

    duties = LearningDuties(dataclasses.replace(settings), lambda path, face: None, gone, lambda items, tell: {})  # type: ignore[arg-type,return-value]
    duties.when_idle()
    duties.when_idle()
    duties.close()
    assert asked == [1]
