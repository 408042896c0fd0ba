"""The Python client against a real server on a socket: uploads, patience, refusals."""

from __future__ import annotations

import http.server
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask

from clients.python.telltale_client import ApiError, DeepfakeClient
from tests.web_app.helpers import listening, make_settings, media_bytes, running_worker
from tests.web_app.integrations.test_http_client import serving
from utils.config import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


@pytest.fixture
def address(app: Flask, settings: Settings) -> Iterator[str]:
    """Where a server with a worker listens."""
    with listening(app) as port, running_worker(settings):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / 'my "photo" ü.png'
    path.write_bytes(media_bytes(order="fake", size=200_000))
    return path


def test_a_day_with_the_client(address: str, photo: Path, tmp_path: Path) -> None:
    client = DeepfakeClient(address)
    report = client.detect(photo)
    assert (report["prediction"], len(report["id"])) == ("fake", 32)
    assert client.detect(photo)["id"] == report["id"]
    assert client.detect(photo, again=True)["id"] != report["id"]
    client.detect(photo, keep=False)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(media_bytes("mp4", "real"))
    told: list[tuple[str, float]] = []
    assert client.detect(clip, progress=lambda stage, part: told.append((stage, part)))["prediction"] == "real"
    assert told[-1] == ("done", 1.0)
    names = [item["name"] for item in client.request("GET", "/history").json()["items"]]
    assert names == ["clip.mp4", "my _photo_ ü.png", "my _photo_ ü.png"]
    document = json.loads(client.report(report["id"]))
    assert document["document"] == "telltale-report"
    assert client.report(report["id"], "pdf").startswith(b"%PDF-")
    assert client.feedback(report["id"], "correct")["feedback"] == "correct"
    batch = client.batch([photo, clip])
    assert [item["id"] for item in batch["items"]].count(None) == 0
    assert client.request("DELETE", f"/detections/{report['id']}").status == 204
    with pytest.raises(ApiError) as refused:
        client.wait(report["id"])
    assert (refused.value.status, refused.value.code) == (404, "not_found")


def test_a_failed_analysis_raises_its_problem(address: str, tmp_path: Path) -> None:
    for name, media_format in (("a.png", "png"), ("a.mp4", "mp4")):
        path = tmp_path / name
        path.write_bytes(media_bytes(media_format, "corrupt"))
        with pytest.raises(ApiError) as refused:
            DeepfakeClient(address).detect(path)
        assert (refused.value.status, refused.value.code) == (422, "media_corrupt")
        assert refused.value.remedy


def test_a_switched_off_offer_is_told(address: str) -> None:
    with pytest.raises(ApiError, match="switched off"):
        DeepfakeClient(address).request("POST", "/detect/url", {"url": "http://example.org/a.png"})


class Reluctant:
    """Answers with the statuses in turn, the last one with a result, and counts."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.keys: list[str | None] = []

    def __call__(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.keys.append(handler.headers.get("Idempotency-Key"))
        status = self.statuses.pop(0)
        if status == 0:  # the connection breaks
            handler.close_connection = True
            return
        body = b'{"prediction": "fake"}' if status == 200 else b"<html>no problem JSON</html>"
        handler.send_response(status)
        handler.send_header("Retry-After", "7")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's pauses, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr(
        "clients.python.telltale_client.time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic)
    )
    return pauses


def test_a_busy_server_is_asked_again_with_the_same_key(photo: Path, slept: list[float]) -> None:
    server = Reluctant(429, 0, 503, 200)
    with serving(server) as place:
        client = DeepfakeClient(f"http://127.0.0.1:{place.partition(':')[2]}")
        assert client.detect(photo)["prediction"] == "fake"
    assert len(server.keys) == 4
    assert len(set(server.keys)) == 1
    assert server.keys[0]
    assert slept == [7.0, 1.0, 7.0]


@pytest.mark.usefixtures("slept")
def test_patience_ends() -> None:
    with serving(Reluctant(429, 429)) as place:
        client = DeepfakeClient(f"http://127.0.0.1:{place.partition(':')[2]}", retries=1)
        with pytest.raises(ApiError) as refused:
            client.wait("x")
    assert (refused.value.status, refused.value.code) == (429, "http_429")
    with serving(Reluctant(0, 0)) as place:
        client = DeepfakeClient(f"http://127.0.0.1:{place.partition(':')[2]}", retries=1)
        with pytest.raises(OSError, match=r".*"):
            client.wait("x")


def test_other_refusals_are_not_repeated() -> None:
    server = Reluctant(404, 200)
    with serving(server) as place:
        client = DeepfakeClient(f"http://127.0.0.1:{place.partition(':')[2]}")
        with pytest.raises(ApiError):
            client.wait("x")
    assert len(server.keys) == 1


@pytest.mark.parametrize("url", ["localhost:5000", "ftp://host", "http://"])
def test_a_strange_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        DeepfakeClient(url)
