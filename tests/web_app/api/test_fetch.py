"""URL input: off by default; on, a file from an address is analysed like an upload, within all limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import make_settings, media_bytes, running_worker
from tests.web_app.integrations.test_http_client import LOCAL, answer, by_table, serving
from utils.config import ApiSettings
from web_app.integrations.http_client import Rules
from web_app.services import EXTENSION


@pytest.fixture
def fetching(make_app: Callable[..., Flask], tmp_path: Path) -> Iterator[FlaskClient]:
    """A client of a server that fetches, from this machine too, with a worker behind it."""
    settings = dataclasses.replace(make_settings(tmp_path), api=ApiSettings(url_input="on", url_timeout_s=5))
    app = make_app(settings)
    parts = app.extensions[EXTENSION]
    app.extensions[EXTENSION] = dataclasses.replace(parts, outbound=Rules(LOCAL, by_table))
    with running_worker(settings):
        yield app.test_client()


def test_it_is_off_by_default(client: FlaskClient) -> None:
    found = client.post("/api/detect/url", json={"url": "http://example.org/a.png"})
    assert (found.status_code, found.get_json()["code"]) == (501, "not_available")


def test_a_file_is_fetched_and_analysed(fetching: FlaskClient) -> None:
    with serving(answer(media_bytes(order="real"), Content_Type="text/html")) as place:
        found = fetching.post("/api/detect/url", json={"url": f"http://{place}/folder/my%20photo.png?size=large"})
    assert (found.status_code, found.get_json()["prediction"]) == (200, "real")
    shown = fetching.get(f"/api/detections/{found.get_json()['id']}").get_json()
    assert shown["name"] == "my photo.png"


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (answer(b"<html>no picture</html>", Content_Type="image/png"), "unsupported_media"),
        (answer(b""), "bad_request"),
        (answer(media_bytes(size=1_000_001)), "media_too_large"),
        (answer(b"gone", 404), "fetch_failed"),
        (answer(media_bytes(), Content_Encoding="gzip"), "fetch_failed"),
        (answer(b"", 302, Location="http://inside.test/a.png"), "address_refused"),
    ],
)
def test_what_is_no_file_of_ours_is_refused(fetching: FlaskClient, behaviour: object, code: str) -> None:
    with serving(behaviour) as place:  # type: ignore[arg-type]
        found = fetching.post("/api/detect/url", json={"url": f"http://{place}/a.png"})
    assert found.get_json()["code"] == code
    uploads = fetching.application.extensions[EXTENSION].paths.uploads
    assert [path for path in uploads.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("body", [{}, {"url": 3}, {"url": ""}, {"url": "http://a.test/", "x": 1}, []])
def test_a_body_of_another_form_is_refused(fetching: FlaskClient, body: object) -> None:
    assert fetching.post("/api/detect/url", json=body).status_code in (400, 422)


def test_private_addresses_are_refused(fetching: FlaskClient) -> None:
    found = fetching.post("/api/detect/url", json={"url": "http://169.254.169.254/latest/meta-data"})
    assert (found.status_code, found.get_json()["code"]) == (422, "address_refused")
