"""What is measured from outside: a server with its worker under 1, 4 and 16 clients, its start, and its memory."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import sys
import time
from pathlib import Path

from benchmarks.bench.media import photo
from benchmarks.bench.timing import Row
from benchmarks.reliability.common import (
    CONTENT_TYPE,
    Server,
    at_once,
    make_settings,
    memory_kb,
    multipart,
    percentile,
    query,
)
from utils.config import Settings
from web_app.jobs.supervisor import WORKER

START_LIMIT_S = 180.0


def server_settings(folder: Path, base: Settings) -> Settings:
    """A server of its own below a folder, with the weights and networks of `base`, and without limits of pace."""
    own = make_settings(folder)
    return dataclasses.replace(
        base,
        server=own.server,
        storage=own.storage,
        security=dataclasses.replace(base.security, requests_per_minute=0, uploads_per_minute=0),
    )


def serve(folder: Path, base: Settings, short: bool = False) -> list[Row]:
    """Throughput and latencies of photos over HTTP, starts, and memory."""
    settings = server_settings(folder, base)
    rows: list[Row] = []
    for name in ("second start",) if short else ("first start", "second start"):
        started = time.perf_counter()
        with Server(settings, WORKER) as server:
            web_s = time.perf_counter() - started
            server.wait_ready(START_LIMIT_S)
            rows.append(Row("start", f"{name}, page answers", round(web_s, 2), "s"))
            rows.append(Row("start", f"{name}, networks ready", round(time.perf_counter() - started, 2), "s"))
            if name == "second start":
                rows += _memory(server, "at rest")
                rows += _throughput(server, short)
                rows += _memory(server, "after the load")
            server.terminate()
    return rows


def _throughput(server: Server, short: bool) -> list[Row]:
    rows: list[Row] = []
    alone = 0.0
    _load(server, 1, 2, 90_000)
    for clients in (1, 2) if short else (1, 4, 16):
        seconds, times = _load(server, clients, 4 if short else max(24, 3 * clients), 1000 * clients)
        rate = len(times) / seconds
        alone = alone or rate
        section = f"server, {clients} client{'s' if clients > 1 else ''}"
        rows.append(Row(section, "photos per second", round(rate, 2), "per s", ratio=round(rate / alone, 3)))
        for share in (0.5, 0.95, 0.99):
            rows.append(Row(section, f"p{round(100 * share)}", round(1000 * percentile(times, share), 1), "ms"))
    return rows


def _load(server: Server, clients: int, count: int, first: int) -> tuple[float, list[float]]:
    """Seconds in all and of each photo, when so many clients send different photos one after the other."""
    bodies = [multipart(photo(number=first + i)) for i in range(count)]
    times: list[float] = []
    failures: list[str] = []

    def client() -> None:
        with contextlib.closing(server.connect(120.0)) as connection:
            while bodies:
                with contextlib.suppress(IndexError):  # another client was faster
                    send(connection, bodies.pop())

    def send(connection: http.client.HTTPConnection, body: bytes) -> None:
        started = time.perf_counter()
        connection.request("POST", "/api/detect/image?wait=1", body, {"Content-Type": CONTENT_TYPE})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status == 200:
            times.append(time.perf_counter() - started)
        else:
            failures.append(f"{answer.status} {json.loads(said)}")

    started = time.perf_counter()
    with at_once([client] * clients):
        pass
    if failures:
        raise RuntimeError(f"{len(failures)} uploads failed, such as {failures[0]}")
    return time.perf_counter() - started, times


def _memory(server: Server, when: str) -> list[Row]:
    if sys.platform != "linux":
        return []
    ((worker,),) = query(server.settings, "SELECT pid FROM workers")
    return [
        Row(f"memory {when}", name, round(memory_kb(pid) / 1024, 0), "MiB")
        for name, pid in (("web process", server.pid), ("worker", worker))
    ]
