"""Feedback on voices, with tiny networks: a recording and the sound of a video are learned, served and rolled back."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

import inference
from tests.speech_fixtures import voice
from tests.utils.detection.test_sound import film
from tests.web_app.feedback.conftest import learning_worker, picture, say_of_voice, wav
from tests.web_app.feedback.test_learning_flow import SECONDS, accepted, correct, learner_of, train
from tests.web_app.helpers import upload, wait_until
from utils.config import Settings, WeightsSettings
from utils.detection.pipeline import load_analyser
from utils.feedback.history import verify_history
from utils.types import Pixels
from utils.weights import current_name, frozen_fingerprint, verify_version
from web_app.__main__ import main
from web_app.api.detections import Detection
from web_app.api.learning import LearnedVersions, Stats
from web_app.db.models import FeedbackRow, MediaRow, ReviewedMediumRow
from web_app.feedback.features import DECIDING, GONE, SPEECH_LEARNS_NOT, examine_next
from web_app.feedback.model_handle import ModelHandle
from web_app.feedback.votes import reconcile
from web_app.jobs.detections import conditions_of, delete_detection
from web_app.services import EXTENSION


def looked_at_before(client: FlaskClient, reason: str, experts: str) -> None:
    """As the worker of an earlier release leaves a voice behind that it has looked at."""
    former = {"features": {DECIDING: reason}, "domain_reason": reason, "experts": experts}
    with client.application.extensions[EXTENSION].database.write() as session:
        session.execute(sa.update(ReviewedMediumRow).values(**former))
        session.execute(sa.update(FeedbackRow).values(state="out_of_domain"))


def speaks(client: FlaskClient) -> str:
    return str(client.get("/api/rl/stats").get_json()["speech_version"])


def test_a_pinned_version_hears_with_what_was_trained_before_and_after_a_restart(
    learning_client: FlaskClient, learning_settings: Settings, speech_root: Path
) -> None:
    client = learning_client
    pinned = dataclasses.replace(learning_settings, weights=WeightsSettings(learning_settings.weights.dir, "tiny"))
    conditions = conditions_of(pinned, "tiny")
    with learning_worker(pinned) as served:
        say_of_voice(client, upload(client, wav(voice(4.0)), "/api/detect/audio?wait=1").get_json())
        wait_until(lambda: accepted(client) == 1, SECONDS)
        assert train(client)["result"]["promoted"]
        assert current_name(speech_root) == "s1-r0001"
        assert not served.refresh()
        assert served.speech == "s1"
    assert ModelHandle(pinned, load_analyser).speech == "s1"
    assert conditions_of(pinned, "tiny") == conditions != conditions_of(learning_settings, "tiny")


def test_a_recording_is_corrected_learned_served_and_rolled_back(
    learning_client: FlaskClient,
    learning_settings: Settings,
    speech_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    client, content = learning_client, wav(voice(4.0))
    (tmp_path / "voice.wav").write_bytes(content)

    def verified(report: dict[str, Any]) -> tuple[int, bool]:
        (tmp_path / "report.json").write_bytes(client.get(f"/api/detections/{report['id']}/report").data)
        code = inference.main(["--verify", str(tmp_path / "report.json"), str(tmp_path / "voice.wav")])
        return code, f"The score is reproduced: {report['fake_probability']:.4f}" in capsys.readouterr().out

    monkeypatch.setenv("TELLTALE_STORAGE__INSTANCE_DIR", learning_settings.storage.instance_dir)
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", learning_settings.weights.dir)
    monkeypatch.setenv("TELLTALE_DETECTION__THREADS", "1")
    with learning_worker(learning_settings):
        report = upload(client, content, "/api/detect/audio?wait=1").get_json()
        label = say_of_voice(client, report)
        wait_until(lambda: accepted(client) == 1, SECONDS)
        result = train(client)["result"]
        assert (result["promoted"], result["base"], result["version"]) == (True, "s1", "s1-r0001"), result["reason"]
        wait_until(lambda: speaks(client) == "s1-r0001", SECONDS)
        again = upload(client, content, "/api/detect/audio?wait=1&again=1").get_json()
        assert (again["prediction"], again["speech"]["model_version"]) == (label, "s1-r0001")
        assert "corrections_remembered" in {reason["code"] for reason in again["verdict"]["reasons"]}
        assert verified(report) == verified(again) == (0, True)
        other = upload(client, wav(voice(4.0, pitch=210.0, seed=5)), "/api/detect/audio?wait=1").get_json()
        assert other["speech"]["model_version"] == "s1-r0001"
        kept = client.get(f"/api/detections/{report['id']}").get_json()
        assert (kept["feedback"]["learned_version"], kept["voice_feedback"]) == ("s1-r0001", None)
        (item,) = client.get("/api/rl/corrections").get_json()["items"]
        assert item["before_version"] == "s1"
        wait_until(lambda: _now(client) == ("holds", "s1-r0001"), SECONDS)
        assert main(["check-corrections"]) == 0
        with monkeypatch.context() as pinned:
            pinned.setenv("TELLTALE_WEIGHTS__VERSION", "tiny")
            assert main(["check-corrections"]) == 1  # judged by s1
        capsys.readouterr()

        nothing = client.post("/api/rl/retrain")
        assert (nothing.status_code, nothing.get_json()["code"]) == (422, "nothing_new")
        assert client.post("/api/rl/rollback", json={"part": "speech"}).get_json() == {
            "version": "s1", "previous": "s1-r0001",
        }  # fmt: skip
        wait_until(lambda: speaks(client) == "s1", SECONDS)
        before = upload(client, content, "/api/detect/audio?wait=1&again=1").get_json()
        assert before["fake_probability"] == report["fake_probability"]
        assert verified(again) == verified(report) == (0, True)
        wait_until(lambda: _now(client) == ("lost", "s1"), SECONDS)

    stats = client.get("/api/rl/stats").get_json()
    Stats.model_validate(stats)
    assert (stats["trainings"]["promoted"], stats["golden"], stats["model_version"]) == (1, [], "tiny")
    assert [point["version"] for point in stats["golden_speech"]] == ["s1", "s1-r0001"]
    versions = client.get("/api/rl/versions").get_json()
    LearnedVersions.model_validate(versions)
    assert [(v["version"], v["part"], v["current"]) for v in versions["items"]] == [
        ("tiny", "faces", True), ("s1", "speech", True), ("s1-r0001", "speech", False),
    ]  # fmt: skip
    history = learning_client.application.extensions[EXTENSION].paths.speech_history
    assert verify_history(history).ok
    assert current_name(speech_root) == "s1"
    page = client.get("/learning").get_data(as_text=True)
    assert "s1-r0001" in page


def _now(client: FlaskClient) -> tuple[str, str]:
    (item,) = client.get("/api/rl/corrections").get_json()["items"]
    return item["now"]["state"], item["now"]["version"]


def test_the_voice_of_a_video_is_learned_apart_from_its_faces(
    learning_client: FlaskClient, learning_settings: Settings, speech_root: Path, photo: Pixels, tmp_path: Path
) -> None:
    client = learning_client
    content = film(tmp_path / "talks.mp4", np.ascontiguousarray(photo[:256, :256]), voice(4.0)).read_bytes()
    with learning_worker(learning_settings):
        report = upload(client, content, "/api/detect/video?wait=1").get_json()
        label = say_of_voice(client, report, part="voice")
        wait_until(lambda: accepted(client) == 1, SECONDS)
        looked_at_before(client, GONE, frozen_fingerprint(verify_version(speech_root.parent, "tiny")))
        wait_until(lambda: accepted(client) == 1, SECONDS)
        kept = client.get(f"/api/detections/{report['id']}").get_json()
        Detection.model_validate(kept)
        assert (kept["feedback"], kept["voice_feedback"]["actual"]) == (None, label)
        (case,) = client.get("/api/rl/review?state=all").get_json()["items"]
        assert (case["kind"], case["part"]) == ("video", "voice")
        assert client.get(case["media"]).status_code in (200, 503)
        result = train(client)["result"]
        assert (result["promoted"], result["base"]) == (True, "s1"), result["reason"]
        wait_until(lambda: speaks(client) == result["version"], SECONDS)
        again = upload(client, content, "/api/detect/video?wait=1&again=1").get_json()
        assert again["speech"]["verdict"]["outcome"] == label
        assert (again["model_version"], again["fake_probability"]) == ("tiny", report["fake_probability"])
        wrong = client.post("/api/feedback", json={"id": report["id"], "feedback": "correct", "part": "voice",
                                                   "actual": label, "faces": {"0": "fake"}})  # fmt: skip
        assert (wrong.status_code, wrong.get_json()["code"]) == (422, "feedback")
        assert client.delete(f"/api/feedback/{report['id']}").status_code == 404
        assert client.delete(f"/api/feedback/{report['id']}?part=voice").status_code == 204
        assert client.get("/api/rl/stats").get_json()["feedback"]["total"] == 0


def test_one_training_learns_faces_and_voices_and_the_next_one_what_has_news(
    learning_client: FlaskClient,
    learning_settings: Settings,
    lineage: Callable[[int], None],
    speech_root: Path,
    photo: Pixels,
) -> None:
    client = learning_client
    with learning_worker(learning_settings):
        _, label = correct(client, picture(photo))
        lineage(1 if label == "fake" else 0)
        say_of_voice(client, upload(client, wav(voice(4.0)), "/api/detect/audio?wait=1").get_json())
        wait_until(lambda: accepted(client) == 2, SECONDS)
        result = train(client)["result"]
        assert (result["version"], result["speech"]["version"]) == ("tiny-r0001", "s1-r0001"), result
        assert client.post("/api/rl/retrain").get_json()["code"] == "nothing_new"
        wait_until(lambda: speaks(client) == "s1-r0001", SECONDS)
        say_of_voice(
            client, upload(client, wav(voice(4.0, pitch=210.0, seed=5)), "/api/detect/audio?wait=1").get_json()
        )
        wait_until(lambda: accepted(client) == 3, SECONDS)
        result = train(client)["result"]
        assert (result["version"], result["items"], "speech" in result) == ("s1-r0002", 2, False), result
        assert client.post("/api/rl/retrain").get_json()["code"] == "nothing_new"
        versions = [item["version"] for item in client.get("/api/rl/versions").get_json()["items"]]
    assert versions == ["tiny", "tiny-r0001", "s1", "s1-r0001", "s1-r0002"]


def test_a_recording_that_taught_an_earlier_release_nothing_is_looked_at_again(
    learning_client: FlaskClient, learning_settings: Settings, speech_root: Path
) -> None:
    client, parts = learning_client, learning_client.application.extensions[EXTENSION]
    with learning_worker(learning_settings) as served:
        say_of_voice(client, upload(client, wav(voice(4.0)), "/api/detect/audio?wait=1").get_json())
        wait_until(lambda: accepted(client) == 1, SECONDS)
        experts = frozen_fingerprint(verify_version(speech_root.parent, served.analyser.version))
        looked_at_before(client, SPEECH_LEARNS_NOT, experts)
        wait_until(lambda: accepted(client) == 1, SECONDS)
    with parts.database.read() as session:
        assert session.scalar(sa.select(ReviewedMediumRow.features)) == {"voice": ""}


def test_a_voice_of_a_deleted_file_is_found_again_when_the_database_is_made_again(
    learning_client: FlaskClient, learning_settings: Settings, speech_root: Path
) -> None:
    client, parts = learning_client, learning_client.application.extensions[EXTENSION]
    with learning_worker(learning_settings):
        report = upload(client, wav(voice(4.0)), "/api/detect/audio?wait=1").get_json()
        say_of_voice(client, report)
        wait_until(lambda: accepted(client) == 1, SECONDS)
    delete_detection(parts.database, parts.store, report["id"])
    with parts.database.write() as session:
        session.execute(sa.delete(FeedbackRow))
        session.execute(sa.delete(ReviewedMediumRow))
    assert reconcile(parts).written == 1
    with learning_worker(learning_settings) as served:
        wait_until(lambda: accepted(client) == 1, 20)
        with parts.database.read() as session:
            medium = session.scalars(sa.select(ReviewedMediumRow)).one()
        assert (medium.features, medium.domain_reason) == ({"voice": ""}, None)
        assert served.analyser.speech is not None
        assert medium.experts == frozen_fingerprint(served.analyser.speech.version)
        assert train(client)["result"]["version"] == "s1-r0001"


def test_a_file_without_a_judged_voice_takes_no_answer_about_one(
    make_app: Callable[..., Flask], learning_settings: Settings
) -> None:
    client = make_app(learning_settings).test_client()
    with learning_worker(learning_settings):
        plain = io.BytesIO()
        Image.new("RGB", (64, 64)).save(plain, "PNG")
        report = upload(client, plain.getvalue(), "/api/detect?wait=1").get_json()
        answer = client.post(
            "/api/feedback", json={"id": report["id"], "feedback": "incorrect", "actual": "real", "part": "voice"}
        )
    assert (answer.status_code, answer.get_json()["detail"]) == (422, "No voice was judged here.")


def test_by_its_sha256_the_vote_on_a_voice_is_taken_back_and_not_that_on_the_faces(
    learning_client: FlaskClient, learning_settings: Settings, speech_root: Path, photo: Pixels, tmp_path: Path
) -> None:
    client, recording = learning_client, wav(voice(4.0))
    content = film(tmp_path / "talks.mp4", np.ascontiguousarray(photo[:256, :256]), voice(4.0)).read_bytes()
    with learning_worker(learning_settings):
        report = upload(client, content, "/api/detect/video?wait=1").get_json()
        say_of_voice(client, upload(client, recording, "/api/detect/audio?wait=1").get_json())
        say_of_voice(client, report, part="voice")
    label = "real" if report["fake_probability"] >= 0.5 else "fake"
    said = {"id": report["id"], "feedback": "correct" if label == report["prediction"] else "incorrect"}
    assert client.post("/api/feedback", json={**said, "actual": label}).status_code == 201
    address = f"/api/feedback/{hashlib.sha256(content).hexdigest()}"
    assert client.delete(f"{address}?part=voice").status_code == 204
    kept = client.get(f"/api/detections/{report['id']}").get_json()
    assert (kept["feedback"]["actual"], kept["voice_feedback"]) == (label, None)
    assert client.delete(f"{address}?part=voice").status_code == 404
    assert client.delete(address).status_code == 204
    heard = f"/api/feedback/{hashlib.sha256(recording).hexdigest()}?part=voice"
    assert [client.delete(heard).status_code for _ in range(2)] == [204, 404]


def test_a_recording_of_an_earlier_release_whose_file_is_lost_is_looked_at_once(
    learning_client: FlaskClient, learning_settings: Settings, speech_root: Path
) -> None:
    client, parts = learning_client, learning_client.application.extensions[EXTENSION]
    with learning_worker(learning_settings):
        say_of_voice(client, upload(client, wav(voice(4.0)), "/api/detect/audio?wait=1").get_json())
        wait_until(lambda: accepted(client) == 1, SECONDS)
    former = {"features": {DECIDING: SPEECH_LEARNS_NOT}, "domain_reason": SPEECH_LEARNS_NOT, "experts": "0" * 64}
    with parts.database.write() as session:
        session.execute(sa.update(ReviewedMediumRow).values(**former))
        parts.store.path(session.scalars(sa.select(MediaRow.stored_name)).one()).unlink()
    learner = learner_of(learning_settings)
    assert [examine_next(parts, learner) for _ in range(3)] == [True, False, False]
    with parts.database.read() as session:
        assert session.scalar(sa.select(ReviewedMediumRow.domain_reason)) == GONE
