"""Recordings through the API: their route, what a missing network says, history, feedback, reports."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.api.test_reports import pdf_text, report
from tests.web_app.helpers import choose_speech, make_settings, media_bytes, running_worker, upload
from utils.config import Settings
from utils.weights import CURRENT, SPEECH_FOLDER
from web_app.paths import ROOT

AUDIO = "/api/detect/audio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return dataclasses.replace(make_settings(tmp_path), weights=choose_speech(tmp_path / "weights"))


def test_a_recording_is_answered_at_once(served: FlaskClient) -> None:
    answer = upload(served, media_bytes("flac", "fake"), AUDIO, name="voice.flac")
    assert answer.status_code == 200, answer.get_json()
    said = answer.get_json()
    assert (said["media"]["kind"], said["prediction"], said["faces"]) == ("audio", "fake", [])
    assert said["speech"]["windows"][1] == {"start_s": 1.0, "end_s": 3.0, "probability": 0.93}
    assert said["speech"]["model_version"] == "s-test"


def test_any_route_but_the_others_takes_it(served: FlaskClient) -> None:
    assert upload(served, media_bytes("flac", "real"), "/api/detect").get_json()["prediction"] == "real"
    refused = upload(served, media_bytes("flac"), "/api/detect/image")
    assert (refused.status_code, refused.get_json()["route"]) == (415, "/api/detect/audio")
    refused = upload(served, media_bytes("png"), AUDIO)
    assert (refused.status_code, refused.get_json()["code"]) == (415, "unsupported_media")
    assert "takes recordings" in refused.get_json()["detail"]


def test_a_container_of_video_may_hold_sound_alone(served: FlaskClient) -> None:
    said = upload(served, media_bytes("mp4", "fake alone"), f"{AUDIO}?wait=1", name="memo.mp4").get_json()
    assert said["media"]["kind"] == "audio"
    (item,) = served.get("/api/history?kind=audio").get_json()["items"]
    assert (item["id"], item["kind"], item["overall"]) == (said["id"], "audio", None)
    assert item["speech_version"] == "s-test"
    (item,) = served.get(f"/api/detections/{said['id']}/versions").get_json()["items"]
    assert item["speech_version"] == "s-test"
    (line,) = csv.DictReader(io.StringIO(served.get("/api/history.csv").text))
    assert (line["voice"], line["speech_version"]) == ("fake", "s-test")
    assert served.get("/api/history?kind=video").get_json()["items"] == []


def test_without_weights_of_speech_the_route_says_so_and_faces_go_on(
    make_app: Callable[..., Flask], tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / "weights" / SPEECH_FOLDER / CURRENT).unlink()
    app = make_app(settings)
    with running_worker(settings):
        client = app.test_client()
        refused = upload(client, media_bytes("flac"), AUDIO)
        assert (refused.status_code, refused.get_json()["code"]) == (503, "weights_missing")
        assert refused.get_json()["remedy"]
        assert upload(client, media_bytes("png", "real"), "/api/detect").status_code == 200


def test_new_weights_of_speech_judge_a_file_again(served: FlaskClient, tmp_path: Path) -> None:
    first = upload(served, media_bytes("flac"), AUDIO).get_json()["id"]
    assert upload(served, media_bytes("flac"), AUDIO).get_json()["id"] == first
    (tmp_path / "weights" / SPEECH_FOLDER / CURRENT).write_text("s2\n", encoding="utf-8")
    assert upload(served, media_bytes("flac"), AUDIO).get_json()["id"] != first


@pytest.fixture
def film(served: FlaskClient) -> str:
    """A video of a real face with a fake voice."""
    return str(upload(served, media_bytes("mp4", "real fake"), "/api/detect?wait=1", name="film.mp4").get_json()["id"])


def test_a_fake_voice_on_a_real_face_is_named_so_and_found_in_the_history(served: FlaskClient, film: str) -> None:
    said = served.get(f"/api/detections/{film}").get_json()
    assert (said["prediction"], said["speech"]["verdict"]["outcome"], said["overall"]["outcome"]) == (
        "real",
        "fake",
        "fake",
    )
    assert said["overall"]["reasons"][0]["code"] == "fake_voice"
    upload(served, media_bytes("png", "inconclusive"), "/api/detect")
    for wanted in ("fake", "real"):
        (item,) = served.get(f"/api/history?prediction={wanted}").get_json()["items"]
        assert (item["id"], item["prediction"], item["overall"]) == (film, "real", "fake")


def test_every_form_of_the_report_names_face_voice_and_both(served: FlaskClient, film: str) -> None:
    document = json.loads(report(served, film))
    published = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(published).validate(document)
    html, pdf = report(served, film, "html").decode(), pdf_text(report(served, film, "pdf"))
    for text in (html, " ".join(pdf.split())):
        for wanted in ("Faces and voice together", "the voice sounds made", "3.2 of 4.0 s", "0.0 to 4.0 s", "s-test"):
            assert wanted in text
        assert text.index("Faces and voice together") < text.index("Faces: A headline.")
    assert html.count('class="window"') == 3
    (row,) = csv.DictReader(io.StringIO(served.get("/api/history.csv").text))
    assert (row["outcome"], row["voice"], row["voice_probability"], row["overall"]) == ("real", "fake", "0.93", "fake")


def test_a_recording_has_all_reports(served: FlaskClient) -> None:
    public_id = upload(served, media_bytes("flac", "real"), AUDIO).get_json()["id"]
    html, pdf = report(served, public_id, "html").decode(), pdf_text(report(served, public_id, "pdf"))
    for text in (html, " ".join(pdf.split())):
        assert "44,100 Hz, 2 channels" in text
        assert "pixels" not in text
        assert "0 × 0" not in text


def test_feedback_on_a_voice_is_kept_and_nothing_is_promised_where_voices_cannot_be_learned(
    served: FlaskClient,
) -> None:
    public_id = upload(served, media_bytes("flac", "fake"), AUDIO).get_json()["id"]
    answer = served.post("/api/feedback", json={"id": public_id, "feedback": "incorrect"})
    assert (answer.status_code, answer.get_json()["actual"]) == (201, "real")
    assert answer.get_json()["outlook"] == "not_learned", "the version of speech has no golden set"
    (item,) = served.get("/api/history").get_json()["items"]
    assert (item["feedback"], item["outlook"]) == ("incorrect", "not_learned")


def test_where_nobody_speaks_there_is_nothing_to_say_right_or_wrong_to(served: FlaskClient) -> None:
    said = upload(served, media_bytes("flac", "no_speech"), AUDIO).get_json()
    assert (said["prediction"], said["fake_probability"]) == ("no_speech", None)
    refused = served.post("/api/feedback", json={"id": said["id"], "feedback": "incorrect", "actual": "real"})
    assert (refused.status_code, refused.get_json()["code"]) == (422, "feedback")
    assert "No speech" in refused.get_json()["detail"]
    (item,) = served.get("/api/history?prediction=no_speech").get_json()["items"]
    assert item["id"] == said["id"]
