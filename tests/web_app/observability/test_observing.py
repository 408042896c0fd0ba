"""Metrics and request ids."""

from __future__ import annotations

import logging

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import media_bytes, upload


def test_metrics_tell_requests_and_jobs(client: FlaskClient) -> None:
    upload(client, media_bytes("mp4"))
    client.get("/api/jobs/somebody-s-id")
    text = client.get("/metrics").get_data(as_text=True)
    assert 'telltale_http_requests_total{method="POST",route="/api/detect",status="202"} 1.0' in text
    assert 'telltale_jobs{state="queued",task="analyse"} 1.0' in text
    assert "telltale_media_files 1.0" in text
    assert "telltale_workers 0.0" in text
    assert "somebody-s-id" not in text


def test_each_answer_has_an_id_of_ours(client: FlaskClient) -> None:
    first = client.get("/api/health", headers={"X-Request-Id": "chosen"}).headers["X-Request-Id"]
    second = client.get("/api/nothing").headers["X-Request-Id"]
    assert len({first, second, "chosen"}) == 3
    assert len(first) == 16


def test_an_unforeseen_error_is_logged_with_its_request(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("x")

    monkeypatch.setitem(app.view_functions, "api.get_history", fail)
    with caplog.at_level(logging.INFO):
        assert client.get("/api/history").status_code == 500
    assert any("/api/history 500" in line.getMessage() for line in caplog.records)
