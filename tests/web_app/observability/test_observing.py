"""Metrics and request ids."""

from __future__ import annotations

import json
import logging
import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import media_bytes, running_worker, upload, wait_until
from utils.config import Settings
from web_app.paths import ROOT


def test_metrics_tell_requests_and_jobs(client: FlaskClient) -> None:
    upload(client, media_bytes("mp4"))
    client.get("/api/jobs/somebody-s-id")
    text = client.get("/metrics").get_data(as_text=True)
    assert 'telltale_http_requests_total{method="POST",route="/api/detect",status="202"} 1.0' in text
    assert 'telltale_jobs{state="queued",task="analyse"} 1.0' in text
    assert "telltale_media_files 1.0" in text
    assert "telltale_workers 0.0" in text
    assert "somebody-s-id" not in text


def test_metrics_tell_what_each_worker_does(client: FlaskClient, settings: Settings) -> None:
    public_id = upload(client, media_bytes("mp4", "sleep 2")).get_json()["id"]
    with running_worker(settings, model_version="v-7"):
        wait_until(lambda: client.get(f"/api/jobs/{public_id}").get_json()["state"] == "running")
        text = client.get("/metrics").get_data(as_text=True)
        wait_until(lambda: client.get(f"/api/jobs/{public_id}").get_json()["state"] == "done")
    assert re.search(r'^telltale_worker_running{version="v-7",worker="worker-.*"} 1.0$', text, re.MULTILINE)


def test_the_dashboard_asks_for_metrics_that_there_are(client: FlaskClient) -> None:
    text = client.get("/metrics").get_data(as_text=True)
    known = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    board = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(asked) >= len(board["panels"]) > 5
    for expression in asked:
        for name in re.findall(r"telltale_\w+", expression):
            assert {name, name.removesuffix("_bucket")} & known, name


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
