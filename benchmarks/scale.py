"""What many machines bring and bear, on loopback: PostgreSQL, Redis, an S3 server and workers with a stand-in engine.

    python -m benchmarks.scale [throughput latency chaos history | serve] [--workers 1,2] [--jobs 200] [--rows 1000000]

The stand-in needs half a second a job and no processor, so that many workers fit on few cores. Figures are read from
the rows: when a job was accepted, started and finished.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from flask.testing import FlaskClient

from benchmarks.servers import S3, Postgres, Redis, free_port, temporary
from tests.web_app.helpers import accept_weights, make_settings, media_bytes, multipart, upload
from utils.config import Settings, WeightsSettings
from utils.weights import weights_root
from web_app.app import create_app
from web_app.db.models import JobRow, JobState, WorkerRow
from web_app.jobs.supervisor import settings_environ
from web_app.services import EXTENSION, Services

ENGINE_S = 0.5
PATIENCE_S = 300.0
RUNS = ("throughput", "latency", "chaos", "history")


@dataclasses.dataclass
class House:
    """Everything that runs: servers, an application, and workers that are started as they are needed."""

    postgres: Postgres
    redis: Redis
    s3: S3
    settings: Settings
    parts: Services
    client: FlaskClient
    workers: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)

    def start_workers(self, count: int) -> None:
        """Start so many workers, and wait until all have been heard of."""
        environ = {**os.environ, **settings_environ(self.settings), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.web_app.fake_worker"]
        self.workers += [subprocess.Popen(command, env=environ) for _ in range(count)]  # noqa: S603
        self.wait(lambda: self.count(WorkerRow) >= len(self.workers))

    def stop_workers(self) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait()
        self.workers.clear()
        with self.parts.database.write() as session:
            session.execute(sa.delete(WorkerRow))
            session.execute(sa.delete(JobRow))

    def count(self, table: type[WorkerRow] | type[JobRow], *where: sa.ColumnElement[bool]) -> int:
        with self.parts.database.read() as session:
            return session.scalar(sa.select(sa.func.count()).select_from(table).where(*where)) or 0

    def wait(self, condition: object) -> None:
        until = time.monotonic() + PATIENCE_S
        while not condition():  # type: ignore[operator]
            if time.monotonic() > until:
                raise TimeoutError("it did not happen in time")
            time.sleep(0.1)

    def send(self, number: int, seconds: float = ENGINE_S) -> int:
        """Upload a clip that takes the stand-in so long; the status of the answer."""
        content = media_bytes("mp4", f"deaf {seconds}", 400 + number)
        return upload(self.client, content, "/api/detect?wait=0").status_code

    def rows(self) -> list[JobRow]:
        with self.parts.database.read() as session:
            return list(session.scalars(sa.select(JobRow).order_by(JobRow.id)))


@contextlib.contextmanager
def house(lease_s: float = 60.0) -> Iterator[House]:
    """All servers, empty."""
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        postgres, redis = held.enter_context(temporary(Postgres)), held.enter_context(temporary(Redis))
        s3 = held.enter_context(temporary(S3))
        os.environ.update(S3.KEYS)
        plain = make_settings(folder, engine="celery", broker_url=redis.url, lease_s=lease_s, max_waiting=100_000)
        storage = dataclasses.replace(
            plain.storage, database_url=postgres.url, files="s3", s3_url=s3.bucket("telltale")
        )
        security = dataclasses.replace(plain.security, uploads_per_minute=0, requests_per_minute=0)
        settings = dataclasses.replace(plain, storage=storage, security=security)
        app = create_app(settings, verify=accept_weights)
        parts = app.extensions[EXTENSION]
        found = House(postgres, redis, s3, settings, parts, app.test_client())
        held.callback(parts.close)
        held.callback(found.stop_workers)
        yield found


def throughput(workers: list[int]) -> None:
    """Jobs a second of N workers that all have work, beside N times what the engine alone would do."""
    for count in workers:
        with house() as found:
            for number in range(count * 12):
                found.send(number)
            found.start_workers(count)
            found.wait(lambda: not found.count(JobRow, JobRow.state != JobState.DONE))
            spans: dict[str, list[tuple[float, float]]] = {}
            for row in found.rows():
                assert row.started_at is not None
                assert row.finished_at is not None
                span = (row.started_at.timestamp(), row.finished_at.timestamp())
                spans.setdefault(str(row.worker_id), []).append(span)
            begin = max(min(start for start, _ in each) for each in spans.values())
            end = min(max(stop for _, stop in each) for each in spans.values())
            ended = sum(begin < stop <= end for each in spans.values() for _, stop in each)
            rate = ended / max(end - begin, 1e-9)
            print(f"throughput: {count:2} workers {rate:6.2f} jobs/s = {rate * ENGINE_S / count:.2f} N, {_load()}")


def _load() -> str:
    return f"load of the machine {os.getloadavg()[0]:.0f}"


def latency(jobs: int) -> None:
    """What broker, database, bucket and queue add to one job of an idle worker."""
    with house() as found:
        found.start_workers(1)
        for number in range(jobs):
            found.send(number, 0.1)
            found.wait(lambda: not found.count(JobRow, JobRow.state != JobState.DONE))
        rows = found.rows()[2:]
        added = [1e3 * ((row.finished_at - row.created_at).total_seconds() - 0.1) for row in rows if row.finished_at]
        began = [1e3 * (row.started_at - row.created_at).total_seconds() for row in rows if row.started_at]
    for name, values in (("until it starts", began), ("in all", added)):
        p50, p99 = np.percentile(values, [50, 99])
        print(f"latency: {name}: p50 {p50:.0f} ms, p99 {p99:.0f} ms of {len(values)} jobs, {_load()}")


def chaos(jobs: int) -> int:
    """Kill workers, start Redis and PostgreSQL anew, take the bucket away; returns how many jobs are not done."""
    answers: Counter[int] = Counter()
    ended: list[tuple[int, str]] = []
    over = threading.Event()
    with house(lease_s=3.0) as found:
        found.start_workers(4)

        def faults() -> None:
            kinds = ["kill"] * max(jobs // 10, 4) + ["redis", "postgres", "bucket"] * 2
            random.Random(7).shuffle(kinds)  # noqa: S311
            for kind in kinds:
                time.sleep(jobs * 0.1 / len(kinds))
                if kind == "kill":
                    victim = found.workers.pop(0)
                    victim.send_signal(signal.SIGKILL)
                    victim.wait()
                    command, environ = victim.args, {**os.environ, **settings_environ(found.settings)}
                    found.workers.append(subprocess.Popen(command, env=environ))  # noqa: S603
                else:
                    server = {"redis": found.redis, "postgres": found.postgres, "bucket": found.s3}[kind]
                    server.stop()
                    time.sleep(2.0)
                    server.start()
            over.set()

        thread = threading.Thread(target=faults)
        thread.start()
        sent = 0
        while sent < jobs or not over.is_set():
            status = found.send(sent, 0.2)
            answers[status] += 1
            sent += status == 202
            time.sleep(0.1)
        thread.join()
        final = [state for state in JobState if state.final]
        found.wait(lambda: not found.count(JobRow, JobRow.state.not_in(final)))
        ended = [(row.attempts, row.state) for row in found.rows()]
    states, attempts = Counter(state for _, state in ended), Counter(count for count, _ in ended)
    print(f"chaos: answers {dict(answers)}; accepted {answers[202]}, ended {len(ended)}: {dict(states)}")
    lost = answers[202] - states[JobState.DONE]
    print(f"chaos: attempts {dict(attempts)}; not done {lost}")
    return lost


def history(rows: int) -> None:
    """The 99th percentile of list, search and statistics over so many analyses."""
    made = (
        "INSERT INTO jobs (public_id, task, state, fraction, attempts, created_at, started_at, finished_at) "
        "SELECT md5(cast(n AS text)), 'analyse', 'done', 1, 1, t, t, t "
        "FROM (SELECT n, now() - n * interval '1 minute' AS t "
        "FROM generate_series(:rows, 1, -1) n) each",
        "INSERT INTO media (sha256, size_bytes, format, mime, kind, stored_name, created_at) "
        "SELECT md5(cast(n AS text)) || md5('b' || n), 1, 'png', 'image/png', 'image', cast(n AS text), now() "
        "FROM generate_series(1, :rows) n",
        "INSERT INTO detections (job_id, media_id, client_id, display_name, prediction, fake_probability, "
        "model_version, "
        "notices) SELECT jobs.id, media.id, 'client-' || jobs.id % 100, 'photo-' || jobs.id || '.png', "
        "CASE jobs.id % 3 WHEN 0 THEN 'fake' ELSE 'real' END, .5, 'v6', '[]' "
        "FROM jobs JOIN media ON media.id = jobs.id WHERE jobs.id <= :rows",
    )
    asked = {
        "list": "/api/history", "page 50": "/api/history?page=50", "search": "/api/history?text=photo-4242",
        "fakes": "/api/history?prediction=fake", "since": "/api/history?since=2100-01-01",
        "statistics": "/api/rl/stats",
    }  # fmt: skip
    with house() as found:
        for statement in made:
            with found.parts.database.write() as session:
                session.execute(sa.text(statement), {"rows": rows})
        with found.parts.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        for name, address in asked.items():
            took = []
            for _ in range(30):
                began = time.perf_counter()
                answer = found.client.get(address)
                took.append(1e3 * (time.perf_counter() - began))
                assert answer.status_code == 200, answer.get_data(as_text=True)
            p50, p99 = np.percentile(took, [50, 99])
            total = json.loads(answer.data).get("total", "")
            print(f"history of {rows:,}: {name}: p50 {p50:.0f} ms, p99 {p99:.0f} ms {total}")


def serve(*, stand_in: bool, once: bool) -> None:
    """Two servers and two workers that share nothing but database, broker and bucket, until Ctrl-C.

    Args:
        stand_in: workers with the fake analysis instead of networks.
        once: try them by one clip, that is sent to one server and asked of the other, and end.
    """
    with house() as found, contextlib.ExitStack() as held:
        ports = [free_port(), free_port()]
        commands = [["web_app", "serve", "--no-worker", "--port", str(port)] for port in ports]
        worker = ["tests.web_app.fake_worker"] if stand_in else ["web_app", "worker"]
        roles = ("photos", "videos") if stand_in else ("photos,videos", "learning")
        commands += [[*worker, "--queues", each] for each in roles]
        for number, command in enumerate(commands):
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            weights = folder / "trained_models"
            shutil.copytree(weights_root(found.settings), weights, symlinks=True)
            storage = dataclasses.replace(found.settings.storage, instance_dir=str(folder / "instance"))
            own = dataclasses.replace(found.settings, storage=storage, weights=WeightsSettings(dir=str(weights)))
            process = subprocess.Popen([sys.executable, "-m", *command], env={**os.environ, **settings_environ(own)})  # noqa: S603
            held.callback(process.wait)
            held.callback(process.terminate)
            print(f"{number}: {' '.join(command)}", flush=True)
        found.wait(lambda: found.count(WorkerRow) == 2)
        first, second = (f"http://127.0.0.1:{port}" for port in ports)
        found.wait(lambda: all(_ask(f"{each}/api/health") for each in (first, second)))
        print(f"Telltale is ready at {first} and {second} (Ctrl+C ends it)", flush=True)
        if not once:
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            return
        public_id = _ask(f"{first}/api/detect?wait=0", multipart(media_bytes("mp4"), "clip.mp4"))["id"]
        found.wait(lambda: _ask(f"{second}/api/jobs/{public_id}")["state"] == "done")
        print(_ask(f"{second}/api/detections/{public_id}")["prediction"])


def _ask(address: str, body: bytes | None = None) -> dict[str, Any]:
    """The JSON of an answer; empty while nobody answers."""
    request = urllib.request.Request(address, body, {"Content-Type": "multipart/form-data; boundary=b"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - an address of this machine
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except OSError:
        return {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", choices=[*RUNS, "serve", []], default=[], help="all by default")
    parser.add_argument("--workers", default="1,2,4,8,16,32", help="how many, one after the other")
    parser.add_argument("--jobs", type=int, default=200, help="of latency and chaos")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the history")
    parser.add_argument("--stand-in", action="store_true", help="serve: workers without networks")
    parser.add_argument("--once", action="store_true", help="serve: try one clip and end")
    given = parser.parse_args()
    if "serve" in given.runs:
        serve(stand_in=given.stand_in, once=given.once)
        return 0
    chosen = given.runs or RUNS
    if "throughput" in chosen:
        throughput([int(count) for count in given.workers.split(",")])
    if "latency" in chosen:
        latency(given.jobs)
    lost = chaos(given.jobs) if "chaos" in chosen else 0
    if "history" in chosen:
        history(given.rows)
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
