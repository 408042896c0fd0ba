"""The application as a whole: errors, guards, imports, and the real command in a process of its own."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError

from benchmarks.servers import free_port
from clients.python.telltale_client import Answer, ApiError, DeepfakeClient, _problem
from tests.web_app.helpers import accept_weights, make_settings, media_bytes, multipart, upload, wait_until
from utils.config import JobSettings, SecuritySettings, Settings, load_settings
from utils.errors import ConfigError
from web_app.app import create_app
from web_app.jobs.supervisor import settings_environ
from web_app.paths import ROOT, InstancePaths
from web_app.serve import IDLE_CONNECTION_S, serve

SERVE = """
import sys
from tests.web_app.helpers import accept_weights
from utils.config import load_settings
from web_app.app import create_app
from web_app.serve import serve
app = create_app(load_settings(), verify=accept_weights)
command = (sys.executable, "-m", "tests.web_app.fake_worker")
sys.exit(serve(app, with_worker="worker" in sys.argv, command=command))
"""


@contextmanager
def serving(settings: Settings, *, worker: bool = True) -> Iterator[subprocess.Popen[str]]:
    """The server with the fake worker, or none, in a process; it is there when the block begins."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, *(["worker"] if worker else [])], cwd=ROOT,
        env={**os.environ, **settings_environ(settings)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            assert f"http://127.0.0.1:{settings.server.port}" in process.stdout.readline()
            yield process
        finally:
            process.kill()


def ask(settings: Settings, path: str, data: bytes | None = None, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{settings.server.port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=180) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture
def listening(tmp_path: Path) -> Settings:
    return make_settings(tmp_path, server={"port": free_port()})


def test_the_server_serves_and_ends_cleanly(listening: Settings) -> None:
    multipart_type = {"Content-Type": "multipart/form-data; boundary=b"}
    with serving(listening) as process:
        wait_until(lambda: ask(listening, "/api/ready")[0] == 200)
        status, result = ask(listening, "/api/detect/image", multipart(media_bytes()), **multipart_type)
        assert (status, result["prediction"]) == (200, "fake")
        status, problem = ask(listening, "/api/detect", multipart(media_bytes(size=1_030_000)), **multipart_type)
        assert (status, problem["code"]) == (413, "media_too_large")
        worker = ask(listening, "/api/ready")[1]["workers"][0]["id"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert worker.startswith(f"worker-{process.pid}-")


def test_the_worker_dies_with_a_killed_server(listening: Settings) -> None:
    with serving(listening) as process:
        wait_until(lambda: ask(listening, "/api/ready")[0] == 200)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            pytest.skip("this system does not list a process's children")
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        pids = [int(pid) for task in tasks for pid in task.read_text().split()]
        process.kill()
        process.wait()
    assert pids
    wait_until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in pids), 60)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Of a server whose worker is not needed: what is sent to it is refused."""
    settings = make_settings(tmp_path_factory.mktemp("refusing"), server={"port": free_port()})
    with serving(settings, worker=False):
        yield settings


def test_a_length_above_the_limit_is_refused_unread(refusing: Settings) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", refusing.server.port, timeout=180)
    connection.putrequest("POST", "/api/detect")
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    connection.putheader("Content-Length", "99000000000")
    connection.endheaders()
    started = time.monotonic()
    answer = connection.getresponse()
    assert answer.status == 413
    problem = json.load(answer)
    assert (problem["code"], problem["instance"]) == ("media_too_large", "/api/detect")
    assert problem["remedy"]
    assert problem["limit_bytes"] == refusing.media.max_file_mb * 1_000_000
    assert answer.getheader("X-Request-Id")
    assert time.monotonic() - started < IDLE_CONNECTION_S / 2  # after which it gives up to wait for a body
    connection.close()


def test_the_client_learns_that_its_upload_is_too_large(refusing: Settings, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(media_bytes("mp4", size=20_000_000))
    with pytest.raises(ApiError) as refused:
        DeepfakeClient(f"http://127.0.0.1:{refusing.server.port}", retries=0).detect(film)
    assert (refused.value.status, refused.value.code) == (413, "media_too_large")


def test_who_may_not_upload_is_told_with_a_code(listening: Settings) -> None:
    body, multipart_type = multipart(media_bytes(size=900_000)), {"Content-Type": "multipart/form-data; boundary=b"}
    keyed = dataclasses.replace(listening, security=SecuritySettings(keys="on"))
    with serving(keyed, worker=False):
        status, problem = ask(keyed, "/api/detect", body, **multipart_type)
    assert (status, problem["code"]) == (401, "unauthorized")
    full = dataclasses.replace(listening, jobs=JobSettings(max_waiting=1))
    with serving(full, worker=False):
        assert ask(full, "/api/detect?wait=0", body, **multipart_type)[0] == 202
        status, problem = ask(full, "/api/detect?wait=0", body, **multipart_type)
    assert (status, problem["code"]) == (429, "queue_full")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_all_before_it_reads_gets_the_refusal(refusing: Settings, chunked: bool) -> None:
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {40 * 0x10000}"
    head = f"POST /api/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n{length}"
    part = b"10000\r\n" + b"x" * 0x10000 + b"\r\n" if chunked else b"x" * 0x10000
    with socket.create_connection(("127.0.0.1", refusing.server.port), timeout=180) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n")
        for _ in range(40):
            connection.sendall(part)
            time.sleep(0.01)  # most of it comes after the answer
        with connection.makefile("rb") as answer:
            said, _, problem = answer.read().partition(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413")
    assert json.loads(problem)["code"] == "media_too_large"


def test_no_body_is_asked_for_that_is_refused(refusing: Settings) -> None:
    head = b"POST /api/batch HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 99000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", refusing.server.port), timeout=20) as connection:
        connection.sendall(head)
        with connection.makefile("rb") as answer:
            assert answer.readline().startswith(b"HTTP/1.1 413")


def test_the_client_takes_a_bare_413_of_a_proxy_for_what_it_is() -> None:
    assert _problem(Answer(413, {}, b"<html>Request Entity Too Large</html>"))["code"] == "media_too_large"


def test_a_taken_address_is_told(listening: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", listening.server.port))
        taken.listen()
        process = subprocess.run(
            [sys.executable, "-c", SERVE], cwd=ROOT, env={**os.environ, **settings_environ(listening)},
            capture_output=True, text=True, timeout=180,
        )  # fmt: skip
    assert process.returncode == 1
    assert "choose another with --port" in process.stderr


def test_the_script_refuses_unusable_weights(listening: Settings, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, str(ROOT / "web_app" / "app.py"), "--port", str(listening.server.port)],
        cwd=tmp_path, capture_output=True, text=True, timeout=180,
        env={**os.environ, **settings_environ(listening), "TELLTALE_WEIGHTS__DIR": str(tmp_path / "none")},
    )  # fmt: skip
    assert process.returncode == 3
    assert process.stderr.splitlines()[-1].startswith("[weights_missing]")


def test_the_script_refuses_a_wrong_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.ini").write_text("[server]\nport = 99999\n")
    process = subprocess.run(
        [sys.executable, str(ROOT / "web_app" / "app.py"), "--config", str(tmp_path / "config.ini")],
        cwd=tmp_path, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert process.returncode == 2
    assert "[server] port must lie in 1..65535" in process.stderr


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("server", "host", "no.such.host.invalid"),
        ("storage", "database_url", "abc"),
        ("storage", "database_url", "oracle+nothing://user:precious@host/name"),
        ("storage", "database_url", "sqlite:////proc/nothing/database"),
        ("storage", "instance_dir", "/proc/nothing"),
        ("storage", "instance_dir", "config.ini"),
        ("detection", "experts", "cnn,seer"),
        ("detection", "experts", ","),
        ("detection", "precision", "int4"),
        ("security", "trusted_proxies", "everybody"),
        ("security", "hosts", "https://name"),
        ("api", "allowed_networks", "10.0.0.0/99"),
    ],
)
def test_the_start_refuses_words_that_mean_nothing(
    section: str, key: str, value: str, listening: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web_app.serve._run", lambda *_: None)
    environ = {**settings_environ(listening), f"TELLTALE_{section.upper()}__{key.upper()}": value}
    with pytest.raises(ConfigError) as refused:
        serve(create_app(load_settings(None, environ), verify=accept_weights), with_worker=False)
    assert str(refused.value).startswith(f"[config] [{section}] {key}")
    assert "precious" not in str(refused.value)


def test_folders_made_by_hand_become_private(tmp_path: Path) -> None:
    paths = InstancePaths(tmp_path / "instance")
    paths.uploads.mkdir(parents=True, mode=0o777)
    for folder in (paths.instance, paths.uploads):
        folder.chmod(0o755)
    paths.create()
    made = (paths.instance, paths.uploads, paths.features)
    assert [folder.stat().st_mode & 0o777 for folder in made] == [0o700] * 3


def test_the_web_process_stays_small(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from tests.web_app.helpers import accept_weights, make_settings, media_bytes, upload
from web_app import __main__, serve
from web_app.app import create_app
app = create_app(make_settings(Path({str(tmp_path)!r})), verify=accept_weights)
client = app.test_client()
assert upload(client, media_bytes("mp4")).status_code == 202
assert client.get("/api/ready").status_code == 503
assert client.get("/api/openapi.json").status_code == 200
app.extensions["telltale"].close()
heavy = {{"torch", "cv2", "PIL", "av", "timm", "onnxruntime", "openvino"}}
print(*(heavy & {{name.partition(".")[0] for name in sys.modules}}))
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert (process.stderr, process.stdout.strip()) == ("", "")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/nothing", 404, "not_found"),
        ("PUT", "/api/history", 405, "method_not_allowed"),
        ("GET", "/api/detect", 405, "method_not_allowed"),
        ("POST", "/api/detect", 400, "bad_request"),
    ],
)
def test_errors_are_problem_json(client: FlaskClient, method: str, path: str, status: int, code: str) -> None:
    answer = client.open(path, method=method)
    problem = answer.get_json()
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert (problem["status"], problem["code"], problem["instance"]) == (status, code, path)
    assert problem["type"] == f"urn:telltale:error:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["remedy"]
    assert ("Allow" in answer.headers) == (status == 405)


def test_an_unforeseen_error_shows_nothing(app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setitem(app.view_functions, "api.get_stats", fail)
    answer = client.get("/api/rl/stats")
    assert (answer.status_code, answer.get_json()["code"]) == (500, "internal")
    assert "secret" not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [("database is locked", 503, "unavailable"), ("database or disk is full", 507, "storage_full")],
)
def test_a_database_that_refuses_has_a_code(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, reason: str, status: int, code: str
) -> None:
    def fail() -> None:
        raise OperationalError("INSERT", {}, Exception(reason))

    monkeypatch.setitem(app.view_functions, "api.get_stats", fail)
    answer = client.get("/api/rl/stats")
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert ("Retry-After" in answer.headers) == (status == 503)


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_browser_gets_a_page_for_what_is_not_there(client: FlaskClient) -> None:
    answer = client.get("/nothing", headers=BROWSER)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    text = answer.get_data(as_text=True)
    assert "There is no page here" in text
    assert 'href="/history"' in text
    assert client.get("/api/nothing", headers=BROWSER).mimetype == "application/problem+json"
    followed = {**BROWSER, "Sec-Fetch-Mode": "navigate"}  # as the link to a report of what was deleted
    assert client.get("/api/nothing", headers=followed).mimetype == "text/html"
    assert "There is no page here" not in client.get("/nothing").get_data(as_text=True)


def test_a_reader_without_the_right_gets_a_page(client: FlaskClient) -> None:
    answer = client.get("/review", headers=BROWSER, environ_base={"REMOTE_ADDR": "203.0.113.7"})
    assert answer.status_code == 403
    assert "This page is not for you" in answer.get_data(as_text=True)


def test_a_page_that_fails_says_so_also_without_a_database(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OperationalError("SELECT", {}, Exception("database is locked"))

    def fail_rights() -> frozenset[str]:
        raise OperationalError("SELECT", {}, Exception("database is locked"))

    monkeypatch.setitem(app.view_functions, "pages.learning", fail)
    monkeypatch.setattr("web_app.pages.caller", fail_rights)
    answer = client.get("/learning", headers=BROWSER)
    assert (answer.status_code, answer.mimetype, "Retry-After" in answer.headers) == (503, "text/html", True)
    assert "Load this page again in a few seconds" in answer.get_data(as_text=True)


def test_links_keep_a_prefix(client: FlaskClient) -> None:
    answer = upload(client, media_bytes("mp4"), environ_overrides={"SCRIPT_NAME": "/telltale"})
    links = answer.get_json()["links"]
    assert all(link.startswith("/telltale/") for link in links.values())
