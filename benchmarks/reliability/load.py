"""How much the server bears: uploads of 1 MB, and a hundred clients that ask for the state of their jobs."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.reliability.common import (
    STAND_IN,
    Figure,
    Server,
    at_once,
    make_settings,
    percentile,
    photo,
    query,
    send_upload,
    store_faults,
    wait_until,
    workspace,
)

UPLOADERS = 8
PHOTO_BYTES = 1_000_000
GOAL_UPLOADS_PER_S = 40


def uploads(short: bool) -> list[Figure]:
    """Eight clients upload while the worker is stopped; then the web process is killed with SIGKILL.

    Every id that was answered with 202 must be in the database with its whole file on the disk.
    """
    seconds = 2.0 if short else 30.0
    accepted: list[str] = []
    refused: list[int] = []
    times: list[float] = []
    numbers = itertools.count()
    ending = threading.Event()

    with workspace() as folder:
        settings = make_settings(folder)
        with Server(settings) as server:

            def upload_on() -> None:
                connection = server.connect()
                try:
                    while not ending.is_set():
                        started = time.monotonic()
                        status, answer = send_upload(connection, photo("fake", PHOTO_BYTES, next(numbers)))
                        if status == 202:
                            accepted.append(answer["id"])
                            times.append(time.monotonic() - started)
                        else:
                            refused.append(status)
                except (OSError, http.client.HTTPException, ValueError):
                    return  # the server was killed in the middle of this upload, which nobody was promised
                finally:
                    connection.close()

            started = time.monotonic()
            with at_once([upload_on] * UPLOADERS, 60):
                time.sleep(seconds)
                rate = len(accepted) / (time.monotonic() - started)
                server.kill()
                ending.set()
        known = {row[0] for row in query(settings, "SELECT public_id FROM jobs JOIN detections ON job_id = jobs.id")}
        lost = [public_id for public_id in accepted if public_id not in known]
        faults = store_faults(settings)
    return [
        Figure(
            "uploads of 1 MB, 8 clients",
            f"{rate:.1f}/s",
            f"at least {GOAL_UPLOADS_PER_S}/s",
            rate >= GOAL_UPLOADS_PER_S,
            True,
        ),
        Figure("upload p99", f"{percentile(times, 0.99) * 1e3:.0f} ms", "told only", True, True),
        Figure("refused", f"{len(refused)}", "0", not refused),
        Figure("accepted, then lost by kill -9", f"{len(lost)} of {len(accepted)}", "0", not lost and bool(accepted)),
        Figure("rows without their whole file", f"{len(faults)}", "0", not faults),
    ]


ASKERS = 100
GOAL_PER_S, GOAL_P99_MS = 300, 100
INTERVAL_S = 0.3  # 333 questions a second in all


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


async def _client(port: int, public_id: str, begin: float, end: float, interval_s: float) -> list[tuple[int, float]]:
    """Status and waiting time of each question of one client; an interval of 0 asks without a pause."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET /api/jobs/{public_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    answers = []
    due = begin
    try:
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            asked = due if interval_s else time.monotonic()
            status = await _ask(reader, writer, request)
            answers.append((status, time.monotonic() - asked))
            due = due + interval_s if interval_s else time.monotonic()
    finally:
        writer.close()
    return answers


async def _load(port: int, ids: list[str], seconds: float, interval_s: float) -> list[tuple[int, float]]:
    begin = time.monotonic() + 0.5
    spread = interval_s / len(ids)
    clients = [
        _client(port, public_id, begin + spread * i, begin + seconds, interval_s) for i, public_id in enumerate(ids)
    ]
    return [answer for answers in await asyncio.gather(*clients) for answer in answers]


def polling(short: bool) -> list[Figure]:
    """A hundred clients ask for their jobs while the only worker is busy, on a fixed schedule and without a pause.

    A late answer makes the next question late, and its lateness counts as waiting.
    """
    seconds, clients = (1.0, 10) if short else (20.0, ASKERS)
    with workspace() as folder:
        settings = make_settings(folder)
        with Server(settings, STAND_IN) as server:
            connection = server.connect()
            ids = [send_upload(connection, photo("sleep 600", 1000, n))[1]["id"] for n in range(clients)]
            connection.close()
            wait_until(lambda: query(settings, "SELECT 1 FROM jobs WHERE state = 'running'"), 60)
            with ThreadPoolExecutor(1) as other:  # the caller's thread may have an event loop of its own
                paced = other.submit(
                    lambda: asyncio.run(_load(settings.server.port, ids, seconds, INTERVAL_S))
                ).result()
                hurried = other.submit(lambda: asyncio.run(_load(settings.server.port, ids, seconds, 0.0))).result()
    rate = len(paced) / seconds
    p99_ms = percentile([waited for _, waited in paced], 0.99) * 1e3
    most = len(hurried) / seconds
    wrong = sum(status != 200 for status, _ in paced + hurried)
    return [
        Figure(f"status, {clients} clients on schedule", f"{rate:.0f}/s", f"at least {GOAL_PER_S}/s",
               rate >= GOAL_PER_S, True),
        Figure("its p99", f"{p99_ms:.0f} ms", f"under {GOAL_P99_MS} ms", p99_ms < GOAL_P99_MS, True),
        Figure(f"status, {clients} clients without pause", f"{most:.0f}/s", f"at least {GOAL_PER_S}/s",
               most >= GOAL_PER_S, True),
        Figure("answers other than 200", f"{wrong}", "0", wrong == 0),
    ]  # fmt: skip


def run(short: bool) -> list[Figure]:
    """Both; seconds instead of half a minute in the short form."""
    return [*uploads(short), *polling(short)]
