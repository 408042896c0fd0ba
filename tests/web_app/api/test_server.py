"""What the server says of itself: health, readiness, and the description of its API as a document and as a page."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from tests.web_app.helpers import make_settings, running_worker, wait_until
from utils.config import Settings
from utils.errors import WeightsCorruptError
from web_app import VERSION
from web_app.api.server import Ready
from web_app.app import create_app
from web_app.db.models import WorkerRow, utc_now
from web_app.observability import health
from web_app.paths import ROOT
from web_app.services import Services


def failing(client: FlaskClient) -> list[str]:
    answer = client.get("/api/ready")
    found = answer.get_json()
    Ready.model_validate(found)
    names = [check["name"] for check in found["checks"] if not check["ok"]]
    assert (answer.status_code == 200) == found["ready"] == (not names)
    return names


def test_health_says_only_that_the_process_answers(client: FlaskClient) -> None:
    assert client.get("/api/health").get_json() == {"status": "ok"}


def test_a_server_without_a_worker_is_not_ready(client: FlaskClient) -> None:
    assert failing(client) == ["worker"]


def test_a_whole_server_is_ready(served: FlaskClient) -> None:
    wait_until(lambda: failing(served) == [])
    found = served.get("/api/ready").get_json()
    assert (found["waiting"], found["version"]) == (0, VERSION)
    assert found["workers"][0]["sandbox"] == ["seccomp"]
    assert found["workers"][0]["model_version"] == "v-test"


def test_a_silent_worker_does_not_count(served: FlaskClient, parts: Services) -> None:
    wait_until(lambda: failing(served) == [])
    with parts.database.write() as session:
        session.execute(sa.update(WorkerRow).values(seen_at=utc_now() - dt.timedelta(minutes=1)))
    assert failing(served) == ["worker"]


def test_unusable_weights_are_told(tmp_path: Path) -> None:
    def refuse(settings: Settings) -> None:
        raise WeightsCorruptError("cnn.safetensors has other bytes.")

    app = create_app(make_settings(tmp_path), verify=refuse)
    assert failing(app.test_client()) == ["weights", "worker"]
    checks = app.test_client().get("/api/ready").get_json()["checks"]
    assert any("cnn.safetensors has other bytes" in check["detail"] for check in checks)
    app.extensions["telltale"].close()


def test_a_loaded_version_serves_on_when_its_files_are_damaged(tmp_path: Path) -> None:
    def refuse(settings: Settings) -> None:
        raise WeightsCorruptError("CURRENT holds no name.")

    settings = make_settings(tmp_path)
    app = create_app(settings, verify=refuse)
    client = app.test_client()
    with running_worker(settings, model_version="v-test"):
        wait_until(lambda: failing(client) == [])
        found = client.get("/api/ready").get_json()
        assert found["model_version"] == "v-test"
        assert len(found["warnings"]) == 1
        assert "CURRENT holds no name" in found["warnings"][0]
    assert failing(client) == ["weights", "worker"]
    assert client.get("/api/ready").get_json()["warnings"] == []
    app.extensions["telltale"].close()


def test_weights_are_not_hashed_for_every_question(tmp_path: Path) -> None:
    calls: list[Settings] = []
    check = health.WeightsCheck(make_settings(tmp_path), calls.append)
    assert check.check()[0]
    assert check.check()[0]
    assert len(calls) == 1


def test_a_broken_database_is_told(client: FlaskClient, parts: Services) -> None:
    with parts.database.write() as session:
        session.execute(sa.text("DROP TABLE workers"))
    assert failing(client) == ["database", "worker"]


def test_a_full_disk_is_told(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10

    usage: Callable[[Any], Any] = lambda _: Usage()  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert "disk" in failing(client)


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


DESK = {"SCRIPT_NAME": "/desk"}


def test_every_operation_is_on_the_page_which_is_ours_alone(client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").get_json()
    page = client.get("/api/docs", environ_overrides=DESK)
    assert page.mimetype == "text/html"
    assert "/desk/api/v1" in page.text
    for methods in document["paths"].values():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page.text
    for address in re.findall(r'(?:href|src)="([^#"][^"]*)"', page.text):
        assert address.startswith("/desk/")
        with client.get(address.removeprefix("/desk").partition("#")[0]) as answer:
            assert answer.status_code == 200


def test_its_former_address_leads_there(client: FlaskClient) -> None:
    answer = client.get("/reference", environ_overrides=DESK)
    assert (answer.status_code, answer.headers["Location"]) == (308, "/desk/api/docs")


def test_parameters_bodies_and_answers_are_shown(client: FlaskClient) -> None:
    parts = dict(re.findall(r'<details id="(\w+)">(.*?)</details>', client.get("/api/docs").text, flags=re.DOTALL))
    words = {name: " ".join(re.sub(r"<[^>]*>", " ", part).split()) for name, part in parts.items()}
    assert "per_page query (1 to 100)" in words["get_history"]
    assert "face query, required id of the face in the report (0 to 1000)" in words["get_closeup"]
    assert "Request: application/json id required of the analysis (string) feedback required" in words["give_feedback"]
    assert "actual needed after an inconclusive verdict (real, fake | null)" in words["give_feedback"]
    assert "(integer | null) result (Result | null)" in words["get_job"]
    assert "&#34;fake_probability&#34;: 0.93" in words["detect_image"]
    assert "cross_site : Another web site" in words["detect_image"]
