"""Does anybody wait for the learning? A server with its real worker, first alone, then while it learns.

    python -m benchmarks.learning_load [--media 50] [--photos 60]         (or: make learning-load)

One client sends a photo a second. First nothing else happens; then, in the same run, so many media get feedback, are
prepared, and three trainings run one after the other. Compared are the 95th percentiles of `/api/detect/image`; of the
worker, its memory before the first feedback and after the last training. The machine's load is told beside.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.bench.media import photo
from benchmarks.bench.serving import server_settings
from benchmarks.common import tell
from benchmarks.reliability.common import (
    Figure,
    Server,
    ask,
    memory_kb,
    percentile,
    print_figures,
    query,
    wait_until,
    workspace,
)
from utils.config import Settings, load_settings
from utils.weights import weights_root
from web_app.jobs.supervisor import worker_command

PACE_S, LONGEST_S = 1.0, 900.0
TRAININGS = 3


def told(connection: http.client.HTTPConnection, method: str, path: str, value: Any = None) -> dict[str, Any]:
    """The answer of the API.

    Raises:
        RuntimeError: it is an error.
    """
    status, said = ask(connection, method, f"/api/{path}", value)
    if status >= 400:
        raise RuntimeError(f"{method} {path}: {status} {said.get('detail')}")
    return said


class Client:
    """Sends a photo each second until it is stopped, and notes how long each took.

    Args:
        server: that answers.
        first: number of its first photo; no two clients send the same one.
    """

    def __init__(self, server: Server, first: int) -> None:
        self.times: list[float] = []
        self._server, self._number = server, first
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        with contextlib.closing(self._server.connect(120.0)) as connection:
            while not self._stop.is_set():
                body, started = photo(number=self._number), time.perf_counter()
                told(connection, "POST", "detect/image?wait=1", body)
                self.times.append(time.perf_counter() - started)
                self._number += 1
                self._stop.wait(max(0.0, PACE_S - self.times[-1]))


def measure(settings: Settings, media: int, photos: int) -> list[Figure]:
    """Run server and clients; the figures with their goals."""
    with Server(settings, worker_command()) as server, contextlib.closing(server.connect(120.0)) as connection:
        server.wait_ready()
        said = [told(connection, "POST", "detect/image?wait=1", photo(number=n)) for n in range(media)]
        with Client(server, 10_000) as alone:
            wait_until(lambda: len(alone.times) >= photos, LONGEST_S)
        ((worker,),) = query(settings, "SELECT pid FROM workers")
        before, seconds = memory_kb(worker), []
        with Client(server, 20_000) as beside:
            for number in range(TRAININGS):
                for each in said[number::TRAININGS]:
                    vote = {"id": each["id"], "feedback": "incorrect", "actual": "fake" if number % 2 else "real"}
                    vote["feedback"] = "correct" if vote["actual"] == each["prediction"] else "incorrect"
                    told(connection, "POST", "feedback", vote)
                count = sum(len(said[n::TRAININGS]) for n in range(number + 1))
                wait_until(lambda count=count: _looked_at(connection) >= count, LONGEST_S)  # type: ignore[misc]
                where = told(connection, "POST", "rl/retrain")["id"]
                ended = wait_until(lambda where=where: _ended(connection, where), LONGEST_S)  # type: ignore[misc]
                tell(f"{ended['state']}: {(ended['result'] or {}).get('reason', ended['error'])}")
                seconds.append((ended["result"] or {}).get("seconds", 0.0))
        grown = (memory_kb(worker) - before) / 1024
    p95 = [percentile(client.times, 0.95) for client in (alone, beside)]
    return [
        Figure("p95 of a photo while media are prepared and trainings run, over idle",
               f"{p95[1] / p95[0]:.2f} ({1000 * p95[1]:.0f} ms of {len(beside.times)}, {1000 * p95[0]:.0f} ms of "
               f"{len(alone.times)})", "1.30", p95[1] <= 1.3 * p95[0], timed=True),
        Figure("longest training beside analyses", f"{max(seconds):.1f} s", "30 s", max(seconds) <= 30, timed=True),
        Figure("the worker has grown", f"{grown:.0f} MiB", "100 MiB", grown <= 100),
    ]  # fmt: skip


def _looked_at(connection: http.client.HTTPConnection) -> int:
    counts = told(connection, "GET", "rl/stats")["feedback"]
    return int(counts["total"] - counts["quarantined"]["waiting"])


def _ended(connection: http.client.HTTPConnection, training: str) -> dict[str, Any] | None:
    job = told(connection, "GET", f"rl/retrain/{training}")
    return job if job["state"] in ("done", "failed") else None


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command: 0 when every goal was reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning_load", description=__doc__)
    parser.add_argument("--media", type=int, default=50, help="that get feedback")
    parser.add_argument("--photos", type=int, default=60, help="that are sent while nothing else happens")
    chosen = parser.parse_args(arguments)
    with workspace() as folder:
        settings = load_settings()
        copied = shutil.copytree(weights_root(settings), Path(folder) / "models")  # trainings write and promote there
        own = dataclasses.replace(settings, weights=dataclasses.replace(settings.weights, dir=str(copied)))
        figures = measure(server_settings(Path(folder), own), chosen.media, chosen.photos)
        print_figures(figures)
    print(f"load of the machine in the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 0 if all(figure.reached for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
