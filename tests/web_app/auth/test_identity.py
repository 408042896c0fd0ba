"""Guards: cross-site requests, headers, client ids, and the secret."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import make_settings, media_bytes, stored_files, upload
from web_app.auth.identity import SAFE_METHODS
from web_app.services import Services

OTHER_SITES = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
)


@pytest.mark.parametrize("headers", OTHER_SITES)
def test_other_sites_change_nothing_on_any_route(app: Flask, client: FlaskClient, headers: dict[str, str]) -> None:
    asked = 0
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<int:\w+>", "0", rule.rule)
        path = re.sub(r"<[\w:]+>", "x", path)
        for method in (rule.methods or set()) - SAFE_METHODS:
            answer = client.open(path, method=method, headers=headers)
            assert (answer.status_code, answer.get_json()["code"]) == (403, "cross_site"), (method, path)
            asked += 1
    assert asked > 10


def test_an_extension_passes_with_a_key_which_no_page_may_add(client: FlaskClient) -> None:
    """Such a header needs leave by CORS; no answer to the question for it gives any."""
    from_extension = {"Sec-Fetch-Site": "cross-site", "Authorization": "Bearer tt_x"}
    assert client.post("/api/detect", headers=from_extension).get_json()["code"] == "bad_request"
    by_itself = {"Sec-Fetch-Site": "cross-site", "Authorization": "Basic YTpi"}  # a browser's, for a proxy's password
    assert client.post("/api/detect", headers=by_itself).get_json()["code"] == "cross_site"
    asking = {"Origin": "https://evil.example", "Access-Control-Request-Headers": "authorization"}
    for path in ("/api/detect", "/api/v1/history", "/"):
        answer = client.options(path, headers={**asking, "Access-Control-Request-Method": "POST"})
        assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://localhost"}]
)
def test_the_own_page_and_programs_pass(client: FlaskClient, headers: dict[str, str]) -> None:
    assert upload(client, media_bytes("mp4"), headers=headers).status_code == 202


def test_other_sites_may_read_what_is_public(client: FlaskClient) -> None:
    assert client.get("/api/health", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize("path", ["/api/health", "/api/nothing", "/nothing"])
def test_every_answer_has_the_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    for part in (
        "default-src 'self'", "img-src 'self' blob: data:", "media-src 'self' blob:", "object-src 'none'",
        "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'",
    ):  # fmt: skip
        assert part in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["X-Frame-Options"] == "DENY"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "Strict-Transport-Security" not in headers


def test_over_tls_cookies_and_connections_stay_there(client: FlaskClient) -> None:
    answer = client.get("/", base_url="https://localhost")
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
    cookie = answer.headers["Set-Cookie"]
    assert all(part in cookie for part in ("Secure", "HttpOnly", "SameSite=Lax"))


def test_programs_get_no_cookie(client: FlaskClient) -> None:
    assert "Set-Cookie" not in client.get("/api/history").headers


def test_an_id_that_we_have_not_signed_is_replaced(client: FlaskClient) -> None:
    browser = {"Sec-Fetch-Site": "same-origin"}
    client.get("/api/history", headers=browser)
    ours = client.get_cookie("telltale_client")
    assert ours is not None
    assert "Set-Cookie" not in client.get("/api/history", headers=browser).headers
    victim = ours.value.partition(".")[0]
    for forged in (
        "../../etc/passwd",
        victim,
        f"{victim}.",
        f"{victim}.{'0' * 64}",
        f"{'0' * 32}.{ours.value.partition('.')[2]}",
        "\xe4.\xe4",
    ):
        client.set_cookie("telltale_client", forged)
        cookie = client.get("/api/history", headers=browser).headers["Set-Cookie"]
        assert victim not in cookie


def test_no_route_serves_the_instance_folder(app: Flask, client: FlaskClient, parts: Services) -> None:
    assert upload(client, media_bytes(), "/api/detect?wait=0").status_code == 202
    found = [path for path in parts.paths.instance.rglob("*") if path.is_file()]
    assert {"secret", "telltale.sqlite3"} <= {path.name for path in found}
    asked = 0
    for path in found:
        inside = path.relative_to(parts.paths.instance).as_posix()
        up = "/".join([".."] * (len(Path(app.static_folder or "").parts)))
        for place in (
            f"/instance/{inside}", f"/{inside}", f"/static/{inside}", f"/static/../../instance/{inside}",
            f"/static/{up}{path}", f"/static/{path}", f"/static/%2e%2e/%2e%2e/instance/{inside}",
        ):  # fmt: skip
            with client.get(place, follow_redirects=True) as answer:
                assert answer.status_code == 404, place
            asked += 1
    assert asked >= 3 * 7


def test_the_instance_folder_is_private(client: FlaskClient, parts: Services) -> None:
    assert upload(client, media_bytes(), "/api/detect?wait=0").status_code == 202
    inside = [parts.paths.instance, *parts.paths.instance.rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in inside if path.is_dir()} == {0o700}
    stored = stored_files(parts)
    assert {path.stat().st_mode & 0o777 for path in (*stored, parts.paths.secret)} == {0o600}


def test_the_secret_is_made_once(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    first, second = (make_app(settings).extensions["telltale"].secret for _ in range(2))
    assert first == second
    assert len(first) == 32
