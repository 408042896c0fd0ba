"""Half an hour of ordinary use of the whole server, with tiny networks: nothing fails, nothing is lost, nothing grows.

Two users upload photos, follow them, read the report, the file and the history, give feedback and delete what is old.
Memory and open files of the web process and of the worker are noted every few seconds.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.bench.media import photo
from benchmarks.reliability.common import (
    Figure,
    Server,
    ask,
    at_once,
    make_settings,
    memory_kb,
    query,
    wait_until,
    workspace,
)
from tests.ensembles import publish_tiny
from utils.config import DetectionSettings, Settings, WeightsSettings
from web_app.jobs.supervisor import WORKER

MINUTES = 30
USERS = 2
KEPT = 10  # analyses of each user; older ones are deleted
PAUSE_S = 0.5
SAMPLE_S = 5.0
WARM_UP = 0.4  # share of the run before memory is judged: caches and pools fill first
GOAL_MB_PER_MIN = 1.0
GOAL_DESCRIPTORS = 8


class Look(NamedTuple):
    """One look at a process: minutes since the start, MB of memory, open descriptors."""

    minute: float
    memory_mb: float
    descriptors: int


class User:
    """One person's session, and what they met; `number` tells the users' photos apart."""

    def __init__(self, server: Server, number: int) -> None:
        self.statuses: Counter[int] = Counter()
        self.unexpected: list[str] = []
        self.kept: list[str] = []
        self.done = 0
        self._connection = server.connect(120)
        self._number = number * 1_000_000

    def use_for(self, seconds: float) -> None:
        """One analysis after the other, for so long."""
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                self._use_once()
                time.sleep(PAUSE_S)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.unexpected.append(f"{type(error).__name__}: {error}")
        finally:
            self._connection.close()

    def _use_once(self) -> None:
        """One analysis from upload to feedback, and a look around."""
        self._number += 1
        picture = photo(640, 480, self._number)
        status, answer = self._ask("POST", "/api/detect", picture, Prefer="respond-async")
        if status != 202:
            self.unexpected.append(f"upload: {status}")
            return
        public_id, state = str(answer["id"]), ""
        while state not in ("done", "failed", "cancelled"):
            time.sleep(0.1)
            state = str(self._ask("GET", f"/api/jobs/{public_id}")[1]["state"])
        if state != "done":
            self.unexpected.append(f"{public_id}: {state}")
        self.done += state == "done"
        self.kept.append(public_id)
        for path in (f"/api/detections/{public_id}", f"/api/detections/{public_id}/media", "/api/history", "/",
                     "/api/ready", "/metrics"):  # fmt: skip
            self._ask("GET", path)
        self._ask("POST", "/api/feedback", {"id": public_id, "feedback": "correct", "actual": "real"})
        if len(self.kept) > KEPT:
            self._ask("DELETE", f"/api/detections/{self.kept.pop(0)}")

    def _ask(self, method: str, path: str, value: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        status, answer = ask(self._connection, method, path, value, **headers)
        self.statuses[status] += 1
        return status, answer


def look_at(pid: int, minute: float) -> Look:
    """Memory and descriptors of a process."""
    return Look(minute, memory_kb(pid) / 1e3, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))


def growth(looks: Sequence[Look]) -> tuple[float, int]:
    """After the warm-up: MB a minute by least squares, and descriptors from its first fifth to its last, by medians."""
    late = np.array(looks[int(len(looks) * WARM_UP) :])
    slope = float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) if len(late) > 2 else 0.0
    fifth = max(1, len(late) // 5)
    return slope, int(np.median(late[-fifth:, 2]) - np.median(late[:fifth, 2]))


def soak(settings: Settings, seconds: float) -> tuple[list[User], dict[str, list[Look]], list[str]]:
    """Let the users be there for so long; them, the looks at each process, and what is lost of what they kept."""
    with Server(settings, WORKER) as server:
        ((worker_pid,),) = wait_until(lambda: query(settings, "SELECT pid FROM workers"), 300)
        looks: dict[str, list[Look]] = {"web": [], "worker": []}
        users = [User(server, number) for number in range(1, USERS + 1)]
        begun = time.monotonic()
        with at_once(functools.partial(user.use_for, seconds) for user in users) as threads:
            while any(thread.is_alive() for thread in threads):
                minute = (time.monotonic() - begun) / 60
                looks["web"].append(look_at(server.pid, minute))
                looks["worker"].append(look_at(worker_pid, minute))
                time.sleep(min(SAMPLE_S, seconds / 10))
        known = {row[0] for row in query(settings, "SELECT public_id FROM jobs WHERE state = 'done'")}
        if query(settings, "SELECT pid FROM workers") != [(worker_pid,)]:
            users[0].unexpected.append("the worker is not the one that began")
    return users, looks, [public_id for user in users for public_id in user.kept if public_id not in known]


def run(short: bool) -> list[Figure]:
    """Half an hour, or twelve seconds in the short form, which is too short to judge memory."""
    seconds = 12.0 if short else MINUTES * 60.0
    with workspace() as folder:
        settings = dataclasses.replace(
            make_settings(folder, lease_s=30.0),
            detection=DetectionSettings(device="cpu", threads=1),
            weights=WeightsSettings(dir=str(publish_tiny(folder / "versions"))),
        )
        users, looks, lost = soak(settings, seconds)
    statuses = sum((user.statuses for user in users), Counter())
    unexpected, done = [text for user in users for text in user.unexpected], sum(user.done for user in users)
    figures = [
        Figure(f"soak of {seconds / 60:.1f} min: requests", f"{sum(statuses.values())} {dict(statuses)}", "no 5xx",
               not any(status >= 500 for status in statuses)),
        Figure("analyses done, unexpected", f"{done}, {unexpected[:3] or 'none'}", "all", done > 0 and not unexpected),
        Figure("lost", f"{len(lost)}", "0", not lost),
    ]  # fmt: skip
    for name, taken in looks.items():
        slope, more = growth(taken)
        figures += [
            Figure(f"{name}: memory from {taken[0].memory_mb:.0f} to {taken[-1].memory_mb:.0f} MB",
                   f"{slope:+.2f} MB/min", f"under {GOAL_MB_PER_MIN:g} MB/min", slope < GOAL_MB_PER_MIN, True),
            Figure(f"{name}: descriptors at the end {taken[-1].descriptors}", f"{more:+d}", "flat",
                   abs(more) <= GOAL_DESCRIPTORS),
        ]  # fmt: skip
    return figures
