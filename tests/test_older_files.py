"""What the release with v5 left on the disk is still taken: settings, instance, log, features, report.

`tests/data/v5` was written by that release (commit 9952103) about the known pair: two photos analysed, feedback on
both, one of them taken back and given again, a decision, a training. The pictures themselves are put back here.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.web_app.helpers import accept_weights, make_settings
from utils.config import RETIRED, Settings, load_settings
from utils.detection.pipeline import analyse, load_analyser
from utils.detection.selftest import KNOWN_FOLDER, KNOWN_PAIR
from utils.detection.verify import claim_of, read_document, verify_report
from utils.feedback.feature_set import CachedItem
from utils.feedback.feedback_log import read_feedback_log
from utils.feedback.history import read_history, verify_history
from web_app.__main__ import main
from web_app.app import create_app
from web_app.services import EXTENSION

OLD = Path(__file__).resolve().parent / "data" / "v5"
REAL, FAKE = (picture.sha256 for picture in KNOWN_PAIR)
REPORT = json.loads((OLD / "report.json").read_text(encoding="utf-8"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a server whose instance folder is the old one."""
    instance = tmp_path / "instance"
    shutil.copytree(OLD / "folder", instance)
    with sqlite3.connect(instance / "telltale.sqlite3") as database:
        database.executescript((OLD / "database.sql").read_text(encoding="utf-8"))
        stored = dict(database.execute("SELECT sha256, stored_name FROM media"))
    database.close()
    for picture in KNOWN_PAIR:
        place = instance / "uploads" / stored[picture.sha256]
        place.parent.mkdir(parents=True)
        shutil.copy(KNOWN_FOLDER / picture.file, place)
    return make_settings(tmp_path)


def test_the_configuration_starts_a_server(caplog: pytest.LogCaptureFixture) -> None:
    read = load_settings(OLD / "config.ini", {}, complete=True)
    assert (read.server.port, read.detection.threshold, read.learning.quorum) == (5000, 0.5, 3)
    told = [record.getMessage() for record in caplog.records]
    assert all(any(f"[{section}] {key} is" in line for section, key in RETIRED) for line in told)
    assert len(told) == len(RETIRED)


def test_the_instance_folder_is_served(settings: Settings) -> None:
    app = create_app(settings, verify=accept_weights)
    client = app.test_client()
    client.environ_base["HTTP_USER_AGENT"] = "Python-urllib/3.11"  # of who gave the feedback, and so known again
    try:
        items = client.get("/api/history").get_json()["items"]
        assert [(item["sha256"], item["prediction"]) for item in items] == [(FAKE, "inconclusive"), (REAL, "real")]
        detection = client.get(f"/api/detections/{REPORT['id']}").get_json()
        assert detection["fake_probability"] == REPORT["analysis"]["fake_probability"]
        assert detection["feedback"]["note"] == "A note of v5's time: ä"
        assert detection["feedback"]["state"] == "replaced"
        now = client.get(f"/api/detections/{REPORT['id']}/report").get_json()
        assert now["analysis"]["faces"] == REPORT["analysis"]["faces"]
        media = client.get(f"/api/detections/{REPORT['id']}/media")  # its copy without metadata has to be made first
        assert (media.status_code, media.get_json()["code"]) == (503, "unavailable")
        stats = client.get("/api/rl/stats").get_json()
        assert (stats["feedback"]["total"], stats["feedback"]["quarantined"]["replaced"]) == (2, 1)
        assert (stats["trainings"]["total"], stats["trainings"]["chain_intact"]) == (1, True)
        review = client.get("/api/rl/review?state=all").get_json()
        assert {item["media_sha256"] for item in review["items"]} == {REAL, FAKE}
    finally:
        app.extensions[EXTENSION].close()


def test_the_log_and_the_rows_agree(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TELLTALE_STORAGE__INSTANCE_DIR", settings.storage.instance_dir)
    assert main(["rebuild"]) == 0
    assert capsys.readouterr().out.startswith("2 votes stand; 0 rows written, 0 removed")


@pytest.mark.parametrize("schema", [1, 2])
def test_the_feedback_log_is_read(tmp_path: Path, schema: int) -> None:
    lines = [json.loads(line) for line in (OLD / "folder" / "feedback_log.jsonl").read_text("utf-8").splitlines()]
    if schema == 1:  # of before withdrawals, labels per face and decisions
        later = {"face_labels", "trusted", "withdrawn"}
        kept = [line for line in lines if "kind" not in line and not line["withdrawn"]]
        lines = [{k: v for k, v in line.items() if k not in later} | {"schema_version": 1} for line in kept]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    log = read_feedback_log(path)
    assert log.damaged == ()
    assert {entry.media_sha256: entry.actual for entry in log.standing().values()} == {REAL: "real", FAKE: "fake"}
    assert len(log.decisions) == (schema == 2)


def test_features_and_history_are_read() -> None:
    item = CachedItem.load(OLD / "folder" / "features" / REAL / "deciding.npz")
    assert item.as_features(label=0, source="x", key=REAL).tokens.shape == (1, 4, 1536)
    assert np.isnan(item.logits).tolist() == [False, False, False, True]
    assert len(item.experts) == 64
    path = OLD / "folder" / "rl_training_history.jsonl"
    assert [entry["event"] for entry in read_history(path).entries] == ["training"]
    assert verify_history(path).ok


def test_the_report_is_read_and_replayed(
    tmp_path: Path, tiny_root: Path, settings_for: Callable[..., Settings]
) -> None:
    claim = claim_of(read_document(OLD / "report.json")[0], "report")
    assert (claim.model_version, claim.sha256, claim.outcome) == ("v5", REAL, "real")
    own = settings_for(tiny_root)
    found = analyse(KNOWN_FOLDER / KNOWN_PAIR[0].file, load_analyser(own))
    report: dict[str, Any] = json.loads(json.dumps(REPORT))  # as if the tiny version had made it
    report["model"] = {"version": found.model_version, "sha256": found.model_sha256}
    report["settings"] |= {"engine": "torch", "precision": found.settings["precision"]}
    report["analysis"]["verdict"] |= {
        "outcome": found.verdict.outcome.value,
        "probability": found.verdict.probability,
    }
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    replay = verify_report(tmp_path / "report.json", KNOWN_FOLDER / KNOWN_PAIR[0].file, own)
    assert replay.reproduced
    assert replay.found is not None
    assert replay.found.faces == found.faces
