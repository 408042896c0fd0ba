"""Real worker processes: killed, out of budget, orphaned; and what becomes of their jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask.testing import FlaskClient

from tests.web_app.helpers import job_state, media_bytes, upload, wait_until
from utils.config import Settings, load_settings
from web_app.jobs.supervisor import RestartPolicy, Supervisor, settings_environ
from web_app.paths import ROOT
from web_app.services import Services

COMMAND = (sys.executable, "-m", "tests.web_app.fake_worker")
QUICK = RestartPolicy(first_s=0.05, longest_s=0.2, grace_s=60.0)


@contextmanager
def supervised(parts: Services, *command: str) -> Iterator[Supervisor]:
    supervisor = Supervisor(parts.settings, parts.queue, command or COMMAND, QUICK)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
    assert supervisor.pid is None


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_worker_is_replaced_and_its_job_done(client: FlaskClient, parts: Services) -> None:
    public_id = upload(client, media_bytes("mp4", "sleep 2")).get_json()["id"]
    with supervised(parts) as supervisor:
        wait_until(lambda: job_state(client, public_id) == "running", 60)
        killed = supervisor.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: job_state(client, public_id) == "done", 60)
        assert supervisor.starts == 2
    assert client.get(f"/api/jobs/{public_id}").get_json()["attempts"] == 2


def test_a_poisonous_job_is_given_up(client: FlaskClient, parts: Services) -> None:
    public_id = upload(client, media_bytes("mp4", "sleep 60")).get_json()["id"]
    killed: set[int] = set()
    with supervised(parts) as supervisor:
        for _ in range(3):
            pid = wait_until(
                lambda: supervisor.pid not in killed and job_state(client, public_id) == "running" and supervisor.pid,
                60,
            )
            wait_until(lambda: client.get(f"/api/jobs/{public_id}").get_json()["attempts"] == len(killed) + 1, 60)
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
    assert parts.queue.claim("last") is None
    assert client.get(f"/api/jobs/{public_id}").get_json()["error"]["code"] == "worker_lost"


def test_a_worker_that_dies_at_once_is_tried_again_and_again(parts: Services, caplog: pytest.LogCaptureFixture) -> None:
    with supervised(parts, sys.executable, "-c", "raise SystemExit(9)") as supervisor:
        wait_until(lambda: supervisor.starts >= 6, 60)
    assert "5 times in a row; next try in 0.2 s" in caplog.text


def test_stopping_is_clean_and_gives_the_job_back(client: FlaskClient, parts: Services) -> None:
    public_id = upload(client, media_bytes("mp4", "sleep 60")).get_json()["id"]
    with supervised(parts):
        wait_until(lambda: job_state(client, public_id) == "running", 60)
        started = time.monotonic()
    assert time.monotonic() - started < QUICK.grace_s
    assert job_state(client, public_id) == "queued"


def test_a_worker_ends_with_its_parent(settings: Settings, parts: Services) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", (
            "import subprocess, sys, time\n"
            f"child = subprocess.Popen({[*COMMAND, '--supervised']!r}, stdin=subprocess.PIPE)\n"
            "print(child.pid, flush=True)\n"
            "time.sleep(60)"
        )],
        cwd=ROOT, env={**os.environ, **settings_environ(settings)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    wait_until(lambda: not alive(child), 60)


def test_the_worker_gets_the_same_settings(settings: Settings) -> None:
    assert load_settings(environ=settings_environ(settings)) == settings


def test_a_worker_that_never_gives_a_sign_is_killed(parts: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs while it loads has no row yet, so its silence is counted from its birth."""
    monkeypatch.setattr("web_app.jobs.supervisor.START_S", 0.5)
    policy = RestartPolicy(first_s=0.05, longest_s=0.2, grace_s=5.0, silence_s=0.4)
    dumb = (sys.executable, "-c", "import time; time.sleep(300)")
    supervisor = Supervisor(parts.settings, parts.queue, dumb, policy)
    supervisor.start()
    try:
        wait_until(lambda: supervisor.starts >= 2, 60)
    finally:
        supervisor.stop()
