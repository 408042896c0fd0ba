"""Malformed files through a real server and its real worker: what became of each."""

from __future__ import annotations

import collections
import datetime as dt
import http.client
import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks.reliability.common import Server, ask, send_upload

FINAL = ("done", "failed", "cancelled")
PATIENCE_S = 300.0


@dataclass
class Tally:
    """What became of the files.

    Args:
        ends: how many ended with each outcome or error code.
        slowest: seconds of the slowest job, from its start to its end, and its name.
        faults: files that ended otherwise than they should, with a sentence.
    """

    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    slowest: tuple[float, str] = (0.0, "")
    faults: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        return sum(self.ends.values())


def send_all(server: Server, files: Iterable[tuple[str, bytes]], clients: int = 3) -> Tally:
    """Upload each file over HTTP and wait for its end, a few at a time."""
    tally = Tally()
    with ThreadPoolExecutor(clients) as pool:
        for name, seconds, end, fault in pool.map(lambda item: _send(server, *item), files):
            tally.ends[end] += 1
            tally.slowest = max(tally.slowest, (seconds, name))
            if fault:
                tally.faults.append(f"{name}: {fault}")
            if tally.files % 250 == 0:
                slow = f"{tally.slowest[0]:.1f} s"
                print(
                    f"     {tally.files} files, {len(tally.faults)} faults, slowest {slow}", file=sys.stderr, flush=True
                )
    return tally


def _send(server: Server, name: str, data: bytes) -> tuple[str, float, str, str]:
    connection = server.connect(PATIENCE_S)
    try:
        status, answer = send_upload(connection, data, again=True)  # some mutations give the same bytes
        if status == 202:
            return (name, *_follow(connection, answer["id"]))
        code = str(answer.get("code", ""))
        fault = "" if code and 400 <= status < 500 else f"HTTP {status} {code}"
        return name, 0.0, code or f"HTTP {status}", fault
    except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
        return name, 0.0, "no answer", f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def _follow(connection: http.client.HTTPConnection, public_id: str) -> tuple[float, str, str]:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        status, job = ask(connection, "GET", f"/api/jobs/{public_id}")
        if status != 200:
            return 0.0, f"HTTP {status}", f"the job's state answered {status}"
        if job["state"] in FINAL:
            return _judge(job)
        time.sleep(0.03)
    return PATIENCE_S, "never", "it did not end"


def _judge(job: dict[str, Any]) -> tuple[float, str, str]:
    started, finished = (dt.datetime.fromisoformat(job[key]) for key in ("started", "finished"))
    seconds = (finished - started).total_seconds()
    attempts = f"{job['attempts']} attempts: a worker died" if job["attempts"] != 1 else ""
    if job["state"] == "done":
        return seconds, job["result"]["prediction"], attempts
    code = job["error"]["code"] if job["error"] else job["state"]
    return seconds, code, attempts or ("an error that nobody foresaw" if code == "internal" else "")
