"""Feedback on voices, with tiny networks: a recording and the sound of a video are learned, served and rolled back."""

from __future__ import annotations

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
from scipy.io import wavfile

from tests.speech_fixtures import speech_version, voice
from tests.utils.detection.test_sound import film
from tests.web_app.feedback.conftest import learning_worker, picture
from tests.web_app.feedback.test_learning_flow import SECONDS, accepted, correct, train
from tests.web_app.helpers import upload, wait_until
from utils.config import Settings
from utils.feedback.feature_set import FeatureSet
from utils.feedback.history import verify_history
from utils.tensors import read_tensors
from utils.training.golden_sets import write_lineage
from utils.types import Floats, Pixels
from utils.weights import SPEECH_FOLDER, SPEECH_HEAD_FILE, current_name, frozen_fingerprint, verify_version
from web_app.api.detections import Detection
from web_app.api.learning import LearnedVersions, Stats
from web_app.cli import main
from web_app.db.models import FeedbackRow, ReviewedMediumRow
from web_app.feedback.features import DECIDING, SPEECH_LEARNS_NOT
from web_app.services import EXTENSION

ITEMS = 24


def wav(samples: Floats) -> bytes:
    stream = io.BytesIO()
    wavfile.write(stream, 16000, (samples * 32767).astype(np.int16))
    return stream.getvalue()


def golden(folder: Path, seed: int) -> FeatureSet:
    """Recordings far from each other, whose labels are what the head says of them."""
    head = read_tensors(folder / SPEECH_HEAD_FILE)
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(ITEMS, 1, len(head["weight"]))).astype(np.float32)
    said = tokens[:, 0] @ head["weight"]
    labels = (said > np.median(said)).astype(np.float32)
    names, none = tuple(f"{seed}-{i}" for i in range(ITEMS)), np.zeros((ITEMS, 1), np.float32)
    fakes = tuple("made" if label else "-" for label in labels)
    return FeatureSet(tokens, np.arange(ITEMS + 1), none, none, labels, ("made",) * ITEMS, fakes, names, names)


@pytest.fixture
def speech_root(own_root: Path) -> Path:
    """A version of speech that can learn."""
    root = own_root / SPEECH_FOLDER
    root.mkdir()
    version = speech_version(root)
    write_lineage(root, version.name, golden(version.folder, 1), golden(version.folder, 2))
    return root


def opposite(report: dict[str, Any]) -> str:
    """What its voice is not, by what is likelier."""
    return "real" if report["speech"]["verdict"]["probability"] >= 0.5 else "fake"


def say(client: FlaskClient, report: dict[str, Any], **more: str) -> str:
    label = opposite(report)
    body = {"id": report["id"], "feedback": "incorrect", "actual": label, **more}
    answer = client.post("/api/feedback", json=body)
    assert answer.status_code == 201, answer.get_json()
    assert answer.get_json()["outlook"] == "will_be_learned"
    return label


def speaks(client: FlaskClient) -> str:
    return str(client.get("/api/rl/stats").get_json()["speech_version"])


def test_a_recording_is_corrected_learned_served_and_rolled_back(
    learning_client: FlaskClient,
    learning_settings: Settings,
    speech_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client, content = learning_client, wav(voice(4.0))
    monkeypatch.setenv("TELLTALE_STORAGE__INSTANCE_DIR", learning_settings.storage.instance_dir)
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", learning_settings.weights.dir)
    with learning_worker(learning_settings):
        report = upload(client, content, "/api/detect/audio?wait=1").get_json()
        label = say(client, report)
        wait_until(lambda: accepted(client) == 1, SECONDS)
        result = train(client)["result"]
        assert (result["promoted"], result["base"], result["version"]) == (True, "s1", "s1-r0001"), result["reason"]
        wait_until(lambda: speaks(client) == "s1-r0001", SECONDS)
        again = upload(client, content, "/api/detect/audio?wait=1&again=1").get_json()
        assert (again["prediction"], again["speech"]["model_version"]) == (label, "s1-r0001")
        assert "corrections_remembered" in {reason["code"] for reason in again["verdict"]["reasons"]}
        other = upload(client, wav(voice(4.0, pitch=210.0, seed=5)), "/api/detect/audio?wait=1").get_json()
        assert other["speech"]["model_version"] == "s1-r0001"
        kept = client.get(f"/api/detections/{report['id']}").get_json()
        assert (kept["feedback"]["learned_version"], kept["voice_feedback"]) == ("s1-r0001", None)
        (item,) = client.get("/api/rl/corrections").get_json()["items"]
        assert item["before_version"] == "s1"
        wait_until(lambda: _now(client) == ("holds", "s1-r0001"), SECONDS)
        assert main(["check-corrections"]) == 0
        capsys.readouterr()

        nothing = client.post("/api/rl/retrain")
        assert (nothing.status_code, nothing.get_json()["code"]) == (422, "nothing_new")
        assert client.post("/api/rl/rollback", json={"version": "s1"}).get_json() == {
            "version": "s1", "previous": "s1-r0001",
        }  # fmt: skip
        wait_until(lambda: speaks(client) == "s1", SECONDS)
        before = upload(client, content, "/api/detect/audio?wait=1&again=1").get_json()
        assert before["fake_probability"] == report["fake_probability"]
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
        label = say(client, report, part="voice")
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
        say(client, upload(client, wav(voice(4.0)), "/api/detect/audio?wait=1").get_json())
        wait_until(lambda: accepted(client) == 2, SECONDS)
        result = train(client)["result"]
        assert (result["version"], result["speech"]["version"]) == ("tiny-r0001", "s1-r0001"), result
        assert client.post("/api/rl/retrain").get_json()["code"] == "nothing_new"
        wait_until(lambda: speaks(client) == "s1-r0001", SECONDS)
        say(client, upload(client, wav(voice(4.0, pitch=210.0, seed=5)), "/api/detect/audio?wait=1").get_json())
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
        say(client, upload(client, wav(voice(4.0)), "/api/detect/audio?wait=1").get_json())
        wait_until(lambda: accepted(client) == 1, SECONDS)
        former = {
            "features": {DECIDING: SPEECH_LEARNS_NOT}, "domain_reason": SPEECH_LEARNS_NOT,
            "experts": frozen_fingerprint(verify_version(speech_root.parent, served.analyser.version)),
        }  # fmt: skip
        with parts.database.write() as session:
            session.execute(sa.update(ReviewedMediumRow).values(**former))
            session.execute(sa.update(FeedbackRow).values(state="out_of_domain"))
        wait_until(lambda: accepted(client) == 1, SECONDS)
    with parts.database.read() as session:
        assert session.scalar(sa.select(ReviewedMediumRow.features)) == {"voice": ""}


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
