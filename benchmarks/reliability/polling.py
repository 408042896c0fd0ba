"""A hundred clients ask for the state of their jobs while the only worker is busy.

Each client asks on a fixed schedule, as the page does; a late answer makes the next question late, and its lateness
counts as waiting. A second run asks as fast as the server answers.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.reliability.common import (
    STAND_IN,
    Figure,
    Server,
    main,
    make_settings,
    percentile,
    photo,
    query,
    send_upload,
    wait_until,
    workspace,
)

CLIENTS = 100
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


def run(short: bool) -> list[Figure]:
    """Measure twice 20 s, or twice 1 s with ten clients in the short form."""
    seconds, clients = (1.0, 10) if short else (20.0, CLIENTS)
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


if __name__ == "__main__":
    main(run)
