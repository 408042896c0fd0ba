"""Many workers with a stand-in for the networks, which needs time and no processor: how fast, and what they survive."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from benchmarks.reliability.common import Figure, percentile
from benchmarks.scale.house import ENGINE_S, House, house
from tests.ensembles import publish_tiny
from tests.web_app.stand_ins import learn
from utils.weights import current_name, weights_root
from web_app.db.models import FINAL, DetectionRow, JobRow, JobState

EACH = 12
"""Jobs for each worker when throughput is measured."""
SEND_S = 0.04
"""What sending one takes at most."""
LEARNED_AT = 0.3
"""Share of the jobs that are sent before a version is promoted."""


def throughput(workers: Sequence[int]) -> list[Figure]:
    """Jobs a second of N workers that all have work, beside N times what the engine alone would do.

    Beside it stand the milliseconds of the processor that a job costs in the workers, and in the three servers: where
    N times their sum comes near the engine's time on all cores, more workers wait for the processor.
    """
    figures = []
    with house() as found:
        for count in sorted(workers):
            while len(found.workers) < count:
                found.start_worker()
            found.wait_for_workers()
            for number in range(count):  # each has something to do until the queue is full
                found.send(number, 1.0 + count * EACH * SEND_S)
            for number in range(count * EACH):
                found.send(count + number)
            before = found.processor_s()
            begun = found.count(JobRow, JobRow.state.in_(FINAL))
            found.wait_for_jobs()
            jobs = found.count(JobRow) - begun
            spent = [1e3 * (now - then) / jobs for now, then in zip(found.processor_s(), before, strict=True)]
            share = _rate(found.rows()[count:]) * ENGINE_S / count
            found.forget_jobs()
            goal = 0.95 if count <= 16 else 0.9
            figures.append(
                Figure(
                    f"throughput of {count} workers",
                    f"{share:.2f} N; {spent[0]:.0f} + {spent[1]:.0f} ms",
                    f"{goal} N",
                    share >= goal,
                    timed=True,
                )
            )
    return figures


def _rate(rows: Sequence[JobRow]) -> float:
    """Jobs a second while all workers had work."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        assert row.started_at is not None
        assert row.finished_at is not None
        span = (row.started_at.timestamp(), row.finished_at.timestamp())
        spans.setdefault(str(row.worker_id), []).append(span)
    begin = max(min(start for start, _ in each) for each in spans.values())
    end = min(max(stop for _, stop in each) for each in spans.values())
    return sum(begin < stop <= end for each in spans.values() for _, stop in each) / max(end - begin, 1e-9)


def latency(jobs: int) -> list[Figure]:
    """What broker, database, bucket and queue add to one job of an idle worker."""
    with house() as found:
        found.start_worker()
        found.wait_for_workers()
        for number in range(jobs + 2):
            found.send(number, 0.1)
            found.wait_for_jobs()
        rows = found.rows()[2:]
    added = [1e3 * ((row.finished_at - row.created_at).total_seconds() - 0.1) for row in rows if row.finished_at]
    began = [1e3 * (row.started_at - row.created_at).total_seconds() for row in rows if row.started_at]
    figures = []
    for name, values in (("an idle worker begins after", began), ("broker, database, bucket and queue add", added)):
        p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
        value, reached = f"{p50:.0f}, {p99:.0f} ms of {len(values)}", p50 <= 15 and p99 <= 60
        figures.append(Figure(f"{name}, p50 and p99", value, "15, 60 ms", reached, timed=True))
    return figures


def chaos(jobs: int) -> list[Figure]:
    """Kill a worker for every tenth job, start Redis and PostgreSQL anew three times each, take the bucket away."""
    answers: Counter[int] = Counter()
    hasty = 0
    over = threading.Event()
    away_s = 20.0 if jobs >= 1000 else 2.0
    with house(lease_s=3.0) as found:
        for _ in range(4):
            found.start_worker()
        found.wait_for_workers()
        kinds = ["kill"] * max(jobs // 10, 4) + ["redis", "postgres"] * 3 + ["bucket"]
        random.Random(7).shuffle(kinds)  # noqa: S311
        thread = threading.Thread(target=_break, args=(found, kinds, jobs * 0.1, away_s, over), daemon=True)
        thread.start()
        sent = 0
        while sent < jobs or not over.is_set():
            answer = found.send(sent, 0.2)
            answers[answer.status_code] += 1
            hasty += answer.status_code == 503 and "Retry-After" not in answer.headers
            sent += answer.status_code == 202
            time.sleep(0.05)
        thread.join()
        found.wait_for_jobs()
        ended = [(row.attempts, row.state) for row in found.rows()]
    states, attempts = Counter(state for _, state in ended), Counter(count for count, _ in ended)
    lost = answers[202] - states[JobState.DONE]
    told = ", ".join(f"{count} in {number}" for number, count in sorted(attempts.items()))
    kills, name = kinds.count("kill"), f"{answers[202]} jobs"
    return [
        Figure(f"{name}, {kills} workers killed, Redis and PostgreSQL started anew 3 times each, bucket away "
               f"{away_s:.0f} s: done, lost", f"{states[JobState.DONE]}, {lost}; attempts: {told}", "all, 0",
               lost == 0 and len(ended) == answers[202]),
        Figure("answers meanwhile", ", ".join(f"{count} of {code}" for code, count in sorted(answers.items())),
               "202, or 503 with Retry-After", not hasty and set(answers) <= {202, 503}),
    ]  # fmt: skip


def _break(found: House, kinds: Sequence[str], seconds: float, away_s: float, over: threading.Event) -> None:
    for kind in kinds:
        time.sleep(seconds / len(kinds))
        if kind == "kill":
            victim = found.workers.pop(0)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            found.start_worker()
        else:
            server = {"redis": found.redis, "postgres": found.postgres, "bucket": found.s3}[kind]
            server.stop()
            time.sleep(away_s if kind == "bucket" else 2.0)
            server.start()
    over.set()


def promotion(workers: int, jobs: int) -> list[Figure]:
    """Promote a version while workers, each with a folder of weights of its own, have work."""
    with tempfile.TemporaryDirectory() as place:
        weights = publish_tiny(Path(place) / "trained_models")
        own = Path(shutil.copytree(weights, Path(place) / "server", symlinks=True))
        with house(weights=own) as found:
            for number in range(workers):
                found.start_worker("--follow", settings=found.machine(f"machine-{number}", weights))
            found.wait_for_workers()
            statuses: Counter[int] = Counter()
            promoted = 0.0
            for number in range(jobs):
                statuses[found.send(number, 0.1).status_code] += 1
                if number == int(jobs * LEARNED_AT):
                    with found.parts.shared.acting():
                        learn(found.parts)
                    promoted = time.time()
                time.sleep(0.1 / workers)
            found.wait_for_jobs()
            new = current_name(weights_root(found.settings))
            asked = sa.select(JobRow.started_at, DetectionRow.model_version).join(DetectionRow.job)
            with found.parts.database.read() as session:
                found_rows = session.execute(asked.where(JobRow.started_at.is_not(None))).all()
            reports = [(start.timestamp(), str(said).split()) for start, said in found_rows if start is not None]
            done = found.count(JobRow, JobRow.state == JobState.DONE)
    mixed = sum(len(set(said)) != 1 for _, said in reports)
    late = max((start - promoted for start, said in reports if said[0] != new), default=0.0)
    served = sum(said[0] == new for _, said in reports)
    return [
        Figure(f"promotion while {workers} workers do {jobs} jobs: failed requests, jobs not done, reports of two "
               "versions", f"{jobs - statuses[202]}, {jobs - done}, {mixed}; {served} by the new one", "0, 0, 0",
               (statuses[202], done, mixed) == (jobs, jobs, 0) and 0 < served < jobs),
        Figure("the last job that the old one began, after the promotion", f"{max(late, 0.0):.1f} s", "10 s",
               late <= 10.0),
    ]  # fmt: skip
