"""One contract for both engines: whatever brings jobs to the workers, each runs once, in time, and none is lost.

`local` is SQLite alone; `celery` is PostgreSQL and a Redis that forgets everything when it ends; `rabbitmq`, where it
is installed, stands for Redis. Workers are processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from kombu import Connection

from benchmarks.servers import RabbitMQ, Redis, temporary
from tests.web_app.db import postgres
from tests.web_app.helpers import job_state, make_settings, media_bytes, upload, wait_until
from utils.config import Settings
from utils.errors import ConfigError
from web_app.db.models import DetectionRow, JobRow, WorkerRow
from web_app.jobs.broker import PHOTOS, QUEUES, VIDEOS, Inbox, Sender, queue_of, read_roles
from web_app.jobs.queue import JobQueue
from web_app.jobs.supervisor import settings_environ
from web_app.services import Services

LEASE_S = 3.0


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with temporary(Redis) as server:
        yield server


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQ]:
    with temporary(RabbitMQ) as server:
        yield server


@pytest.fixture(params=["local", "celery", *(["rabbitmq"] if RabbitMQ.PROGRAM.exists() else [])])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Settings]:
    if engine == "local":
        yield make_settings(tmp_path, lease_s=LEASE_S)
        return
    server = request.getfixturevalue("redis" if engine == "celery" else engine)
    with Connection(server.url) as connection:  # no test sees another's ids
        for name in QUEUES:
            with contextlib.suppress(connection.channel_errors):
                channel: Any = connection.channel()
                channel.queue_purge(name)
    made = make_settings(tmp_path, on_postgres=True, engine="celery", broker_url=server.url, lease_s=LEASE_S)
    yield made
    postgres.drop_database(made.storage.database_url)


@contextlib.contextmanager
def worker(settings: Settings, *arguments: str, kill: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process with the fake analysis."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.web_app.fake_worker", "--overdue", "1", *arguments],
        env={**os.environ, **settings_environ(settings)},
    )
    try:
        yield process
    finally:
        wait_until(lambda: kill or process.poll() is not None or _is_caught(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        assert process.wait(120) == (-signal.SIGKILL if kill else 0)


def _is_caught(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; while it still imports it has none, and would end by it."""
    caught = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (number - 1) & 1)


def row(parts: Services, public_id: str) -> JobRow:
    with parts.database.read() as session:
        return session.scalars(sa.select(JobRow).where(JobRow.public_id == public_id)).one()


def send(client: FlaskClient, order: str, media_format: str = "png", size: int = 300) -> str:
    answer = upload(client, media_bytes(media_format, order, size), "/api/detect?wait=0")
    assert answer.status_code == 202, answer.get_json()
    return str(answer.get_json()["id"])


def ended(client: FlaskClient, *ids: str) -> None:
    wait_until(lambda: all(job_state(client, each) in ("done", "failed", "cancelled") for each in ids))


def test_two_workers_run_each_job_once(client: FlaskClient, settings: Settings, parts: Services) -> None:
    ids = [send(client, "fake", "mp4", 400 + number) for number in range(12)]
    with worker(settings), worker(settings):
        ids += [send(client, "real", size=400 + number) for number in range(12)]
        ended(client, *ids)
    assert {(row(parts, each).state, row(parts, each).attempts) for each in ids} == {("done", 1)}


def test_a_killed_workers_job_is_run_again(client: FlaskClient, settings: Settings, parts: Services) -> None:
    public_id = send(client, "sleep 2", "mp4")
    with worker(settings, kill=True):
        wait_until(lambda: row(parts, public_id).state == "running")
    with worker(settings):
        ended(client, public_id)
    assert (row(parts, public_id).state, row(parts, public_id).attempts) == ("done", 2)


def test_a_worker_that_stops_gives_its_job_to_another(client: FlaskClient, settings: Settings, parts: Services) -> None:
    public_id = send(client, "sleep 60", "mp4")
    with worker(settings) as first:
        wait_until(lambda: row(parts, public_id).state == "running")
        before = row(parts, public_id).worker_id
        with worker(settings):
            wait_until(lambda: _alive(parts) == 2)
            first.terminate()
            assert first.wait(120) == 0
            stopped_at = time.monotonic()
            wait_until(lambda: row(parts, public_id).worker_id not in (None, before))
            assert time.monotonic() - stopped_at < 2 * LEASE_S  # it did not wait for a lease or a lost message
            assert (row(parts, public_id).state, row(parts, public_id).attempts) == ("running", 1)
            assert parts.queue.cancel(public_id)
            ended(client, public_id)


def test_a_cancelled_job_never_starts(client: FlaskClient, settings: Settings, parts: Services) -> None:
    public_id, later = send(client, "fake"), send(client, "real")
    assert parts.queue.cancel(public_id)
    with worker(settings):
        ended(client, later)
    assert (row(parts, public_id).state, row(parts, public_id).attempts) == ("cancelled", 0)


def test_a_full_queue_says_when_to_come_back(client: FlaskClient, settings: Settings, parts: Services) -> None:
    narrow = dataclasses.replace(settings.jobs, max_waiting=1)
    object.__setattr__(parts, "queue", JobQueue(parts.database, narrow))
    send(client, "fake")
    refused = upload(client, media_bytes(size=301), "/api/detect?wait=0")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")


# What a broker brings


@pytest.mark.parametrize("engine", ["celery"], indirect=True)
def test_photos_come_before_videos(client: FlaskClient, settings: Settings, parts: Services) -> None:
    videos = [send(client, "fake", "mp4", 400 + number) for number in range(3)]
    photos = [send(client, "fake", "png", 400 + number) for number in range(3)]
    with worker(settings):
        ended(client, *videos, *photos)
    started = [row(parts, each).started_at for each in (*photos, *videos)]
    assert started == sorted(started)


@pytest.mark.parametrize("engine", ["celery"], indirect=True)
def test_what_was_lost_is_sent_to_its_queue(client: FlaskClient, settings: Settings, parts: Services) -> None:
    """Also for a row that an older server wrote, which does not name the medium's kind."""
    send(client, "fake"), send(client, "fake", "mp4")
    with parts.database.write() as session:
        session.execute(sa.update(DetectionRow).values(media_kind=None))
    with Connection(settings.jobs.broker_url) as connection:
        channel: Any = connection.channel()
        for name in QUEUES:
            channel.queue_purge(name)
    sender = Sender(settings.jobs)
    assert sender.send_lost(parts.database, sa.true()) == 2
    assert sender.lengths() == {PHOTOS: 1, VIDEOS: 1}
    assert sender.send_lost(parts.database, sa.true()) == 0


@pytest.mark.parametrize("engine", ["celery"], indirect=True)
def test_a_worker_takes_from_its_queues_only(client: FlaskClient, settings: Settings, parts: Services) -> None:
    photo, video = send(client, "fake"), send(client, "fake", "mp4")
    with worker(settings, "--queues", VIDEOS):
        ended(client, video)
        assert job_state(client, photo) == "queued"
        with worker(settings, "--queues", PHOTOS):
            ended(client, photo)


@pytest.mark.parametrize("engine", ["celery"], indirect=True)
def test_a_broker_that_forgets_or_is_away_loses_no_job(
    client: FlaskClient, settings: Settings, parts: Services, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web_app.jobs.broker.REST_S", 0.5)
    forgotten = send(client, "fake", "mp4", 400)
    redis.stop()
    unsent = send(client, "fake", "mp4", 401)
    redis.start()
    with worker(settings):
        ended(client, forgotten, unsent)
        wait_until(lambda: _alive(parts))
        redis.stop()
        redis.start()
        ended(client, send(client, "fake", "mp4", 402))
    assert {row(parts, each).attempts for each in (forgotten, unsent)} == {1}


@pytest.mark.parametrize("engine", ["celery"], indirect=True)
def test_a_broker_that_hangs_holds_up_an_upload_for_a_moment_and_no_connection(
    client: FlaskClient, parts: Services, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    monkeypatch.setattr("web_app.jobs.broker.REST_S", 60.0)
    assert parts.queue.sender is not None
    sent = parts.queue.sender.send

    def watched(job_id: int, name: str) -> bool:
        held.append(parts.database.engine.pool.checkedout())  # type: ignore[attr-defined]
        return sent(job_id, name)

    send(client, "fake", "mp4", 400)  # from now on it is connected
    monkeypatch.setattr(parts.queue.sender, "send", watched)
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        public_id = send(client, "fake", "mp4", 401)
        assert time.monotonic() - began < 30
        began = time.monotonic()
        assert parts.queue.lengths() == {}
        assert time.monotonic() - began < 1, "nobody waits for it again soon, nor do the metrics"
    finally:
        os.kill(redis.pid, signal.SIGCONT)
    assert (held, job_state(client, public_id)) == ([0], "queued")


def _alive(parts: Services) -> int:
    with parts.database.read() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(WorkerRow)) or 0


@pytest.mark.parametrize("engine", ["celery"], indirect=True)
def test_what_waits_in_the_broker_is_counted(client: FlaskClient, parts: Services, redis: Redis) -> None:
    for size in (400, 401):
        send(client, "fake", "mp4", size)
    assert parts.queue.lengths() == {PHOTOS: 0, VIDEOS: 2}
    assert f'telltale_queue_ids{{queue="{VIDEOS}"}} 2.0' in client.get("/metrics").get_data(as_text=True)
    redis.stop()
    try:
        metrics = client.get("/metrics")
        assert (metrics.status_code, "telltale_queue_ids{" in metrics.text) == (200, False)
    finally:
        redis.start()


def test_tasks_find_their_queue() -> None:
    asked = [("analyse", "image"), ("analyse", "audio"), ("copy", None), ("explain", None), ("train", None)]
    assert [queue_of(*each) for each in asked] == [PHOTOS, VIDEOS, PHOTOS, VIDEOS, None]


def test_a_signal_that_outlasts_a_wait_does_not_make_it_endless() -> None:
    here = dataclasses.replace(Settings().jobs, engine="celery", broker_url="memory://")
    rescue = threading.Timer(10, lambda: Sender(here).send(1, PHOTOS))  # an id ends any wait
    rescue.start()
    before = signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.3))
    try:
        with Inbox(here, "one", QUEUES, threading.Event()) as inbox:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            inbox.wait(0.2)
            assert rescue.is_alive()
    finally:
        rescue.cancel()
        signal.signal(signal.SIGALRM, before)


def test_a_signal_may_come_while_the_main_thread_holds_the_lock_of_the_event() -> None:
    program = """if True:
        import os, signal, time
        from web_app.worker import stop_on_signals
        stop = stop_on_signals()
        with stop._cond:  # as in a moment of stop.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        assert stop.wait(30)"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_wrong_names_and_addresses_are_refused() -> None:
    assert read_roles(" videos, learning") == ("videos", "learning")
    for wrong in ("", "photos,gpu"):
        with pytest.raises(ConfigError, match="--queues"):
            read_roles(wrong)
    with pytest.raises(ConfigError, match="broker_url"):
        Sender(dataclasses.replace(Settings().jobs, engine="celery"))
