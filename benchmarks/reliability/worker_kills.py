"""Workers are killed with SIGKILL at random moments, 200 times over 1,000 jobs: each job ends exactly once.

The database itself counts: a trigger notes each time that a job becomes final. The supervisor is the server's own, but
waits less between restarts, because here no worker is to blame for its end.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from pathlib import Path

from benchmarks.reliability.common import STAND_IN, Figure, main, make_settings, photo, query, workspace
from utils.config import Settings
from web_app.jobs.supervisor import RestartPolicy, Supervisor
from web_app.paths import InstancePaths
from web_app.services import Services
from web_app.storage.detections import queue_upload
from web_app.storage.idempotency import Wish
from web_app.storage.upload import Upload

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
        queue_upload(parts.queue, parts.store, upload, "drill", Wish())


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


def run(short: bool) -> list[Figure]:
    """1,000 jobs and 200 kills; 12 jobs and 3 kills in the short form."""
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


if __name__ == "__main__":
    main(run)
