"""schemathesis over the OpenAPI document and a running application: no 5xx, and every answer as it is described.

`make api-fuzz` runs 200 examples per operation; the suite runs a few. Half of the requests are aimed at things that are
really there: the analysis whose id the document gives as an example, and files of a known format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import schemathesis
import sqlalchemy as sa
from flask import Flask
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from benchmarks.openapi import EXAMPLE_ID as ID
from benchmarks.openapi import PLACE_HOLDER
from tests.web_app.helpers import (
    accept_weights,
    choose_speech,
    fake_analyse,
    make_settings,
    media_bytes,
    running_worker,
    upload,
    wait_until,
)
from utils.config import ApiSettings
from utils.errors import MediaCorruptError
from utils.types import Report
from web_app.api.routing import ROUTES
from web_app.app import create_app
from web_app.db.models import JobRow
from web_app.integrations.http_client import Rules
from web_app.jobs.runner import Progress
from web_app.services import EXTENSION

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

EXAMPLES = int(os.environ.get("TELLTALE_FUZZ_EXAMPLES", "4"))
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
MADE = ("fake", "real", "inconclusive", "no_face", "corrupt")


OPERATIONS = [(route.method, PLACE_HOLDER.sub(r"{\1}", route.path)) for route in ROUTES]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """An application with everything switched on, and a worker."""
    folder = tmp_path_factory.mktemp("fuzz")
    root = publish_dummy(folder / "trained_models")
    settings = dataclasses.replace(
        make_settings(folder, max_waiting=100_000),
        api=ApiSettings(url_input="on", webhooks="on"),
        weights=choose_speech(root),
    )
    app = create_app(settings, verify=accept_weights)
    parts = app.extensions[EXTENSION]
    app.extensions[EXTENSION] = dataclasses.replace(parts, outbound=Rules(resolver=lambda host, port: ["8.8.8.8"]))
    app.wsgi_app = Closing(app.wsgi_app)  # type: ignore[method-assign]
    with running_worker(settings, analyse_anything):
        wait_until(lambda: app.test_client().get("/api/ready").status_code == 200, 60)
        yield app
    parts.close()


@pytest.fixture(scope="module")
def described(app: Flask) -> Any:
    """The schema that the application gives out."""
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[f"{method} {path}" for method, path in OPERATIONS])
def test_every_answer_is_as_described(app: Flask, described: Any, method: str, path: str) -> None:
    ensure_example(app)
    operation = described[path][method]
    cases = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if operation.body or operation.query:
        cases |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), derandomize=True,
        database=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )  # fmt: skip
    @hypothesis.given(case=cases)
    def check(case: Any) -> None:
        aim(case)
        case.call_and_validate(checks=list(CHECKS))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("web_app.api.detect.fetch", refuse_to_fetch)
        check()


class Closing:
    """WSGI middleware that ends every answer as a server does; schemathesis leaves files open that it has read."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        answer = self._application(environ, start_response)
        try:
            return [b"".join(answer)]
        finally:
            if hasattr(answer, "close"):
                answer.close()


def analyse_anything(path: Path, progress: Progress) -> Report:
    """The fake analysis; media that schemathesis made hold no order for it and cannot be decoded."""
    if path.read_bytes().count(b"|") < 2:
        raise MediaCorruptError("There is only a head.")
    return fake_analyse(path, progress)


def publish_dummy(root: Path) -> Path:
    """Two versions whose files verify and hold nothing: the web process never loads networks."""
    for name in ("v-test", "v-other"):
        folder = root / name
        folder.mkdir(parents=True)
        files = {"gate.safetensors": b"", "calibration.json": b"{}", "card.json": b"{}"}
        for file_name, content in files.items():
            (folder / file_name).write_bytes(content)
        checksums = {file_name: hashlib.sha256(content).hexdigest() for file_name, content in files.items()}
        (folder / "checksums.json").write_text(json.dumps(checksums), encoding="utf-8")
    (root / "CURRENT").write_text("v-test\n", encoding="utf-8")
    return root


def ensure_example(app: Flask) -> None:
    """One finished analysis with the id that the document gives as an example."""
    parts = app.extensions[EXTENSION]
    client = app.test_client()
    if client.get(f"/api/detections/{ID}").status_code == 200:
        return
    made = upload(client, media_bytes(), "/api/detect?again=1&wait=1")
    assert made.status_code == 200, made.get_json()
    with parts.database.write() as session:
        session.execute(sa.delete(JobRow).where(JobRow.public_id == ID))
        session.execute(sa.update(JobRow).where(JobRow.public_id == made.get_json()["id"]).values(public_id=ID))


def refuse_to_fetch(untrusted_url: str, parts: Any) -> Any:
    """Judge the address by the rules, and never leave this machine."""
    from utils.errors import FetchError
    from web_app.integrations.http_client import check_url

    check_url(untrusted_url, parts.outbound)
    raise FetchError("Tests fetch nothing.")


def aim(case: Any) -> None:
    """Point every other request at what is there."""
    weight = len(str(case.path_parameters)) + len(str(case.query)) + len(str(case.headers))
    if weight % 2 and "id" in (case.path_parameters or {}):
        case.path_parameters["id"] = ID
    if isinstance(case.body, dict) and "file" in case.body and (weight // 2) % 2:
        content = media_bytes("png" if weight % 3 else "mp4", MADE[weight % len(MADE)])
        case.body["file"] = [content, content] if isinstance(case.body["file"], list) else content
