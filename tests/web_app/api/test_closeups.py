"""Close-ups, heatmaps, thumbnails, versions of one file and clearing the history, over a worker with a canned look."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from tests.web_app.helpers import (
    fake_analyse,
    make_settings,
    media_bytes,
    running_worker,
    stored_files,
    upload,
    wait_until,
)
from utils.config import PageSettings, Settings
from utils.errors import MediaCorruptError, NotFoundError
from utils.types import Report
from web_app.api.detections import Versions
from web_app.api.explanations import CACHE, Closeup
from web_app.db.models import EXPLAIN, CloseupRow, JobRow
from web_app.jobs.queue import Claim
from web_app.jobs.runner import Progress, WorkerTasks
from web_app.services import Services
from web_app.worker import run_closeup

PNG = b"\x89PNG\r\n\x1a\n and so on"


def canned_look(claim: Claim, progress: Progress) -> dict[str, Any]:
    progress("explain", 0.5)
    known = {"title": "T", "method": "M", "gain": 1.0, "random_gain": 0.2, "beaten": 9, "masks": 9, "faithful": True}
    maps = [
        {**known, "expert": "cnn", "png": base64.b64encode(PNG).decode()},
        {**known, "expert": "vit", "png": None, "faithful": False},
    ]
    trial = {"code": "as_is", "title": "As it is", "outcome": "fake", "probability": 0.93, "flipped": False}
    face = claim.payload["face"]
    place = {"face": face, "frame": 0, "time_s": 0.0, "square": [1.0, 2.0, 30.0, 31.0], "model_version": "v-test"}
    return {**place, "maps": maps, "trials": [trial]}


class Looking:
    """What the worker of these tests does; the next look fails if told to."""

    fail = False

    def analyse(self, path: Path, progress: Progress) -> Report:
        path.with_name(path.name + ".thumb").write_bytes(b"\xff\xd8 small")
        return fake_analyse(path, progress)

    def look(self, claim: Claim, progress: Progress) -> dict[str, Any]:
        if self.fail:
            raise MediaCorruptError("Nothing could be decoded.")
        return canned_look(claim, progress)

    def working(self, settings: Settings) -> AbstractContextManager[object]:
        return running_worker(settings, self.analyse, tasks=WorkerTasks(foreground={EXPLAIN: self.look}))


@pytest.fixture
def worker(parts: Services, settings: Settings) -> Iterator[Looking]:
    looking = Looking()
    with looking.working(settings):
        yield looking


@pytest.fixture
def analysed(client: FlaskClient, worker: Looking) -> str:
    return str(upload(client, media_bytes(), "/api/detect?wait=1").get_json()["id"])


def closeup(client: FlaskClient, public_id: str, face: int = 0) -> dict[str, Any]:
    answer = client.get(f"/api/detections/{public_id}/closeup?face={face}")
    assert answer.status_code == 200
    Closeup.model_validate(answer.get_json())
    return dict(answer.get_json())


def look(client: FlaskClient, public_id: str) -> dict[str, Any]:
    assert client.post(f"/api/detections/{public_id}/closeup?face=0").status_code == 202
    return wait_until(lambda: (found := closeup(client, public_id))["state"] in ("done", "failed") and found)


def test_closeup_is_asked_for_followed_and_kept(client: FlaskClient, analysed: str) -> None:
    assert closeup(client, analysed)["state"] is None
    found = look(client, analysed)
    assert found["state"] == "done"
    assert found["result"]["square"] == [1.0, 2.0, 30.0, 31.0]
    cnn, vit = found["result"]["maps"]
    assert vit["heatmap"] is None
    with client.get(cnn["heatmap"]) as picture:
        assert (picture.data, picture.mimetype) == (PNG, "image/png")
        assert "sandbox" in picture.headers["Content-Security-Policy"]
        assert picture.headers["X-Content-Type-Options"] == "nosniff"
        assert picture.headers["Cache-Control"] == CACHE
    with client.get(cnn["heatmap"], headers={"If-None-Match": picture.headers["ETag"]}) as same:
        assert (same.status_code, same.data) == (304, b"")
    again = client.post(f"/api/detections/{analysed}/closeup?face=0").get_json()
    assert again == found, "asking again changes nothing"


def test_failed_closeup_says_why_and_may_be_tried_again(client: FlaskClient, analysed: str, worker: Looking) -> None:
    worker.fail = True
    found = look(client, analysed)
    assert (found["state"], found["error"]["code"]) == ("failed", "media_corrupt")
    worker.fail = False
    assert look(client, analysed)["state"] == "done"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "closeup?face=7", 404, "not_found"),
        ("GET", "closeup?face=7", 404, "not_found"),
        ("POST", "closeup?face=-1", 422, "invalid_field"),
        ("POST", "closeup", 422, "invalid_field"),
        ("GET", "heatmap?face=0&expert=cnn", 404, "not_found"),
        ("GET", "heatmap?face=0", 422, "invalid_field"),
    ],
)
def test_what_is_not_there_is_told(
    client: FlaskClient, analysed: str, method: str, path: str, status: int, code: str
) -> None:
    answer = client.open(f"/api/detections/{analysed}/{path}", method=method)
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)


def test_a_heatmap_that_nobody_asked_for_names_what_makes_it(client: FlaskClient, analysed: str) -> None:
    problem = client.get(f"/api/detections/{analysed}/heatmap?face=0&expert=cnn").get_json()
    assert (problem["code"], problem["detail"]) == ("not_found", "No heatmap was made.")
    assert f"POST /api/detections/{analysed}/closeup?face=0" in problem["remedy"]


def test_without_torch_a_closeup_is_refused_at_once(
    client: FlaskClient, analysed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.errors.find_spec", lambda name: None)
    answer = client.post(f"/api/detections/{analysed}/closeup?face=0")
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (501, "not_available")
    assert "without SERVE=1" in problem["remedy"]
    assert closeup(client, analysed)["state"] is None


def test_unfinished_analysis_has_no_closeup(client: FlaskClient) -> None:
    waiting = upload(client, media_bytes(), "/api/detect?wait=0").get_json()["id"]
    assert client.post(f"/api/detections/{waiting}/closeup?face=0").get_json()["code"] == "conflict"


def test_several_closeups_may_wait_at_once(client: FlaskClient, parts: Services, settings: Settings) -> None:
    with Looking().working(settings):
        ids = [upload(client, media_bytes(size=400 + i), "/api/detect?wait=1").get_json()["id"] for i in range(2)]
    states = [client.post(f"/api/detections/{public_id}/closeup?face=0").get_json() for public_id in ids]
    assert [(found["state"], found["position"]) for found in states] == [("queued", 0), ("queued", 1)]


def test_deleting_the_analysis_deletes_its_closeup(client: FlaskClient, analysed: str, parts: Services) -> None:
    look(client, analysed)
    assert client.delete(f"/api/detections/{analysed}").status_code == 204
    with parts.database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(CloseupRow)) == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(JobRow)) == 0
    assert stored_files(parts) == []


def test_worker_is_told_what_to_look_at(
    client: FlaskClient, analysed: str, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []

    def look_closer(path: Path, analyser: object, face: int, progress: object) -> Any:
        seen.append((path.is_file(), face))
        return SimpleNamespace(to_dict=dict)

    monkeypatch.setattr("utils.detection.closeup.look_closer", look_closer)
    served: Any = SimpleNamespace(analyser=None)
    claim = Claim(1, "closeup", "w", 1, "", EXPLAIN, {"detection": analysed, "face": 0})
    assert run_closeup(parts, served, claim, lambda stage, fraction: None) == {}
    assert seen == [(True, 0)]
    client.delete(f"/api/detections/{analysed}")
    with pytest.raises(NotFoundError):
        run_closeup(parts, served, claim, lambda stage, fraction: None)


def test_a_full_queue_takes_no_closeup(client: FlaskClient, analysed: str, parts: Services) -> None:
    parts.queue.settings = dataclasses.replace(parts.queue.settings, max_waiting=0)
    answer = client.post(f"/api/detections/{analysed}/closeup?face=0")
    assert (answer.status_code, answer.get_json()["code"]) == (429, "queue_full")
    assert closeup(client, analysed)["state"] is None


def test_closeups_can_be_switched_off(make_app: Any, tmp_path: Path) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), page=PageSettings(closeups="off"))
    client = make_app(settings).test_client()
    with Looking().working(settings):
        public_id = upload(client, media_bytes(), "/api/detect?wait=1").get_json()["id"]
    answer = client.post(f"/api/detections/{public_id}/closeup?face=0")
    assert (answer.status_code, answer.get_json()["code"]) == (501, "not_available")
    assert answer.get_json()["remedy"] == "Switch it on in config.ini."


def test_thumbnail_is_listed_and_served(client: FlaskClient, analysed: str) -> None:
    (item,) = client.get("/api/history").get_json()["items"]
    with client.get(item["thumbnail"]) as picture:
        assert (picture.mimetype, picture.data) == ("image/jpeg", b"\xff\xd8 small")
        assert "sandbox" in picture.headers["Content-Security-Policy"]


def test_history_is_searched_by_name_and_day(client: FlaskClient, worker: Looking) -> None:
    for name, size in (("Holiday 100%.png", 500), ("portrait.png", 600)):
        upload(client, media_bytes(size=size), "/api/detect?wait=1", name=name)

    def names(query: str) -> list[str]:
        return [item["name"] for item in client.get(f"/api/history?{query}").get_json()["items"]]

    assert names("text=HOLIDAY") == ["Holiday 100%.png"]
    assert names("text=%25") == ["Holiday 100%.png"], "a per cent sign is no wild card"
    today = client.get("/api/history").get_json()["items"][0]["created"][:10]
    assert len(names(f"since={today}&until={today}")) == 2
    assert names("since=2998-01-01") == []
    assert names("until=2001-01-01") == []
    assert client.get("/api/history?since=yesterday").get_json()["code"] == "invalid_field"


def test_versions_of_one_file_are_compared(client: FlaskClient, analysed: str) -> None:
    again = upload(client, media_bytes(), "/api/detect?wait=1&fresh=1").get_json()["id"]
    upload(client, media_bytes(size=700), "/api/detect?wait=1")
    answer = client.get(f"/api/detections/{analysed}/versions").get_json()
    Versions.model_validate(answer)
    assert {item["id"] for item in answer["items"]} == {again, analysed}


def test_clearing_deletes_everything_of_the_caller(client: FlaskClient, analysed: str, parts: Services) -> None:
    another = {"User-Agent": "another/1"}
    theirs = upload(client, media_bytes(size=900), "/api/detect?wait=1", headers=another).get_json()["id"]
    upload(client, media_bytes(size=800), "/api/detect?wait=0")
    answer = client.delete("/api/history")
    assert answer.get_json() == {"deleted": 2}
    left = client.get("/api/history").get_json()["items"]  # somebody at this machine sees everybody's
    assert [entry["id"] for entry in left] == [theirs]
    assert client.get(f"/api/detections/{analysed}").status_code == 404
    wait_until(lambda: len({path.stem for path in stored_files(parts)}) == 1)
