"""Who may do what: scopes on every route, other people's things answer 404, sessions of the page."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import job_state, make_settings, media_bytes, running_worker, upload, wait_until
from utils.config import SecuritySettings, ServerSettings, Settings
from web_app.api.explanations import FaceQuery, HeatmapQuery
from web_app.api.routing import ROUTES
from web_app.auth.keys import create_key, revoke_key
from web_app.auth.login import safe_path
from web_app.services import EXTENSION, Services

QUERIES = {FaceQuery: "?face=0", HeatmapQuery: "?face=0&expert=cnn"}
OWN_ROUTES = [
    (route.method, f"/api{route.path}{QUERIES.get(route.query, '')}")
    for route in ROUTES
    if route.path.startswith(("/jobs/<id>", "/detections/<id>"))
]
"""Every route that is about one analysis."""

SESSION_COOKIE = "telltale_session"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(keys="on"))


@pytest.fixture
def key_of(parts: Services) -> Callable[..., dict[str, str]]:
    """Makes a key with these scopes; gives the header that shows it."""

    def make(*scopes: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {create_key(parts.database, 'test', scopes)}"}

    return make


@pytest.fixture
def analysed(app: Flask, settings: Settings, key_of: Callable[..., dict[str, str]]) -> dict[str, Any]:
    """A finished analysis of Ann's."""
    ann, client = key_of("analyse", "feedback"), app.test_client()
    with running_worker(settings):
        answer = upload(client, media_bytes("mp4"), "/api/detect?wait=1", headers=ann)
        assert answer.status_code == 200, answer.get_data(as_text=True)
    return {"id": answer.get_json()["id"], "headers": ann}


@pytest.mark.parametrize(("method", "path"), OWN_ROUTES)
def test_what_is_somebody_elses_answers_404(
    client: FlaskClient, analysed: dict[str, Any], key_of: Callable[..., dict[str, str]], method: str, path: str
) -> None:
    bob = key_of("analyse", "feedback", "moderate")
    theirs = client.open(path.replace("<id>", analysed["id"]), method=method, headers=bob)
    nothing = client.open(path.replace("<id>", "0" * 32), method=method, headers=bob)
    for answer in (theirs, nothing):
        assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
    assert theirs.get_json()["detail"] == nothing.get_json()["detail"]
    assert client.get(f"/api/detections/{analysed['id']}", headers=analysed["headers"]).status_code == 200


def test_feedback_on_somebody_elses_analysis_answers_404(
    client: FlaskClient, analysed: dict[str, Any], key_of: Callable[..., dict[str, str]]
) -> None:
    said = {"id": analysed["id"], "feedback": "correct"}
    assert client.post("/api/feedback", json=said, headers=key_of("feedback")).status_code == 404
    assert client.post("/api/feedback", json=said, headers=analysed["headers"]).status_code == 201


def test_the_history_shows_ones_own_and_all_to_an_administrator(
    client: FlaskClient, analysed: dict[str, Any], key_of: Callable[..., dict[str, str]]
) -> None:
    def total(headers: dict[str, str]) -> int:
        return int(client.get("/api/history", headers=headers).get_json()["total"])

    assert (total(analysed["headers"]), total(key_of("analyse")), total(key_of("analyse", "admin"))) == (1, 0, 1)


def test_an_administrator_reaches_everything(
    client: FlaskClient, analysed: dict[str, Any], key_of: Callable[..., dict[str, str]]
) -> None:
    admin, place = key_of("analyse", "admin"), f"/api/detections/{analysed['id']}"
    for method, path, status in (
        ("GET", "", 200),
        ("GET", "/media", 503),
        ("GET", "/report", 200),
        ("DELETE", "", 204),
    ):
        with client.open(place + path, method=method, headers=admin) as answer:
            assert answer.status_code == status, path  # 503: this worker makes no copies of files


def test_a_page_leads_to_the_form_and_a_key_opens_it(client: FlaskClient, parts: Services) -> None:
    away = client.get("/history")
    assert (away.status_code, away.headers["Location"]) == (303, "/login?next=/history")
    assert client.get("/cases?add=1").headers["Location"] == "/login?next=/cases?add%3D1"
    assert safe_path("/cases?add=1") == "/cases?add=1"
    assert client.post("/login", data={"key": "tt_wrong", "next": "/history"}).status_code == 401
    whole = create_key(parts.database, "desk", ["analyse"])
    answer = client.post("/login", data={"key": whole, "next": "/history"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/history")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert whole.rpartition("_")[2] not in cookie
    assert client.get("/history").status_code == 200
    assert client.get("/api/history").status_code == 200
    revoke_key(parts.database, whole.split("_")[1])
    assert client.get("/api/history").status_code == 401


def test_signing_out_ends_the_session_of_this_browser(app: Flask, parts: Services) -> None:
    whole = create_key(parts.database, "desk", ["analyse"])
    here, there = app.test_client(), app.test_client()
    for client in (here, there):
        client.post("/login", data={"key": whole})
    assert here.post("/logout").status_code == 303
    assert here.get_cookie(SESSION_COOKIE) is None
    assert [client.get("/api/history").status_code for client in (here, there)] == [401, 200]


def test_a_session_ends_twelve_hours_after_signing_in(
    client: FlaskClient, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    client.post("/login", data={"key": create_key(parts.database, "desk", ["analyse"])})
    cookie = client.get_cookie(SESSION_COOKIE)
    assert cookie is not None
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 12 * 3600 - 60)
    assert "Set-Cookie" not in client.get("/history").headers  # looking at pages does not make it last longer
    assert client.get("/api/history", headers={"Cookie": f"{SESSION_COOKIE}={cookie.value}"}).status_code == 200
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 12 * 3600 + 60)
    assert client.get("/api/history", headers={"Cookie": f"{SESSION_COOKIE}={cookie.value}"}).status_code == 401


def test_a_session_that_another_server_has_signed_is_worth_nothing(
    app: Flask, client: FlaskClient, parts: Services
) -> None:
    whole = create_key(parts.database, "desk", ["analyse"])
    app.secret_key = b"another"
    client.post("/login", data={"key": whole})
    assert client.get("/api/history").status_code == 200
    app.secret_key = parts.secret
    assert client.get("/api/history").status_code == 401


def test_the_cookie_stays_below_the_path_and_over_tls(app: Flask, parts: Services) -> None:
    answer = app.test_client().post(
        "/login", data={"key": create_key(parts.database, "desk", ["analyse"])}, base_url="https://localhost",
        environ_overrides={"SCRIPT_NAME": "/telltale"},
    )  # fmt: skip
    cookie = answer.headers["Set-Cookie"]
    assert all(part in cookie for part in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/telltale"))


@pytest.mark.parametrize("token", ["", "...", "0" * 64, "\xff.00"])
def test_a_session_that_nobody_opened_is_worth_nothing(client: FlaskClient, parts: Services, token: str) -> None:
    create_key(parts.database, "desk", ["analyse"])
    answer = client.get("/api/history", headers={"Cookie": f"{SESSION_COOKIE}={token}"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "", "a", "/a\r\nX: y"],
)
def test_the_form_leads_to_our_own_pages_only(target: str) -> None:
    path = safe_path(target)
    assert path.startswith("/")
    assert not path.startswith("//")
    assert "evil" not in path.split("/")[1]
    assert "\n" not in path


def test_from_another_machine_without_keys_nobody_is_an_administrator(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    client = make_app(dataclasses.replace(make_settings(tmp_path), server=ServerSettings(host="0.0.0.0"))).test_client()
    here, there = {"REMOTE_ADDR": "198.51.100.7"}, {"REMOTE_ADDR": "198.51.100.8"}
    public_id = upload(client, media_bytes("mp4"), environ_overrides=here).get_json()["id"]
    assert client.get(f"/api/jobs/{public_id}", environ_overrides=here).status_code == 200
    assert client.get(f"/api/jobs/{public_id}", environ_overrides=there).status_code == 404
    assert client.get("/api/history", environ_overrides=there).get_json()["total"] == 0
    assert client.get("/metrics", environ_overrides=here).status_code == 403


def test_two_browsers_without_keys_see_their_own(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    app = make_app(dataclasses.replace(make_settings(tmp_path), server=ServerSettings(host="0.0.0.0")))
    first, second = app.test_client(), app.test_client()
    for browser in (first, second):
        assert "telltale_client=" in browser.get("/").headers["Set-Cookie"]
    public_id = upload(first, media_bytes("mp4")).get_json()["id"]
    assert job_state(first, public_id) == "queued"
    assert second.get(f"/api/jobs/{public_id}").status_code == 404
    wait_until(lambda: app.extensions[EXTENSION].database.engine.pool.checkedout() == 0)
