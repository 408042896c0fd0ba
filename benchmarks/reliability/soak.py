"""Half an hour of ordinary use of the whole server, with tiny networks: nothing fails, nothing is lost, nothing grows.

Two users upload photos, follow them, read the report, the file and the history, give feedback and delete what is old.
Memory and open files of the web process and of the worker are noted every few seconds.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import io
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.data import astronaut

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
from web_app.jobs.supervisor import worker_command

MINUTES = 30
USERS = 2
KEPT = 10  # analyses of each user; older ones are deleted
PAUSE_S = 0.5
SAMPLE_S = 5.0
WARM_UP = 0.4  # share of the run before memory is judged: caches and pools fill first
GOAL_MB_PER_MIN = 1.0
GOAL_DESCRIPTORS = 8


@dataclasses.dataclass
class Diary:
    """What the users met."""

    statuses: Counter[int] = dataclasses.field(default_factory=Counter)
    done: int = 0
    unexpected: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One look at a process: minutes since the start, MB of memory, open descriptors."""

    minute: float
    memory_mb: float
    descriptors: int


def some_photo(number: int) -> bytes:
    """A portrait that differs from all others in its noise and its place, as JPEG: each with a face that is found."""
    noise = np.random.default_rng(number)
    pixels = np.roll(astronaut(), int(noise.integers(0, 24)), axis=1).astype(np.int16)
    pixels = np.clip(pixels + noise.integers(-6, 7, size=pixels.shape), 0, 255).astype(np.uint8)
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG", quality=85)
    return packed.getvalue()


class User:
    """One person's session; `number` tells the users' photos apart."""

    def __init__(self, server: Server, number: int, diary: Diary) -> None:
        self._connection = server.connect(120)
        self._number = number * 1_000_000
        self._diary = diary
        self._kept: list[str] = []

    def use_once(self) -> None:
        """One analysis from upload to feedback, and a look around."""
        self._number += 1
        status, answer = self._ask("POST", "/api/detect", some_photo(self._number), Prefer="respond-async")
        if status != 202:
            self._diary.unexpected.append(f"upload: {status}")
            return
        public_id = str(answer["id"])
        state = ""
        while state not in ("done", "failed", "cancelled"):
            time.sleep(0.1)
            state = str(self._ask("GET", f"/api/jobs/{public_id}")[1]["state"])
        if state != "done":
            self._diary.unexpected.append(f"{public_id}: {state}")
        self._diary.done += state == "done"
        self._kept.append(public_id)
        for path in (f"/api/detections/{public_id}", f"/api/detections/{public_id}/media", "/api/history", "/",
                     "/api/ready", "/metrics"):  # fmt: skip
            self._ask("GET", path)
        self._ask("POST", "/api/feedback", {"id": public_id, "feedback": "correct", "actual": "real"})
        if len(self._kept) > KEPT:
            self._ask("DELETE", f"/api/detections/{self._kept.pop(0)}")

    def _ask(self, method: str, path: str, value: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        status, answer = ask(self._connection, method, path, value, **headers)
        self._diary.statuses[status] += 1
        return status, answer

    def leave(self) -> list[str]:
        """End the session; the analyses that must still be there."""
        self._connection.close()
        return self._kept


def look_at(pid: int, minute: float) -> Sample:
    """Memory and descriptors of a process."""
    return Sample(minute, memory_kb(pid) / 1e3, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))


def slope_mb_per_min(samples: list[Sample]) -> float:
    """Growth of memory after the warm-up, by least squares."""
    late = samples[int(len(samples) * WARM_UP) :]
    if len(late) < 3:
        return 0.0
    slope, _ = np.polyfit([s.minute for s in late], [s.memory_mb for s in late], 1)
    return float(slope)


def growth_of_descriptors(samples: list[Sample]) -> int:
    """Median of the last fifth less that of the fifth after the warm-up."""
    counts = [s.descriptors for s in samples[int(len(samples) * WARM_UP) :]]
    fifth = max(1, len(counts) // 5)
    return int(np.median(counts[-fifth:]) - np.median(counts[:fifth]))


def soak(settings: Settings, seconds: float) -> tuple[Diary, dict[str, list[Sample]], list[str]]:
    """Run the users for so long; the diary, the samples per process, and what they kept but the server has not."""
    diary = Diary()
    with Server(settings, worker_command()) as server:
        ((worker_pid,),) = wait_until(lambda: query(settings, "SELECT pid FROM workers"), 300)
        samples: dict[str, list[Sample]] = {"web": [], "worker": []}
        users = [User(server, number, diary) for number in range(1, USERS + 1)]
        begun = time.monotonic()

        def go_on(user: User) -> None:
            while time.monotonic() - begun < seconds:
                try:
                    user.use_once()
                except (OSError, http.client.HTTPException, ValueError) as error:
                    diary.unexpected.append(f"{type(error).__name__}: {error}")
                    return
                time.sleep(PAUSE_S)

        with at_once(functools.partial(go_on, user) for user in users) as threads:
            while any(thread.is_alive() for thread in threads):
                minute = (time.monotonic() - begun) / 60
                samples["web"].append(look_at(server.pid, minute))
                samples["worker"].append(look_at(worker_pid, minute))
                time.sleep(min(SAMPLE_S, seconds / 10))
        kept = [public_id for user in users for public_id in user.leave()]
        known = {row[0] for row in query(settings, "SELECT public_id FROM jobs WHERE state = 'done'")}
        if query(settings, "SELECT pid FROM workers") != [(worker_pid,)]:
            diary.unexpected.append("the worker is not the one that began")
    return diary, samples, [public_id for public_id in kept if public_id not in known]


def run(short: bool) -> list[Figure]:
    """Half an hour, or twelve seconds in the short form, which is too short to judge memory."""
    seconds = 12.0 if short else MINUTES * 60.0
    with workspace() as folder:
        settings = dataclasses.replace(
            make_settings(folder, lease_s=30.0),
            detection=DetectionSettings(device="cpu", threads=1),
            weights=WeightsSettings(dir=str(publish_tiny(folder / "versions"))),
        )
        diary, samples, lost = soak(settings, seconds)
    failures = sum(count for status, count in diary.statuses.items() if status >= 500)
    figures = [
        Figure(f"soak of {seconds / 60:.1f} min: requests", f"{sum(diary.statuses.values())} {dict(diary.statuses)}",
               "no 5xx", failures == 0),
        Figure("analyses done, unexpected", f"{diary.done}, {diary.unexpected[:3] or 'none'}", "all",
               diary.done > 0 and not diary.unexpected),
        Figure("lost", f"{len(lost)}", "0", not lost),
    ]  # fmt: skip
    for name, taken in samples.items():
        slope, more = slope_mb_per_min(taken), growth_of_descriptors(taken)
        figures += [
            Figure(f"{name}: memory from {taken[0].memory_mb:.0f} to {taken[-1].memory_mb:.0f} MB",
                   f"{slope:+.2f} MB/min", f"under {GOAL_MB_PER_MIN:g} MB/min", slope < GOAL_MB_PER_MIN, True),
            Figure(f"{name}: descriptors at the end {taken[-1].descriptors}", f"{more:+d}", "flat",
                   abs(more) <= GOAL_DESCRIPTORS),
        ]  # fmt: skip
    return figures
