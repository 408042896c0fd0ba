"""Web process and workers are killed with SIGKILL at any moment, and the server is told to end with a job running."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import random
import signal
import sqlite3
import threading
import time
from pathlib import Path

from benchmarks.reliability.common import (
    CONTENT_TYPE,
    STAND_IN,
    Figure,
    Server,
    at_once,
    make_settings,
    multipart,
    percentile,
    photo,
    query,
    send_upload,
    store_faults,
    wait_until,
    workspace,
)
from utils.config import Settings
from web_app.jobs.detections import UploadOptions, queue_upload
from web_app.jobs.supervisor import RestartPolicy, Supervisor
from web_app.paths import InstancePaths
from web_app.services import Services
from web_app.storage.upload import Upload

CLIENTS = 6
PHOTO_BYTES = 1_500_000
PIECES = 12


def _upload_slowly(server: Server, content: bytes, accepted: list[str]) -> None:
    """Send the body in pieces, so that a kill finds it half sent; any broken connection is expected."""
    connection = server.connect()
    body = multipart(content)
    try:
        connection.putrequest("POST", "/api/detect")
        for name, value in (("Content-Type", CONTENT_TYPE), ("Prefer", "respond-async"), ("Content-Length", len(body))):
            connection.putheader(name, str(value))
        connection.endheaders()
        step = len(body) // PIECES + 1
        for start in range(0, len(body), step):
            connection.send(body[start : start + step])
            time.sleep(random.uniform(0, 0.02))  # noqa: S311
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status == 202:
            accepted.append(text.split('"id":"')[1].split('"')[0])
    except (OSError, http.client.HTTPException):
        return
    finally:
        connection.close()


def _truncated(settings: Settings) -> list[str]:
    """Files under final names whose content is not what their name says."""
    return [
        path.name
        for path in InstancePaths.of(settings).uploads.glob("*/*")
        if path.suffix == "" and hashlib.sha256(path.read_bytes()).hexdigest() != path.name.partition("-")[0]
    ]


def upload_kills(short: bool) -> list[Figure]:
    """The web process is killed in the middle of uploads, 50 times.

    After each start no file under a final name may be cut short, no row may lack its file, and all that was answered
    with 202 must be there.
    """
    kills = 2 if short else 50
    accepted: list[str] = []
    truncated: set[str] = set()
    faults: set[str] = set()
    cut = 0
    numbers = itertools.count()
    with workspace() as folder:
        settings = make_settings(folder)
        server = Server(settings)
        for _ in range(kills):
            server.start()
            ending = threading.Event()

            def keep_uploading(ending: threading.Event = ending) -> None:
                while not ending.is_set():
                    _upload_slowly(server, photo("fake", PHOTO_BYTES, next(numbers)), accepted)

            with at_once([keep_uploading] * CLIENTS, 60):
                time.sleep(random.uniform(0.2, 1.2))  # noqa: S311
                ending.set()
                server.kill()
            cut += len(list(InstancePaths.of(settings).uploads.glob("*.part")))
            truncated.update(_truncated(settings))
            faults.update(store_faults(settings))
        known = {row[0] for row in query(settings, "SELECT public_id FROM jobs JOIN detections ON job_id = jobs.id")}
    lost = [public_id for public_id in accepted if public_id not in known]
    return [
        Figure("web process killed mid-upload", f"{kills}", f"{kills}", True),
        Figure("half uploads left under temporary names", f"{cut}", "told only", True),
        Figure("truncated files visible", f"{len(truncated)}", "0", not truncated),
        Figure("rows without their whole file", f"{len(faults)}", "0", not faults),
        Figure("accepted uploads lost", f"{len(lost)} of {len(accepted)}", "0", not lost),
    ]


WORKERS = 2
LONGEST_LIFE_S = 2.0  # of a worker between its first sign of life and its end
STUCK_AFTER_S = 120.0  # without any job coming to its end
POLICY = RestartPolicy(first_s=0.02, longest_s=0.05)
NOTE_ENDINGS = """
CREATE TABLE endings (job_id INTEGER, state TEXT);
CREATE TRIGGER note_ending AFTER UPDATE OF state ON jobs WHEN NEW.state IN ('done', 'failed', 'cancelled')
BEGIN INSERT INTO endings VALUES (NEW.id, NEW.state); END;
"""


def _queue_jobs(parts: Services, count: int, seconds: tuple[float, ...]) -> None:
    for number in range(count):
        with parts.store.incoming() as incoming:
            incoming.write(photo(f"sleep {random.choice(seconds)}", 400, number))  # noqa: S311
            upload = Upload(incoming.finish(), f"{number}.jpg", ())
        queue_upload(parts, upload, "drill", UploadOptions())


def _living(settings: Settings) -> list[int]:
    """Process ids of the workers that have shown themselves and still run."""
    return [pid for (pid,) in query(settings, "SELECT pid FROM workers") if Path(f"/proc/{pid}").exists()]


def _kill_often(settings: Settings, kills: int) -> int:
    """Kill random workers until it was done so often or nothing is left to do; returns how often."""
    done = 0
    while done < kills and query(settings, "SELECT 1 FROM jobs WHERE state IN ('queued', 'running') LIMIT 1"):
        time.sleep(random.uniform(0.0, LONGEST_LIFE_S / WORKERS))  # noqa: S311
        living = _living(settings)
        if living:
            try:
                os.killpg(random.choice(living), signal.SIGKILL)  # noqa: S311
                done += 1
            except ProcessLookupError:
                continue
    return done


def _let_them_end(settings: Settings, jobs: int) -> None:
    """Wait until all jobs have ended, or none has for two minutes."""
    ended, changed_at = -1, time.monotonic()
    while ended < jobs and time.monotonic() - changed_at < STUCK_AFTER_S:
        now = query(settings, "SELECT count(*) FROM endings")[0][0]
        if now != ended:
            ended, changed_at = now, time.monotonic()
        time.sleep(0.2)


def worker_kills(short: bool) -> list[Figure]:
    """Workers are killed at random moments, 200 times over 1,000 jobs: each job ends exactly once.

    The database itself counts: a trigger notes each time that a job becomes final. The supervisor is the server's own,
    but waits less between restarts, because here no worker is to blame for its end.
    """
    jobs, kills = (12, 3) if short else (1000, 200)
    with workspace() as folder:
        settings = make_settings(folder, attempts=10)
        parts = Services.build(settings, lambda _: None)
        with sqlite3.connect(InstancePaths.of(settings).database, timeout=30) as connection:
            connection.executescript(NOTE_ENDINGS)
        connection.close()
        # few jobs must last, or they are done before the third kill
        _queue_jobs(parts, jobs, (0.8, 1.2) if short else (0, 0, 0.05, 0.2))
        supervisors = [Supervisor(settings, parts.queue, STAND_IN, POLICY) for _ in range(WORKERS)]
        for supervisor in supervisors:
            supervisor.start()
        killed = _kill_often(settings, kills)
        _let_them_end(settings, jobs)
        for supervisor in supervisors:
            supervisor.stop()
        parts.close()
        states = dict(query(settings, "SELECT state, count(*) FROM jobs GROUP BY state"))
        endings = query(settings, "SELECT count(*) FROM endings GROUP BY job_id")
        unreported = query(
            settings, "SELECT 1 FROM jobs JOIN detections ON job_id = jobs.id WHERE state = 'done' AND report IS NULL"
        )
        given_up = query(
            settings, "SELECT 1 FROM jobs WHERE state = 'failed' AND error_code = 'worker_lost' AND attempts = 10"
        )
        repeated = query(settings, "SELECT sum(attempts > 1), max(attempts) FROM jobs")[0]
    stuck = states.get("queued", 0) + states.get("running", 0)
    twice = sum(count != 1 for (count,) in endings)
    return [
        Figure("workers killed with SIGKILL", f"{killed}", f"{kills}", killed == kills),
        Figure("jobs begun more than once, most attempts", f"{repeated[0]}, {repeated[1]}", "told only", True),
        Figure("how the jobs ended", str(states), f"{jobs} done, or failed after ten lost workers",
               states.get("done", 0) + len(given_up) == jobs),
        Figure("stuck", f"{stuck}", "0", stuck == 0),
        Figure("ended more than once", f"{twice} of {len(endings)}", "0", twice == 0 and len(endings) == jobs),
        Figure("done without a report", f"{len(unreported)}", "0", not unreported),
    ]  # fmt: skip


WAITING = 5
GOAL_REFUSAL_MS, GOAL_END_S = 50, 10


def endings(short: bool) -> list[Figure]:
    """How fast a full queue refuses, and how fast the server ends on SIGTERM with a job in its hands.

    The job that was running must wait again afterwards, with no attempt counted.
    """
    refusals = 20 if short else 200
    times: list[float] = []
    told = set()
    with workspace() as folder:
        settings = make_settings(folder, max_waiting=WAITING)
        with Server(settings, STAND_IN) as server:
            connection = server.connect()
            send_upload(connection, photo("sleep 600", 1000, 0))
            wait_until(lambda: query(settings, "SELECT 1 FROM jobs WHERE state = 'running'"), 60)
            for number in range(1, WAITING + 1):
                send_upload(connection, photo("fake", 1000, number))
            for number in range(refusals):
                started = time.monotonic()
                status, answer = send_upload(connection, photo("fake", 1000, 100 + number))
                times.append(time.monotonic() - started)
                told.add((status, answer.get("code"), "retry_after_s" in answer))
                if answer.get("code") == "queue_full":  # an early refusal closes its connection
                    connection.close()
                    connection = server.connect()
            connection.close()
            ended_s = server.terminate()
        states = query(settings, "SELECT state, attempts FROM jobs ORDER BY id LIMIT 1")
    p99_ms = percentile(times, 0.99) * 1e3
    return [
        Figure(f"full queue, {refusals} uploads", f"{sorted(told)}", "429 with Retry-After",
               told == {(429, "queue_full", True)}),
        Figure("its p99", f"{p99_ms:.0f} ms", f"under {GOAL_REFUSAL_MS} ms", p99_ms < GOAL_REFUSAL_MS, True),
        Figure("SIGTERM with a job running", f"{ended_s:.1f} s", f"under {GOAL_END_S} s", ended_s < GOAL_END_S, True),
        Figure("that job", f"{states}", "queued, no attempt counted", states == [("queued", 0)]),
    ]  # fmt: skip


def run(short: bool) -> list[Figure]:
    """All three; a handful of kills in the short form."""
    return [*upload_kills(short), *worker_kills(short), *endings(short)]
