"""Trainings as jobs: asked for, refused, started by themselves, beside the analyses, and what the page says of them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.feedback.hand_in import ended_training, hand_in_worker, say, say_accepted
from tests.web_app.helpers import job_state, make_settings, media_bytes, upload, wait_until
from utils.config import LearningSettings, Settings, WeightsSettings
from utils.weights import publish_version, set_current
from web_app.api.learning import Stats, Training
from web_app.db.models import TRAIN, JobRow
from web_app.jobs.supervisor import settings_environ
from web_app.paths import ROOT
from web_app.services import Services


def test_nothing_to_learn_is_said(client: FlaskClient) -> None:
    answer = client.post("/api/rl/retrain")
    assert (answer.status_code, answer.get_json()["code"]) == (422, "nothing_new")
    assert "No accepted feedback" in answer.get_json()["detail"]
    assert client.get("/api/rl/retrain/nix").status_code == 404


def test_one_training_at_a_time_and_analyses_go_on(client: FlaskClient, settings: Settings) -> None:
    with hand_in_worker(settings) as trainer:
        public_id = say_accepted(client)
        trainer.go_on.clear()
        answer = client.post("/api/rl/retrain")
        assert answer.status_code == 202
        training = answer.get_json()
        Training.model_validate(training)
        wait_until(lambda: trainer.rounds)
        again = client.post("/api/rl/retrain")
        assert (again.status_code, again.get_json()["code"], again.get_json()["id"]) == (
            409,
            "conflict",
            training["id"],
        )
        assert client.get("/api/rl/stats").get_json()["trainings"]["running"] == training["id"]
        assert client.get(f"/api/jobs/{training['id']}").status_code == 404
        meanwhile = upload(client, media_bytes(order="real"), "/api/detect?wait=1").get_json()
        assert meanwhile["prediction"] == "real", "the analysis did not wait for the training"
        trainer.go_on.set()
        ended = ended_training(client, answer.headers["Location"])
        Training.model_validate(ended)
        assert (ended["state"], ended["result"]["version"]) == ("done", "cand-1")
        feedback = client.get(f"/api/detections/{public_id}").get_json()["feedback"]
        assert (feedback["learned_version"], feedback["outlook"]) == ("cand-1", "learned")
        nothing = client.post("/api/rl/retrain")
        assert (nothing.status_code, nothing.get_json()["code"]) == (422, "nothing_new")
        say_accepted(client, "real", "fake")
        second = client.post("/api/rl/retrain")
        ended_training(client, second.headers["Location"])
        assert [item.label for item in trainer.rounds[1]].count(1) == 1
        assert len(trainer.rounds[1]) == 2, "every training learns everything again"


def test_the_stats_tell_the_trainings(client: FlaskClient, settings: Settings, parts: Services) -> None:
    with hand_in_worker(settings, promoted=False):
        public_id = say_accepted(client)
        ended_training(client, client.post("/api/rl/retrain").headers["Location"])
    feedback = client.get(f"/api/detections/{public_id}").get_json()["feedback"]
    assert (feedback["outlook"], feedback["tried_version"], feedback["learned_version"]) == ("tried", "cand-1", None)
    stats = client.get("/api/rl/stats").get_json()
    Stats.model_validate(stats)
    told = stats["trainings"]
    assert (told["total"], told["promoted"], told["rejected"]) == (1, 0, 1)
    assert (told["improvements"], told["regressions"], told["mean_loss"]) == (0, 0, 0.5)
    assert (told["accuracy_before"], told["accuracy_after"], told["last_rejection"]) == (0.25, 0.75, "because")
    assert [(p["version"], p["auc"], p["worst_slice"], p["promoted"]) for p in stats["golden"]] == [
        ("v0", 0.9, 0.85, True), ("cand-1", 0.91, 0.85, False),
    ]  # fmt: skip
    assert (stats["feedback"]["accepted"], stats["feedback"]["learned"], stats["feedback"]["new"]) == (1, 0, 0)
    page = client.get("/learning").get_data(as_text=True)
    assert "Model learning progress" in page
    assert 'class="golden__rejected"' in page
    assert "style=" not in page
    with parts.paths.training_history.open("a") as history:
        history.write('{"torn')
    assert client.get("/api/rl/stats").get_json()["trainings"]["damaged_lines"] == 1
    changed = parts.paths.training_history.read_text().replace('"because"', '"for no reason"')
    parts.paths.training_history.write_text(changed)
    assert client.get("/api/rl/stats").get_json()["trainings"]["chain_intact"] is False
    assert "its hash chain is broken" in client.get("/learning").get_data(as_text=True)


def test_versions_are_listed_by_the_day_they_were_made(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    root = tmp_path / "weights"
    cards = {"v9": {"made": "2026-01-02"}, "v10": {"made": "2026-03-04"}, "v9-r0001": {"learning": {"base": "v9"}}}
    for name, card in cards.items():
        publish_version(root, name, {"gate": {}}, {"calibration": {}, "card": {"made": "2026-01-02"} | card})
    settings = dataclasses.replace(make_settings(tmp_path), weights=WeightsSettings(dir=str(root)))
    items = make_app(settings).test_client().get("/api/rl/versions").get_json()["items"]
    assert [(item["version"], item["created"]) for item in items] == [
        ("v9-r0001", None), ("v9", "2026-01-02"), ("v10", "2026-03-04"),
    ], "when a version learned stands in the history alone"  # fmt: skip


@pytest.mark.parametrize("learning", [LearningSettings(auto_after=2), LearningSettings(auto_hours=0.0001)])
def test_trainings_start_by_themselves(
    make_app: Callable[..., Flask], settings: Settings, learning: LearningSettings
) -> None:
    automatic = dataclasses.replace(settings, learning=learning)
    client = make_app(automatic).test_client()
    with hand_in_worker(automatic) as trainer:
        say(client, "fake", "real")
        if learning.auto_after:
            assert not trainer.rounds
            say(client, "real", "fake")
        wait_until(lambda: trainer.rounds)
        wait_until(lambda: client.get("/api/rl/stats").get_json()["trainings"]["total"] == 1)
    assert len(trainer.rounds) == 1


def test_a_stopping_worker_gives_its_training_back(client: FlaskClient, settings: Settings) -> None:
    with hand_in_worker(settings) as trainer:
        say_accepted(client)
        trainer.go_on.clear()
        where = client.post("/api/rl/retrain").headers["Location"]
        wait_until(lambda: client.get(where).get_json()["stage"] == "learn")
        trainer.stop.set()
        wait_until(lambda: client.get(where).get_json()["state"] == "queued")
    assert client.get(where).get_json()["attempts"] == 0
    with hand_in_worker(settings):
        assert ended_training(client, where)["state"] == "done"


def test_a_worker_killed_in_mid_training_leaves_it_to_the_next_one(
    client: FlaskClient, settings: Settings, parts: Services
) -> None:
    with hand_in_worker(settings):
        public_id = say_accepted(client)
    command = [sys.executable, "-m", "tests.web_app.feedback.killed_worker"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings_environ(settings)}) as worker:
        where = client.post("/api/rl/retrain").headers["Location"]
        wait_until(lambda: client.get(where).get_json()["stage"] == "learn", 60)
        worker.kill()
    with parts.database.read() as session:
        killed = session.scalars(sa.select(JobRow).where(JobRow.task == TRAIN)).one()
    assert killed.state == "running"
    parts.queue.release_lost(str(killed.worker_id))  # as its supervisor does
    with hand_in_worker(settings) as trainer:
        ended = ended_training(client, where)
    assert (ended["state"], ended["attempts"], len(trainer.rounds)) == ("done", 2, 1)
    assert client.get(f"/api/detections/{public_id}").get_json()["feedback"]["learned_version"] == "cand-1"
    with parts.database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).where(JobRow.task == TRAIN)) == 1


def test_a_rollback_needs_no_body(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    root = tmp_path / "weights"
    publish_version(root, "v9", {"gate": {}}, {"calibration": {}, "card": {}})
    set_current(root, "v9")
    client = make_app(
        dataclasses.replace(make_settings(tmp_path), weights=WeightsSettings(dir=str(root)))
    ).test_client()
    bare, empty = client.post("/api/rl/rollback"), client.post("/api/rl/rollback", json={})
    assert (bare.status_code, bare.get_json()) == (empty.status_code, empty.get_json())
    assert bare.get_json()["code"] == "conflict"


def test_a_job_of_an_unknown_kind_waits(client: FlaskClient, settings: Settings, parts: Services) -> None:
    with parts.database.write() as session:
        parts.queue.add_task(session, "unheard", {"x": 1})
    with hand_in_worker(settings):
        public_id = upload(client, media_bytes(order="real")).get_json()["id"]
        wait_until(lambda: job_state(client, public_id) == "done")
    with parts.database.read() as session:
        assert parts.queue.waiting(session) == 0, "only analyses count"
