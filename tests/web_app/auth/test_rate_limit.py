"""Rate limits: buckets, who they belong to, and that a forged X-Forwarded-For moves nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import make_settings, media_bytes, upload
from utils.config import SecuritySettings, ServerSettings
from utils.errors import RateLimitError
from web_app.api.detect import UrlRequest
from web_app.api.routing import ROUTES, UPLOAD, UPLOADS
from web_app.auth.identity import Caller
from web_app.auth.rate_limit import (
    ADDRESS_FACTOR,
    REMEMBERED,
    UPLOAD_VIEWS,
    WRONG_KEYS_PER_MINUTE,
    Limits,
    TokenBuckets,
    address_key,
)


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bucket fills while a slow machine makes its requests."""
    monkeypatch.setattr("web_app.auth.rate_limit.monotonic", lambda: 1000.0)
    monkeypatch.setattr("web_app.api.detect.WAIT_IMAGE_S", 0.0)


THERE = {"REMOTE_ADDR": "198.51.100.7"}


@pytest.fixture
def limited(make_app: Callable[..., Flask], tmp_path: Path) -> FlaskClient:
    """A server open to the network with three requests and one upload a minute."""
    settings = dataclasses.replace(
        make_settings(tmp_path),
        server=ServerSettings(host="0.0.0.0"),
        security=SecuritySettings(requests_per_minute=3, uploads_per_minute=1),
    )
    return make_app(settings).test_client()


def test_a_bucket_empties_and_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("web_app.auth.rate_limit.monotonic", lambda: now[0])
    buckets = TokenBuckets(60)
    assert [buckets.take("a") for _ in range(60)] == [0.0] * 60
    assert buckets.take("a") == pytest.approx(1.0)
    assert buckets.take("b") == 0.0
    now[0] += 1.0
    assert buckets.take("a") == 0.0
    assert buckets.take("a", 0.0) > 0


def test_no_limit_and_a_bounded_memory() -> None:
    assert [TokenBuckets(0).take("a") for _ in range(5)] == [0.0] * 5
    buckets = TokenBuckets(1)
    for number in range(REMEMBERED + 5):
        buckets.take(str(number))
    assert len(buckets._buckets) == REMEMBERED


def test_too_many_requests_are_told_when_to_come_back(limited: FlaskClient) -> None:
    answers = [limited.get("/api/history", environ_overrides=THERE) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].get_json()["code"] == "rate_limited"
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert limited.get("/api/health", environ_overrides=THERE).status_code == 200


def test_a_forged_header_and_new_cookies_do_not_move_the_limit(limited: FlaskClient) -> None:
    statuses = []
    for number in range(3 * ADDRESS_FACTOR + 2):
        limited.set_cookie("telltale_client", f"{number:032x}")
        headers = {"X-Forwarded-For": f"203.0.113.{number}", "Sec-Fetch-Site": "same-origin"}
        statuses.append(limited.get("/api/history", environ_overrides=THERE, headers=headers).status_code)
    assert statuses[: 3 * ADDRESS_FACTOR] == [200] * 3 * ADDRESS_FACTOR
    assert statuses[-2:] == [429, 429]


def test_a_refusal_costs_no_token() -> None:
    limits = Limits(SecuritySettings(requests_per_minute=1))
    for number in range(ADDRESS_FACTOR):
        limits.take("requests", Caller(f"other-{number}", frozenset()), "office")
    late = Caller("late", frozenset())
    with pytest.raises(RateLimitError):
        limits.take("requests", late, "office")
    limits.take("requests", late, "home")


@pytest.mark.parametrize(("kind", "path"), [("mp4", "/api/detect"), ("flac", "/api/detect/audio")])
def test_uploads_have_a_limit_of_their_own(limited: FlaskClient, kind: str, path: str) -> None:
    statuses = [upload(limited, media_bytes(kind), path, environ_overrides=THERE).status_code for _ in range(2)]
    assert statuses == [202, 429]
    assert limited.get("/api/history", environ_overrides=THERE).status_code == 200


def test_every_route_that_takes_a_file_counts() -> None:
    taken = {route.view.__name__ for route in ROUTES if route.body in (UPLOAD, UPLOADS, UrlRequest)}
    assert taken - {"create_webhook"} == UPLOAD_VIEWS


def test_a_url_counts_as_an_upload_and_a_form_elsewhere_does_not(limited: FlaskClient) -> None:
    form = {"data": {"x": "y"}, "content_type": "multipart/form-data"}
    assert limited.post("/api/feedback", environ_overrides=THERE, **form).status_code == 400
    urls = [limited.post("/api/detect/url", json={}, environ_overrides=THERE).status_code for _ in range(2)]
    assert urls[0] != 429
    assert urls[1] == 429


def test_each_file_of_a_batch_counts(limited: FlaskClient, tmp_path: Path) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    body = b"".join(part + media_bytes("mp4", f"sleep {number}") + b"\r\n" for number in range(3)) + b"--b--\r\n"
    answer = limited.post(
        "/api/batch", data=body, content_type="multipart/form-data; boundary=b", environ_overrides=THERE
    )
    items = answer.get_json()["items"]
    assert [item["error"] and item["error"]["code"] for item in items] == [None, "rate_limited", "rate_limited"]
    assert len([path for path in (tmp_path / "instance" / "uploads").rglob("*") if path.is_file()]) == 1


def test_somebody_at_this_machine_is_not_limited(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(requests_per_minute=1))
    client = make_app(settings).test_client()
    assert [client.get("/api/history").status_code for _ in range(5)] == [200] * 5


@pytest.mark.parametrize("in_the_form", [False, True])
def test_wrong_keys_cannot_be_tried_for_long(make_app: Callable[..., Flask], tmp_path: Path, in_the_form: bool) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(keys="on"))
    client = make_app(settings).test_client()
    wrong = f"tt_{'0' * 12}_{'0' * 48}"
    statuses = [
        client.post("/login", data={"key": wrong}).status_code
        if in_the_form
        else client.get("/api/history", headers={"Authorization": f"Bearer {wrong}"}).status_code
        for _ in range(WRONG_KEYS_PER_MINUTE + 1)
    ]
    assert statuses == [401] * WRONG_KEYS_PER_MINUTE + [429]


@pytest.mark.parametrize(
    ("address", "key"),
    [("198.51.100.7", "198.51.100.7"), ("::ffff:198.51.100.7", "198.51.100.7"), ("2001:db8::1", "2001:db8::/64"),
     ("2001:db8::2", "2001:db8::/64"), ("", "")],
)  # fmt: skip
def test_an_ipv6_customer_is_one_network(address: str, key: str) -> None:
    assert address_key(address) == key
