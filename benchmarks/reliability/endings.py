"""How fast a full queue refuses, and how fast the server ends on SIGTERM with a job in its hands.

The job that was running when the signal came must wait again afterwards, with no attempt counted.
"""

from __future__ import annotations

import time

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

WAITING = 5
GOAL_REFUSAL_MS, GOAL_END_S = 50, 10


def run(short: bool) -> list[Figure]:
    """200 refusals, or 20 in the short form; then one SIGTERM."""
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


if __name__ == "__main__":
    main(run)
