"""Guards: cross-site requests, headers, client ids, and the secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.web_app.helpers import media_bytes, upload
from web_app.security import load_secret

UNSAFE = (
    ("POST", "/api/detect"),
    ("POST", "/api/feedback"),
    ("DELETE", "/api/jobs/x"),
    ("DELETE", "/api/detections/x"),
)


@pytest.mark.parametrize(("method", "path"), UNSAFE)
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
    ],
)
def test_other_sites_change_nothing(client: FlaskClient, method: str, path: str, headers: dict[str, str]) -> None:
    answer = client.open(path, method=method, headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (403, "cross_site")


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


def test_programs_get_no_cookie(client: FlaskClient) -> None:
    assert "Set-Cookie" not in client.get("/api/history").headers


def test_a_made_up_cookie_is_replaced(client: FlaskClient) -> None:
    client.set_cookie("telltale_client", "../../etc/passwd")
    answer = client.get("/api/history", headers={"Sec-Fetch-Site": "same-origin"})
    assert "telltale_client=" in answer.headers["Set-Cookie"]


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert load_secret(path) == load_secret(path)
    assert len(load_secret(path)) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
