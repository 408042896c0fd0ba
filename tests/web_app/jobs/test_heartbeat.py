"""What keeps a worker going and what replaces it: leases, memory, silence, analyses without an end."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy.exc import SQLAlchemyError

from tests.web_app.helpers import job_state, make_settings, media_bytes, upload, wait_until
from tests.web_app.jobs.test_supervisor import COMMAND
from web_app.jobs.heartbeat import Heartbeat, has_grown, log_and_continue, resident_mb
from web_app.jobs.queue import JobQueue
from web_app.jobs.supervisor import RestartPolicy, Supervisor
from web_app.services import Services


def test_a_cancelled_job_is_lost_and_another_one_stays(client: FlaskClient, parts: Services) -> None:
    for order in ("fake", "real"):
        upload(client, media_bytes("mp4", order))
    first, second = (parts.queue.claim("w1") for _ in range(2))
    assert first is not None
    assert second is not None
    with (
        Heartbeat(parts.queue, "w1", dict, 0.05) as heartbeat,
        heartbeat.hold("the first", math.inf, first) as lost,
        heartbeat.hold("the second", math.inf, second) as kept,
    ):
        assert parts.queue.cancel(first.public_id)
        assert lost.lost.wait(60)
        assert not kept.lost.is_set()


QUICK = RestartPolicy(first_s=0.05, longest_s=0.1, silence_s=20.0)


def test_memory_is_measured_and_limited() -> None:
    assert resident_mb() > 5
    assert not has_grown(0)
    assert not has_grown(resident_mb() + 1000)
    assert has_grown(resident_mb() / 2)


@pytest.mark.parametrize("error", [SQLAlchemyError("x"), OSError(5, "x"), RuntimeError("x")])
def test_nothing_beside_a_job_ends_the_worker(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with log_and_continue("look around"):
        raise error
    assert "could not look around" in caplog.text


def test_a_worker_that_has_grown_is_replaced_and_nothing_is_lost(client: FlaskClient, parts: Services) -> None:
    small = dataclasses.replace(parts.settings, jobs=dataclasses.replace(parts.settings.jobs, worker_memory_mb=1))
    ids = [upload(client, media_bytes("mp4", size=300 + n)).get_json()["id"] for n in range(3)]
    supervisor = Supervisor(small, parts.queue, COMMAND, dataclasses.replace(QUICK, first_s=60.0, longest_s=60.0))
    supervisor.start()
    try:
        wait_until(lambda: all(job_state(client, public_id) == "done" for public_id in ids), 120)
    finally:
        supervisor.stop()
    assert supervisor.starts >= 3


def freeze(pid: int, parts: Services) -> None:
    """Stop a process at a moment when it does not hold SQLite's write lock, on which all others would wait."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T")
        if not parts.database.is_sqlite:
            return
        with contextlib.closing(sqlite3.connect(parts.paths.database, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.05)
            else:
                return


def test_a_worker_that_is_stopped_is_noticed(client: FlaskClient, parts: Services) -> None:
    quick = dataclasses.replace(QUICK, silence_s=4.0)
    supervisor = Supervisor(parts.settings, parts.queue, COMMAND, quick)
    supervisor.start()
    try:
        wait_until(lambda: client.get("/api/ready").get_json()["workers"], 120)
        frozen = supervisor.pid
        assert frozen is not None
        freeze(frozen, parts)
        public_id = upload(client, media_bytes("mp4")).get_json()["id"]
        wait_until(lambda: job_state(client, public_id) == "done", 120)
        assert supervisor.pid != frozen
    finally:
        supervisor.stop()


def test_a_lease_from_before_the_clock_went_back_is_over(tmp_path: Path, parts: Services, client: FlaskClient) -> None:
    upload(client, media_bytes("mp4"))
    longer = dataclasses.replace(make_settings(tmp_path).jobs, lease_s=3600.0)
    assert JobQueue(parts.database, longer).claim("before") is not None
    claim = parts.queue.claim("after")
    assert claim is not None
    assert claim.attempt == 2
