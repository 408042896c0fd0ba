"""How much the server bears: uploads of 1 MB, and what is left of them when the web process is killed."""

from __future__ import annotations

import http.client
import itertools
import threading
import time

from benchmarks.reliability.common import (
    Figure,
    Server,
    at_once,
    make_settings,
    percentile,
    photo,
    query,
    send_upload,
    store_faults,
    workspace,
)

UPLOADERS = 8
PHOTO_BYTES = 1_000_000
GOAL_UPLOADS_PER_S = 40


def run(short: bool) -> list[Figure]:
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
        Figure("uploads of 1 MB, 8 clients", f"{rate:.1f}/s", f"at least {GOAL_UPLOADS_PER_S}/s",
               rate >= GOAL_UPLOADS_PER_S, True),
        Figure("upload p99", f"{percentile(times, 0.99) * 1e3:.0f} ms", "told only", True, True),
        Figure("refused", f"{len(refused)}", "0", not refused),
        Figure("accepted, then lost by kill -9", f"{len(lost)} of {len(accepted)}", "0", not lost and bool(accepted)),
        Figure("rows without their whole file", f"{len(faults)}", "0", not faults),
    ]  # fmt: skip
