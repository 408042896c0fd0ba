"""Feedback on voices, with tiny networks: a recording and the sound of a video are learned, served and rolled back."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from scipy.io import wavfile

import inference
from tests.speech_fixtures import speech_version, voice
from tests.utils.detection.test_sound import film
from tests.web_app.feedback.conftest import learning_worker, picture
from tests.web_app.feedback.hand_in import ended_training
from tests.web_app.feedback.test_learning_flow import SECONDS, accepted, correct, train
from tests.web_app.helpers import upload, wait_until
from utils.config import LearningSettings, Settings, WeightsSettings
from utils.detection.pipeline import load_analyser
from utils.errors import NothingNewError
from utils.feedback.feature_set import CachedItem, FeatureSet
from utils.feedback.history import verify_history
from utils.feedback.quarantine import VOICE
from utils.feedback.versions import serving
from utils.tensors import read_tensors
from utils.training.golden_sets import write_lineage
from utils.types import Floats, Pixels
from utils.weights import SPEECH_FOLDER, SPEECH_HEAD_FILE, current_name, frozen_fingerprint, verify_version
from web_app.api.detections import Detection
from web_app.api.learning import LearnedVersions, Stats
from web_app.cli import main
from web_app.db.models import TRAIN, FeedbackRow, MediaRow, ReviewedMediumRow
from web_app.feedback.features import DECIDING, GONE, SPEECH_LEARNS_NOT, examine_next
from web_app.feedback.learner import Learner
from web_app.feedback.model_handle import ModelHandle
from web_app.feedback.training import request_training, run_training, start_if_due
from web_app.feedback.votes import reconcile
from web_app.jobs.detections import conditions_of, delete_detection
from web_app.jobs.shared import Instance
from web_app.services import EXTENSION, Services

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
        say(client, upload(client, wav(voice(4.0)), "/api/detect/audio?wait=1").get_json())
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
        label = say(client, report)
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
        assert client.post("/api/rl/rollback", json={"version": "s1"}).get_json() == {
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
        label = say(client, report, part="voice")
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
        say(client, report)
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


def both_accepted(client: FlaskClient, lineage: Callable[[int], None], photo: Pixels) -> None:
    """A picture and a recording with an accepted vote each, and a golden set of faces."""
    _, label = correct(client, picture(photo))
    lineage(1 if label == "fake" else 0)
    say(client, upload(client, wav(voice(4.0)), "/api/detect/audio?wait=1").get_json())
    wait_until(lambda: accepted(client) == 2, SECONDS)


def make_stale(parts: Services, name: str) -> None:
    """Features as of other networks, of a file that is gone."""
    for path in parts.paths.features.glob(f"*/{name}.npz"):
        dataclasses.replace(CachedItem.load(path), experts="0" * 64).save(path)


def learner_of(settings: Settings) -> Learner:
    return Learner(settings, ModelHandle(settings, load_analyser))


def run_here(instance: Instance, learner: Learner) -> dict[str, Any]:
    """Run the training that waits, without a worker."""
    claim = instance.queue.claim("worker", (TRAIN,))
    assert claim is not None
    result = run_training(instance, learner, claim, lambda stage, done: None)
    instance.queue.finish_task(claim, result)
    return result


@pytest.mark.parametrize(
    ("stale", "failed", "learned"), [(DECIDING, "faces", "s1-r0001"), (VOICE, "speech", "tiny-r0001")]
)
def test_a_part_that_can_teach_nothing_holds_the_other_not_up(
    learning_client: FlaskClient,
    learning_settings: Settings,
    lineage: Callable[[int], None],
    speech_root: Path,
    photo: Pixels,
    stale: str,
    failed: str,
    learned: str,
) -> None:
    with learning_worker(learning_settings):
        both_accepted(learning_client, lineage, photo)
    make_stale(learning_client.application.extensions[EXTENSION], stale)
    eager = dataclasses.replace(learning_settings, learning=LearningSettings(quorum=2, auto_after=1))
    with closing(Instance.of(eager)) as instance:
        assert start_if_due(instance, serving(speech_root.parent), all_prepared=True)
        result = run_here(instance, learner_of(eager))
        assert (result["version"], result["promoted"], result[failed]["code"]) == (learned, True, "nothing_new")
        assert "1 were made with other networks" in result[failed]["reason"]
        assert result["voices"] == 1
        served = serving(speech_root.parent)
        assert not start_if_due(instance, served, all_prepared=True)
        with instance.database.write() as session, pytest.raises(NothingNewError):
            request_training(session, instance, served, "")


def test_what_can_teach_nothing_yet_is_learned_once_it_was_looked_at_anew(
    learning_client: FlaskClient,
    learning_settings: Settings,
    lineage: Callable[[int], None],
    speech_root: Path,
    photo: Pixels,
) -> None:
    client, parts = learning_client, learning_client.application.extensions[EXTENSION]
    with learning_worker(learning_settings):
        both_accepted(client, lineage, photo)
    make_stale(parts, DECIDING)
    with parts.database.write() as session:
        faces = ReviewedMediumRow.features[DECIDING].as_string() == ""
        session.execute(sa.update(ReviewedMediumRow).where(faces).values(experts="0" * 64))
        request_training(session, parts, serving(speech_root.parent), "")
    learner = learner_of(learning_settings)
    result = run_here(parts, learner)
    assert (result["version"], result["faces"]["code"], "digest" in result) == ("s1-r0001", "nothing_new", False)
    assert examine_next(parts, learner)
    with learning_worker(learning_settings):
        assert train(client)["result"]["version"] == "tiny-r0001"


def test_a_lineage_of_voices_that_is_not_whole_leaves_what_faces_learned(
    learning_client: FlaskClient,
    learning_settings: Settings,
    lineage: Callable[[int], None],
    speech_root: Path,
    photo: Pixels,
) -> None:
    client, replay = learning_client, speech_root / "learning" / "s1" / "replay.safetensors"
    with learning_worker(learning_settings):
        both_accepted(client, lineage, photo)
        kept = replay.read_bytes()
        replay.unlink()
        result = train(client)["result"]
        assert (result["version"], result["promoted"]) == ("tiny-r0001", True)
        assert (result["speech"]["code"], result["speech"]["promoted"]) == ("training_data", False)
        assert "no replay.safetensors for version s1" in result["speech"]["reason"]
        alone = ended_training(client, client.post("/api/rl/retrain").headers["Location"])
        assert (alone["state"], alone["error"]["code"]) == ("failed", "training_data")
        replay.write_bytes(kept)
        assert train(client)["result"]["version"] == "s1-r0001"


def test_by_its_sha256_the_vote_on_a_voice_is_taken_back_and_not_that_on_the_faces(
    learning_client: FlaskClient, learning_settings: Settings, speech_root: Path, photo: Pixels, tmp_path: Path
) -> None:
    client, recording = learning_client, wav(voice(4.0))
    content = film(tmp_path / "talks.mp4", np.ascontiguousarray(photo[:256, :256]), voice(4.0)).read_bytes()
    with learning_worker(learning_settings):
        report = upload(client, content, "/api/detect/video?wait=1").get_json()
        say(client, upload(client, recording, "/api/detect/audio?wait=1").get_json())
        say(client, report, part="voice")
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
        say(client, upload(client, wav(voice(4.0)), "/api/detect/audio?wait=1").get_json())
        wait_until(lambda: accepted(client) == 1, SECONDS)
    former = {"features": {DECIDING: SPEECH_LEARNS_NOT}, "domain_reason": SPEECH_LEARNS_NOT, "experts": "0" * 64}
    with parts.database.write() as session:
        session.execute(sa.update(ReviewedMediumRow).values(**former))
        parts.store.path(session.scalars(sa.select(MediaRow.stored_name)).one()).unlink()
    learner = learner_of(learning_settings)
    assert [examine_next(parts, learner) for _ in range(3)] == [True, False, False]
    with parts.database.read() as session:
        assert session.scalar(sa.select(ReviewedMediumRow.domain_reason)) == GONE
