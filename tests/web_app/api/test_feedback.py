"""Feedback over HTTP: labels, the log before the answer, one vote per client, and the figures."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.web_app.helpers import media_bytes, upload
from utils.feedback.feedback_log import read_feedback_log
from web_app.api.learning import Stats
from web_app.api.schemas import FeedbackState
from web_app.feedback import votes
from web_app.jobs.detections import delete_detection
from web_app.services import Services


def analysed(client: FlaskClient, order: str) -> str:
    return str(upload(client, media_bytes(order=order), "/api/detect?wait=1").get_json()["id"])


def say(client: FlaskClient, public_id: str, judgement: str = "correct", **more: Any) -> TestResponse:
    return client.post("/api/feedback", json={"id": public_id, "feedback": judgement, **more})


@pytest.mark.parametrize(
    ("order", "judgement", "given", "actual", "category"),
    [
        ("fake", "correct", None, "fake", "confirmation"),
        ("fake", "incorrect", None, "real", "false_alarm"),
        ("real", "correct", "real", "real", "confirmation"),
        ("real", "incorrect", "fake", "fake", "miss"),
        ("inconclusive", "incorrect", "real", "real", "other"),
        ("inconclusive", "correct", "fake", "fake", "other"),
    ],
)
def test_the_label_follows(
    served: FlaskClient, order: str, judgement: str, given: str | None, actual: str, category: str
) -> None:
    public_id = analysed(served, order)
    answer = say(served, public_id, judgement, **({"actual": given} if given else {}))
    assert answer.status_code == 201
    FeedbackState.model_validate(answer.get_json())
    assert (answer.get_json()["actual"], answer.get_json()["category"]) == (actual, category)
    assert served.get(f"/api/detections/{public_id}").get_json()["feedback"] == answer.get_json()


@pytest.mark.parametrize(
    ("order", "more"),
    [
        ("inconclusive", {}),
        ("no_face", {}),
        ("no_face", {"actual": "real"}),
        ("fake", {"actual": "real"}),
        ("fake", {"faces": {"7": "fake"}}),
        ("fake", {"faces": {"0": "real"}}),
        ("real", {"faces": {"0": "fake"}}),
    ],
)
def test_feedback_without_a_right_answer_is_refused(
    served: FlaskClient, parts: Services, order: str, more: dict[str, str]
) -> None:
    answer = say(served, analysed(served, order), **more)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "feedback")
    assert not parts.paths.feedback_log.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("feedback", "maybe"),
        ("actual", "no_face"),
        ("category", "rant"),
        ("note", "x" * 1001),
        ("extra", 1),
        ("faces", []),
    ],
)
def test_fields_out_of_range_are_named(served: FlaskClient, field: str, value: object) -> None:
    answer = served.post("/api/feedback", json={"id": "x", "feedback": "correct", field: value})
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_field")
    assert [fault["field"] for fault in answer.get_json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"[" * 50_000, "application/json", 400),
        (b"id=1", "application/x-www-form-urlencoded", 400),
        (b" " * 70_000, "application/json", 413),
    ],
)
def test_bodies_of_another_form_are_refused(client: FlaskClient, body: bytes, content_type: str, status: int) -> None:
    answer = client.post("/api/feedback", data=body, content_type=content_type)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")


def test_feedback_needs_a_finished_analysis(client: FlaskClient) -> None:
    assert say(client, "nix").status_code == 404
    waiting = upload(client, media_bytes("mp4")).get_json()["id"]
    assert say(client, waiting).status_code == 409


def test_the_log_has_everything(served: FlaskClient, parts: Services) -> None:
    public_id = analysed(served, "fake")
    say(served, public_id, "incorrect", note="Das bin ich! 🙂", category="other")
    (line,) = parts.paths.feedback_log.read_text(encoding="utf-8").splitlines()
    entry = json.loads(line)
    report = served.get(f"/api/detections/{public_id}").get_json()
    assert (entry["schema_version"], entry["trusted"], entry["withdrawn"]) == (2, True, False)
    assert (entry["detection_id"], entry["media_sha256"]) == (public_id, report["media"]["sha256"])
    assert (entry["prediction"], entry["fake_probability"]) == ("fake", report["fake_probability"])
    assert (entry["model_version"], entry["judgement"], entry["actual"]) == ("v-test", "incorrect", "real")
    assert (entry["category"], entry["note"]) == ("other", "Das bin ich! 🙂")


def test_nothing_is_thanked_for_that_was_not_written(served: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    public_id = analysed(served, "fake")
    monkeypatch.setattr(votes, "append_feedback", full)
    answer = say(served, public_id)
    assert (answer.status_code, answer.get_json()["code"]) == (507, "storage_full")
    assert served.get("/api/rl/stats").get_json()["feedback"]["total"] == 0


def test_a_client_has_one_vote(served: FlaskClient, parts: Services) -> None:
    public_id = analysed(served, "fake")
    say(served, public_id, "correct")
    say(served, public_id, "incorrect")
    counts = served.get("/api/rl/stats").get_json()["feedback"]
    assert (counts["total"], counts["correct"], counts["incorrect"]) == (1, 0, 1)
    assert [entry.judgement for entry in read_feedback_log(parts.paths.feedback_log).entries] == [
        "correct", "incorrect",
    ]  # fmt: skip


def test_two_browsers_have_two_votes(app: Flask, served: FlaskClient) -> None:
    public_id = analysed(served, "fake")
    for judgement in ("correct", "incorrect"):
        browser = app.test_client()
        headers = {"Sec-Fetch-Site": "same-origin"}
        first = browser.get("/api/history", headers=headers)
        assert "HttpOnly" in first.headers["Set-Cookie"]
        assert "SameSite=Lax" in first.headers["Set-Cookie"]
        answer = browser.post("/api/feedback", json={"id": public_id, "feedback": judgement}, headers=headers)
        assert answer.status_code == 201
        assert "Set-Cookie" not in answer.headers
        (item,) = browser.get("/api/history", headers=headers).get_json()["items"]
        assert item["feedback"] == judgement
    assert served.get("/api/rl/stats").get_json()["feedback"]["total"] == 2


def test_deleting_an_analysis_deletes_its_feedback(served: FlaskClient) -> None:
    public_id = analysed(served, "fake")
    say(served, public_id)
    served.delete(f"/api/detections/{public_id}")
    assert served.get("/api/rl/stats").get_json()["feedback"]["total"] == 0


def test_the_figures_are_counted(served: FlaskClient) -> None:
    empty = served.get("/api/rl/stats").get_json()
    Stats.model_validate(empty)
    assert (empty["accuracy_on_feedback"], empty["trainings"]["total"], empty["golden"]) == (None, 0, [])
    for order, judgement, more in (
        ("fake", "correct", {}),
        ("fake 2", "incorrect", {}),
        ("real", "correct", {}),
        ("inconclusive", "incorrect", {"actual": "fake"}),
    ):
        assert say(served, analysed(served, order), judgement, **more).status_code == 201
    stats = served.get("/api/rl/stats").get_json()
    Stats.model_validate(stats)
    counts = {key: stats["feedback"][key] for key in ("total", "correct", "incorrect", "by_label", "accepted")}
    assert counts == {"total": 4, "correct": 2, "incorrect": 2, "by_label": {"real": 2, "fake": 2}, "accepted": 0}
    assert stats["feedback"]["quarantined"]["waiting"] == 4
    assert stats["accuracy_on_feedback"] == pytest.approx(2 / 3)


def test_a_vote_outlives_its_analysis_and_can_still_be_withdrawn(served: FlaskClient, parts: Services) -> None:
    public_id = analysed(served, "fake")
    say(served, public_id)
    sha256 = hashlib.sha256(media_bytes(order="fake")).hexdigest()
    assert delete_detection(parts.database, parts.store, public_id)
    assert served.delete(f"/api/feedback/{public_id}").status_code == 404
    stranger = {"User-Agent": "somebody else"}
    assert served.delete(f"/api/feedback/{sha256}", headers=stranger).status_code == 404
    assert served.delete(f"/api/feedback/{sha256}").status_code == 204
    assert served.delete(f"/api/feedback/{sha256}").status_code == 404
    assert read_feedback_log(parts.paths.feedback_log).entries[-1].withdrawn


def test_a_vote_belongs_to_the_medium_and_can_be_withdrawn(served: FlaskClient, parts: Services) -> None:
    first = analysed(served, "fake")
    second = upload(served, media_bytes(order="fake"), "/api/detect?again=1&wait=1").get_json()["id"]
    assert first != second
    say(served, first, "correct")
    assert served.get(f"/api/detections/{second}").get_json()["feedback"]["feedback"] == "correct"
    say(served, second, "incorrect")
    assert served.get("/api/rl/stats").get_json()["feedback"]["total"] == 1
    assert served.delete(f"/api/feedback/{first}").status_code == 204
    assert served.get(f"/api/detections/{second}").get_json()["feedback"] is None
    assert served.delete(f"/api/feedback/{first}").status_code == 404
    log = read_feedback_log(parts.paths.feedback_log)
    assert [entry.withdrawn for entry in log.entries] == [False, False, True]
    assert log.standing() == {}


def test_faces_can_be_labelled_each(served: FlaskClient) -> None:
    public_id = analysed(served, "fake")
    assert say(served, public_id, faces={"0": "fake"}).get_json()["faces"] == {"0": "fake"}
    assert served.get(f"/api/detections/{public_id}").get_json()["feedback"]["faces"] == {"0": "fake"}
