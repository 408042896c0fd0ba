"""The whole way with tiny networks: upload, correct, learn, promoted or rejected with a reason, and back again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from tests.speech_fixtures import voice
from tests.web_app.feedback.conftest import learning_worker, picture, say_of_voice, wav
from tests.web_app.feedback.hand_in import ended_training
from tests.web_app.helpers import upload, wait_until
from utils.config import LearningSettings, Settings
from utils.detection.calibration import Calibration, ReliabilityBin
from utils.detection.pipeline import load_analyser
from utils.errors import NothingNewError
from utils.feedback.feature_set import CachedItem
from utils.feedback.history import verify_history
from utils.feedback.quarantine import VOICE
from utils.feedback.versions import serving
from utils.files import file_sha256
from utils.types import Pixels
from utils.weights import CHECKSUMS
from web_app.__main__ import main
from web_app.api.learning import LearnedVersions, Stats, Training
from web_app.db.models import TRAIN, ReviewedMediumRow
from web_app.feedback.features import DECIDING, examine_next
from web_app.feedback.learner import Learner
from web_app.feedback.model_handle import ModelHandle
from web_app.feedback.training import request_training, run_training, start_if_due
from web_app.jobs.shared import Instance
from web_app.services import EXTENSION, Services

SECONDS = 120.0


def correct(client: FlaskClient, content: bytes, *, right: bool = False) -> tuple[dict[str, Any], str]:
    """Upload, and say the opposite of what the networks tend to, or that they are `right`; the report and the label."""
    report = upload(client, content, "/api/detect?wait=1").get_json()
    label = "real" if (report["fake_probability"] >= 0.5) is not right else "fake"
    said = "correct" if label == report["prediction"] else "incorrect"
    answer = client.post("/api/feedback", json={"id": report["id"], "feedback": said, "actual": label})
    assert answer.status_code == 201, answer.get_json()
    return report, label


def accepted(client: FlaskClient) -> int:
    return int(client.get("/api/rl/stats").get_json()["feedback"]["accepted"])


def train(client: FlaskClient) -> dict[str, Any]:
    answer = client.post("/api/rl/retrain")
    assert answer.status_code == 202, answer.get_json()
    Training.model_validate(answer.get_json())
    where = answer.headers["Location"]
    job: dict[str, Any] = wait_until(
        lambda: (found := client.get(where).get_json())["state"] in ("done", "failed") and found, SECONDS
    )
    Training.model_validate(job)
    assert job["state"] == "done", job["error"]
    return job


def loaded(client: FlaskClient) -> str:
    return str(client.get("/api/rl/stats").get_json()["model_version"])


def corrections(client: FlaskClient) -> list[tuple[str, str]]:
    items = client.get("/api/rl/corrections").get_json()["items"]
    return [(item["now"]["state"], item["now"]["version"]) for item in items]


def test_a_correction_is_learned_served_and_rolled_back(
    learning_client: FlaskClient,
    learning_settings: Settings,
    lineage: Callable[[int], None],
    photo: Pixels,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = learning_client
    monkeypatch.setenv("TELLTALE_STORAGE__INSTANCE_DIR", learning_settings.storage.instance_dir)
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", learning_settings.weights.dir)
    with learning_worker(learning_settings) as served:
        report, label = correct(client, picture(photo))
        lineage(1 if label == "fake" else 0)
        wait_until(lambda: accepted(client) == 1, SECONDS)
        result = train(client)["result"]
        assert (result["promoted"], result["parent"], result["improvements"]) == (True, "tiny", 1), result["reason"]
        wait_until(lambda: loaded(client) == result["version"], SECONDS)
        again = upload(client, picture(photo), "/api/detect?wait=1&again=1").get_json()
        assert again["model_version"] == result["version"]
        assert (again["fake_probability"] >= 0.5) == (label == "fake")
        kept = client.get(f"/api/detections/{report['id']}").get_json()
        assert (kept["model_version"], kept["fake_probability"]) == ("tiny", report["fake_probability"])
        assert kept["feedback"]["learned_version"] == result["version"]
        wait_until(lambda: corrections(client) == [("holds", result["version"])], SECONDS)
        assert main(["check-corrections"]) == 0
        assert f"{result['version']}: 0 lost, 0 open, 1 holds" in capsys.readouterr().out

        answer = client.post("/api/rl/retrain")
        assert (answer.status_code, answer.get_json()["code"]) == (422, "nothing_new")
        back = client.post("/api/rl/rollback", json={}).get_json()
        assert back == {"version": "tiny", "previous": result["version"]}
        wait_until(lambda: loaded(client) == "tiny", SECONDS)
        assert served.facts()["changes"] == 2
        before = upload(client, picture(photo), "/api/detect?wait=1&again=1").get_json()
        assert before["fake_probability"] == report["fake_probability"]
        wait_until(lambda: corrections(client) == [("lost", "tiny")], SECONDS)
        assert main(["check-corrections"]) == 1
        assert f"is {label}" in capsys.readouterr().out

    stats = client.get("/api/rl/stats").get_json()
    Stats.model_validate(stats)
    assert (stats["trainings"]["promoted"], stats["trainings"]["improvements"]) == (1, 1)
    assert [point["version"] for point in stats["golden"]] == ["tiny", result["version"]]
    versions = client.get("/api/rl/versions").get_json()
    LearnedVersions.model_validate(versions)
    assert {item["version"]: item["promoted"] for item in versions["items"]} == {
        "tiny": None, result["version"]: True,
    }  # fmt: skip
    parts: Services = client.application.extensions[EXTENSION]
    assert verify_history(parts.paths.training_history).ok


def test_a_candidate_that_learned_nothing_is_rejected_with_the_reason(
    make_app: Callable[..., Flask],
    learning_settings: Settings,
    lineage: Callable[[int], None],
    photo: Pixels,
    own_root: Path,
) -> None:
    band, sums = own_root / "tiny" / "calibration.json", own_root / "tiny" / CHECKSUMS
    band.write_text(json.dumps(Calibration((ReliabilityBin(0.0, 1.0, 100, 50),), 0.5, 0.5, {}).to_dict()))
    sums.write_text(json.dumps(json.loads(sums.read_text()) | {"calibration.json": file_sha256(band)}))
    client = make_app(learning_settings).test_client()
    with learning_worker(learning_settings):
        _, label = correct(client, picture(photo), right=True)
        lineage(1 if label == "fake" else 0)
        wait_until(lambda: accepted(client) == 1, SECONDS)
        result = train(client)["result"]
        assert (result["promoted"], result["code"]) == (False, "no_correction")
        assert loaded(client) == "tiny"
    stats = client.get("/api/rl/stats").get_json()
    assert stats["trainings"]["last_rejection"] == result["reason"]
    assert (stats["feedback"]["new"], stats["feedback"]["learned"]) == (0, 0)
    refused = client.post("/api/rl/rollback", json={"version": result["version"]})
    assert (refused.status_code, refused.get_json()["code"]) == (409, "conflict")
    page = client.get("/learning")
    assert page.status_code == 200
    assert result["reason"] in page.get_data(as_text=True).replace("&#39;", "'")


@pytest.fixture
def both_accepted(
    learning_client: FlaskClient,
    learning_settings: Settings,
    lineage: Callable[[int], None],
    speech_root: Path,
    photo: Pixels,
) -> FlaskClient:
    """A picture and a recording with an accepted vote each, and golden sets of both."""
    with learning_worker(learning_settings):
        _, label = correct(learning_client, picture(photo))
        lineage(1 if label == "fake" else 0)
        say_of_voice(learning_client, upload(learning_client, wav(voice(4.0)), "/api/detect/audio?wait=1").get_json())
        wait_until(lambda: accepted(learning_client) == 2, SECONDS)
    return learning_client


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
def test_a_part_that_can_teach_nothing_does_not_hold_up_the_other(
    both_accepted: FlaskClient, learning_settings: Settings, speech_root: Path, stale: str, failed: str, learned: str
) -> None:
    make_stale(both_accepted.application.extensions[EXTENSION], stale)
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
    both_accepted: FlaskClient, learning_settings: Settings, speech_root: Path
) -> None:
    client, parts = both_accepted, both_accepted.application.extensions[EXTENSION]
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
    both_accepted: FlaskClient, learning_settings: Settings, speech_root: Path
) -> None:
    client, replay = both_accepted, speech_root / "learning" / "s1" / "replay.safetensors"
    with learning_worker(learning_settings):
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
