"""The whole way with tiny networks: upload, correct, learn, promoted or rejected with a reason, and back again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.feedback.conftest import learning_worker, picture
from tests.web_app.helpers import upload, wait_until
from utils.config import Settings
from utils.detection.calibration import Calibration, ReliabilityBin
from utils.feedback.history import verify_history
from utils.files import file_sha256
from utils.types import Pixels
from utils.weights import CHECKSUMS
from web_app.api.learning import LearnedVersions, Stats, Training
from web_app.cli import main
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
