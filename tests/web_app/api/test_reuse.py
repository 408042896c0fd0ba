"""Repeated uploads, Idempotency-Key, uploads that are not kept, and answers that a client has already."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import clean_up, make_settings, media_bytes, stored_files, upload, wait_until
from web_app.db.models import DetectionRow, JobRow, MediaRow, utc_now
from web_app.services import Services


def rows(parts: Services) -> int:
    with parts.database.read() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(DetectionRow)) or 0


def test_the_same_file_is_analysed_once(served: FlaskClient, parts: Services) -> None:
    first = upload(served, media_bytes())
    second = upload(served, media_bytes())
    assert first.get_json()["id"] == second.get_json()["id"]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert [notice["code"] for notice in first.get_json()["notices"]] == []
    assert [notice["code"] for notice in second.get_json()["notices"]] == ["repeated"]
    assert rows(parts) == 1


def test_a_file_can_be_analysed_again(served: FlaskClient, parts: Services) -> None:
    ids = {upload(served, media_bytes(), f"/api/detect{query}").get_json()["id"] for query in ("", "?again=1")}
    assert len(ids) == rows(parts) == 2


def test_a_waiting_analysis_is_the_answer_too(client: FlaskClient, parts: Services) -> None:
    first, second = (upload(client, media_bytes("mp4")) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.get_json()["id"] == second.get_json()["id"]
    assert [each.get_json()["repeated"] for each in (first, second)] == [False, True]
    assert rows(parts) == 1


def test_a_failed_analysis_is_made_anew(served: FlaskClient, parts: Services) -> None:
    ids = {upload(served, media_bytes(order="corrupt")).get_json()["id"] for _ in range(2)}
    assert len(ids) == 2


def test_another_caller_gets_an_analysis_of_their_own(served: FlaskClient) -> None:
    ids = {
        upload(served, media_bytes(), headers={"User-Agent": agent}).get_json()["id"] for agent in ("one/1", "two/1")
    }
    assert len(ids) == 2


def test_other_settings_and_versions_answer_anew(
    make_app: Callable[..., Flask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = make_settings(tmp_path)
    stricter = dataclasses.replace(usual, detection=dataclasses.replace(usual.detection, threshold=0.7))
    ids = [
        upload(make_app(each).test_client(), media_bytes("mp4")).get_json()["id"] for each in (usual, stricter, usual)
    ]
    assert ids[0] == ids[2] != ids[1]
    monkeypatch.setattr("web_app.api.detect.current_version", lambda settings: "another")
    client = make_app(usual).test_client()
    ids += [upload(client, media_bytes("mp4")).get_json()["id"] for _ in range(2)]
    assert ids[2] != ids[3] == ids[4]


def test_a_key_gives_the_same_analysis_also_after_a_failure(served: FlaskClient) -> None:
    headers = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    answers = [upload(served, media_bytes(order="corrupt"), headers=headers) for _ in range(2)]
    assert answers[0].get_json()["id"] == answers[1].get_json()["id"]


def test_a_key_and_again_give_one_new_analysis(served: FlaskClient) -> None:
    first = upload(served, media_bytes()).get_json()["id"]
    headers = {"Idempotency-Key": "k"}
    again = [upload(served, media_bytes(), "/api/detect?again=1", headers=headers).get_json()["id"] for _ in range(2)]
    assert first != again[0] == again[1]


def test_a_key_belongs_to_one_file(served: FlaskClient, parts: Services) -> None:
    headers = {"Idempotency-Key": "k"}
    upload(served, media_bytes(order="real"), headers=headers)
    answer = upload(served, media_bytes(order="fake"), headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "idempotency_key")
    assert len(stored_files(parts)) == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_strange_key_is_refused(client: FlaskClient, key: str) -> None:
    answer = upload(client, media_bytes(), headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("order", ["fake", "corrupt"])
def test_nothing_is_kept_when_that_is_asked_for(served: FlaskClient, parts: Services, order: str) -> None:
    answer = upload(served, media_bytes(order=order), "/api/detect/image?keep=0")
    assert answer.status_code == (200 if order == "fake" else 422)
    assert rows(parts) == 0
    assert stored_files(parts) == []
    with parts.database.read() as session:
        assert session.scalars(sa.select(MediaRow)).all() == session.scalars(sa.select(JobRow)).all() == []


def test_what_is_not_to_be_kept_leaves_what_is(served: FlaskClient, parts: Services) -> None:
    kept = upload(served, media_bytes()).get_json()["id"]
    assert upload(served, media_bytes(), "/api/detect/image?keep=0").get_json()["id"] != kept
    assert served.get(f"/api/detections/{kept}").status_code == 200
    assert len(stored_files(parts)) == 1


def test_an_upload_stays_whatever_fails_once_its_row_is_written(
    client: FlaskClient, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_job: int, _queue: str) -> bool:
        raise TypeError("nobody foresaw it")

    monkeypatch.setattr(parts.queue, "sender", SimpleNamespace(send=broken))
    assert upload(client, media_bytes("mp4")).status_code == 202
    assert rows(parts) == len(stored_files(parts)) == 1


def test_what_a_killed_request_left_is_cleaned_up(client: FlaskClient, parts: Services) -> None:
    upload(client, media_bytes("mp4", "real"))
    upload(client, media_bytes("mp4"))
    with parts.database.write() as session:
        newest = session.scalars(sa.select(DetectionRow).order_by(DetectionRow.job_id.desc())).first()
        assert newest is not None
        newest.expires_at = utc_now() - dt.timedelta(minutes=1)
    assert len(client.get("/api/history").get_json()["items"]) == 1
    assert clean_up(parts, 0, utc_now()) == 1
    assert (rows(parts), len(stored_files(parts))) == (1, 1)


@pytest.mark.parametrize("query", ["again=2", "keep=no", "wait=yes"])
def test_flags_are_0_or_1(client: FlaskClient, query: str) -> None:
    answer = upload(client, media_bytes(), f"/api/detect?{query}")
    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("path", ["detections/{id}", "history", "detections/{id}/report", "openapi.json"])
def test_what_a_client_has_is_not_sent_again(served: FlaskClient, path: str) -> None:
    public_id = upload(served, media_bytes()).get_json()["id"]
    first = served.get(f"/api/{path.format(id=public_id)}")
    same = {"If-None-Match": first.headers["ETag"]}
    again = served.get(f"/api/{path.format(id=public_id)}", headers=same)
    assert (again.status_code, again.data) == (304, b"")
    assert "no-cache" in first.headers["Cache-Control"]
    if path in ("history", "detections/{id}"):
        served.post("/api/feedback", json={"id": public_id, "feedback": "correct"})
        assert served.get(f"/api/{path.format(id=public_id)}", headers=same).status_code == 200


def test_both_prefixes_answer_and_name_their_own(served: FlaskClient) -> None:
    short = upload(served, media_bytes("mp4"), "/api/detect").get_json()
    wait_until(lambda: served.get(short["links"]["detection"]).status_code == 200)
    long = served.get(f"/api/v1/detections/{short['id']}").get_json()
    assert short["links"]["job"] == f"/api/jobs/{short['id']}"
    assert long["links"]["job"] == f"/api/v1/jobs/{short['id']}"
    assert served.get(long["links"]["job"]).get_json()["state"] == "done"
    assert served.get("/api/v1/nix").get_json()["code"] == "not_found"
