"""A full disk, a locked database, a clock that jumps: coded errors, nothing half done, recovery by itself.

The full disk is a small tmpfs, which needs the right to mount one; without it those figures are left out and said so. A
jump of the clock by an hour is made by moving every stored time by an hour the other way, which is the same to the
server and needs no right at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.common import (
    STAND_IN,
    Figure,
    Server,
    ask,
    at_once,
    make_settings,
    photo,
    query,
    send_upload,
    store_faults,
    wait_until,
    workspace,
)
from utils.config import Settings, StorageSettings
from utils.feedback.feedback_log import read_feedback_log
from utils.weights import current_name, list_versions, publish_version, set_current
from web_app.paths import InstancePaths

DISK_MB = 24
RESERVE_MB = 6
PHOTO_BYTES = 400_000
LOCK_S = 10.0
HOUR_S = 3600


@contextlib.contextmanager
def small_disk() -> Iterator[Path | None]:
    """A file system of a few MB; None where mounting one is not allowed."""
    folder = Path(tempfile.mkdtemp(prefix="telltale-disk-"))
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", "tmpfs", str(folder)]
    mounted = mount is not None and subprocess.run(command, capture_output=True).returncode == 0  # noqa: S603
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run([shutil.which("umount") or "umount", "-l", str(folder)], check=True)  # noqa: S603
        folder.rmdir()


def _fill(folder: Path) -> Path:
    """Take all room that is left; returns the file to delete for having it back."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    return filler


def _send_feedback(connection: http.client.HTTPConnection, public_id: str) -> tuple[int, str]:
    status, said = ask(connection, "POST", "/api/feedback", {"id": public_id, "feedback": "correct"})
    return status, str(said.get("code", ""))


def full_disk() -> list[Figure]:
    """Uploads until nothing fits, feedback and a promotion on the full disk, then room again."""
    with small_disk() as disk, workspace() as folder:
        if disk is None:
            return [Figure("full disk", "left out: this user may not mount a tmpfs", "told only", True)]
        settings = make_settings(folder)
        settings = dataclasses.replace(
            settings, storage=StorageSettings(instance_dir=str(disk / "instance"), reserve_mb=RESERVE_MB)
        )
        with Server(settings, STAND_IN) as server:
            connection = server.connect()
            ids, refusals = _upload_until_full(connection)
            wait_until(lambda: not query(settings, "SELECT 1 FROM jobs WHERE state IN ('queued', 'running')"), 120)
            judged = [i for i in ids if query(settings, "SELECT 1 FROM jobs WHERE public_id = ? AND state = 'done'", i)]
            filler = _fill(disk)
            feedback = _send_feedback(connection, judged[0])
            again = send_upload(connection, photo("fake", PHOTO_BYTES, 9000))
            faults = store_faults(settings)
            halves = list(InstancePaths.of(settings).uploads.rglob("*.part"))
            promotion = _promote_on_full_disk(disk, filler)
            filler.unlink(missing_ok=True)
            shutil.rmtree(disk / "versions")
            for public_id in ids[: len(ids) // 2]:
                ask(connection, "DELETE", f"/api/detections/{public_id}")
            recovered = send_upload(connection, photo("fake", PHOTO_BYTES, 9001))[0]
            feedback_after = _send_feedback(connection, judged[-1])[0]
            connection.close()
        log = read_feedback_log(InstancePaths.of(settings).feedback_log)
    codes = {*refusals, feedback, (again[0], str(again[1].get("code")))}
    return [
        Figure("full disk: uploads and feedback", f"{sorted(codes)}", "507 storage_full only",
               codes == {(507, "storage_full")}),
        Figure("full disk: half files, rows without a file", f"{len(halves)}, {len(faults)}", "0, 0",
               not halves and not faults),
        Figure("full disk: feedback lines torn", f"{len(log.damaged)}", "0", not log.damaged),
        Figure("full disk: promotion", promotion, "refused, the version in use stays",
               promotion == "refused, v-one stays"),
        Figure("with room again: upload, feedback", f"{recovered}, {feedback_after}", "202, 201",
               (recovered, feedback_after) == (202, 201)),
    ]  # fmt: skip


def _upload_until_full(connection: http.client.HTTPConnection) -> tuple[list[str], list[tuple[int, str]]]:
    ids: list[str] = []
    refusals: list[tuple[int, str]] = []
    for number in range(4 * DISK_MB):
        status, answer = send_upload(connection, photo("fake", PHOTO_BYTES, number))
        if status == 202:
            ids.append(str(answer["id"]))
        else:
            refusals.append((status, str(answer.get("code"))))
            if len(refusals) == 3:
                break
    return ids, refusals


def _promote_on_full_disk(disk: Path, filler: Path) -> str:
    """Publish a version while there is room, fill the disk, and try to publish and to serve another."""
    root = disk / "versions"
    filler.unlink()
    root.mkdir()
    tensors = {"gate": {"weight": np.zeros(1000, dtype=np.float32)}}
    documents: dict[str, dict[str, Any]] = {"calibration": {}, "card": {}}
    publish_version(root, "v-one", tensors, documents)
    set_current(root, "v-one")
    _fill(disk)
    large = {"gate": {"weight": np.ones(1_000_000, dtype=np.float32)}}
    try:
        publish_version(root, "v-two", large, documents)
        set_current(root, "v-two")
    except Exception as error:  # noqa: BLE001 - safetensors has an error of its own for a disk that refuses
        said = "refused" if "space" in str(error).lower() or isinstance(error, OSError) else f"failed: {error}"
    else:
        said = "done on a full disk"
    complete = list_versions(root) == ("v-one",)
    return f"{said}, {current_name(root)} stays" + ("" if complete else ", with a half version visible")


def locked_database(seconds: float) -> list[Figure]:
    """Another program holds the database's write lock while people upload, ask and a worker works."""
    statuses: list[int] = []
    with workspace() as folder:
        settings = make_settings(folder)
        with Server(settings, STAND_IN) as server:
            first = server.connect(90)
            status, answer = send_upload(first, photo("sleep 1", 1000, 0))
            wait_until(lambda: query(settings, "SELECT 1 FROM workers"), 120)
            blocker = sqlite3.connect(InstancePaths.of(settings).database, timeout=30, isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")

            def upload(number: int) -> None:
                connection = server.connect(90)
                statuses.append(send_upload(connection, photo("fake", 1000, number))[0])
                connection.close()

            with at_once((functools.partial(upload, number) for number in range(1, 5)), 90):
                asked = time.monotonic()
                read_status, _ = ask(first, "GET", f"/api/jobs/{answer['id']}")
                read_s = time.monotonic() - asked
                time.sleep(seconds)
                blocker.execute("ROLLBACK")
                blocker.close()
            wait_until(lambda: not query(settings, "SELECT 1 FROM jobs WHERE state IN ('queued', 'running')"), 120)
            first.close()
        done = query(settings, "SELECT count(*) FROM jobs WHERE state = 'done'")[0][0]
        faults = store_faults(settings)
    accepted = statuses.count(202) + (status == 202)
    return [
        Figure(f"database locked {seconds:g} s: uploads", f"{sorted(statuses)}", "202, or 503 with Retry-After",
               len(statuses) == 4 and set(statuses) <= {202, 503}),
        Figure("meanwhile a question for a job", f"{read_status} after {read_s * 1e3:.0f} ms", "200",
               read_status == 200),
        Figure("accepted and then done", f"{done} of {accepted}", "all", done == accepted and not faults),
    ]  # fmt: skip


def clock_jumps() -> list[Figure]:
    """An hour forth and an hour back while a worker works; then one dies while its lease lies an hour ahead."""
    return [_clock_jumps(name, seconds) for name, seconds in (("forth", HOUR_S), ("back", -HOUR_S))]


def _clock_jumps(name: str, seconds: int) -> Figure:
    with workspace() as folder:
        settings = make_settings(folder)
        with Server(settings, STAND_IN) as server:
            connection = server.connect()
            ids = [str(send_upload(connection, photo("sleep 1", 1000, n))[1]["id"]) for n in range(3)]
            wait_until(lambda: query(settings, "SELECT 1 FROM jobs WHERE state = 'running'"), 120)
            _move_clock(settings, seconds)
            marks = ", ".join("?" * len(ids))
            sql = f"SELECT state FROM jobs WHERE public_id IN ({marks})"  # noqa: S608 - question marks only
            wait_until(lambda: {row[0] for row in query(settings, sql, *ids)} == {"done"}, 120)
            wait_until(lambda: ask(connection, "GET", "/api/ready")[1]["checks"][2]["ok"], 60)
            connection.close()
        attempts = query(settings, "SELECT max(attempts) FROM jobs")[0][0]
    value = f"3 of 3, {attempts}"
    return Figure(f"clock an hour {name}: jobs done, most attempts", value, "3 of 3, at most 2", attempts <= 2)


def _move_clock(settings: Settings, seconds: int) -> None:
    """Make all stored times older by `seconds`, as if the clock had jumped forth by as much."""
    shift = f"{-seconds} seconds"
    with sqlite3.connect(InstancePaths.of(settings).database, timeout=30) as connection:
        for table, column in (("jobs", "lease_until"), ("jobs", "started_at"), ("jobs", "created_at"),
                              ("workers", "seen_at"), ("workers", "started_at")):  # fmt: skip
            connection.execute(
                f"UPDATE {table} SET {column} = strftime('%Y-%m-%d %H:%M:%f', {column}, ?) || '000'"  # noqa: S608
                f" WHERE {column} IS NOT NULL",
                (shift,),
            )
    connection.close()


def run(short: bool) -> list[Figure]:
    """All three; the lock lasts 1 s in the short form."""
    return [*full_disk(), *locked_database(1.0 if short else LOCK_S), *clock_jumps()]
