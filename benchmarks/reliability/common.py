"""What the reliability runs share: a server in a process of its own, uploads, and figures with their goals."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import math
import os
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import servers
from utils.config import JobSettings, MediaSettings, ServerSettings, Settings, StorageSettings
from web_app.jobs.supervisor import settings_environ
from web_app.paths import ROOT, InstancePaths

JPEG_HEAD = b"\xff\xd8\xff\xe0"
BOUNDARY = "telltale-reliability"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
SERVE = """
import sys
from utils.config import load_settings
from web_app.app import create_app
from web_app.serve import serve
worker = sys.argv[1:]
app = create_app(load_settings(), verify=lambda settings: None)
sys.exit(serve(app, with_worker=bool(worker), command=worker or None))
"""
STAND_IN = (sys.executable, "-m", "tests.web_app.fake_worker")


@dataclass(frozen=True)
class Figure:
    """One measured value with what it should be.

    Args:
        timed: whether the value depends on the machine's speed; the short forms in the tests do not judge these.
    """

    name: str
    value: str
    goal: str
    reached: bool
    timed: bool = False


def print_figures(figures: Sequence[Figure]) -> None:
    """A table of figures."""
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        print(f"{'ok  ' if figure.reached else 'MISS'} {figure.name:<{width}}  {figure.value}  (goal: {figure.goal})")


def make_settings(folder: Path, **jobs: Any) -> Settings:
    """Settings that write below `folder` and listen on a free port; keywords replace keys of [jobs]."""
    return Settings(
        server=ServerSettings(port=servers.free_port(), log_level="error"),
        storage=StorageSettings(instance_dir=str(folder / "instance")),
        media=MediaSettings(max_file_mb=8),
        jobs=dataclasses.replace(JobSettings(poll_s=0.05, lease_s=5.0, max_waiting=100_000), **jobs),
    )


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A temporary folder for one run; on the disk that TMPDIR names."""
    with tempfile.TemporaryDirectory(prefix="telltale-reliability-", ignore_cleanup_errors=True) as name:
        yield Path(name)


class Server(servers.Server):
    """The web server in a process of its own, with or without a worker; the block's end kills it, as a crash would.

    Args:
        worker: the command of the worker; empty for none.
    """

    def __init__(self, settings: Settings, worker: Sequence[str] = ()) -> None:
        super().__init__(Path(settings.storage.instance_dir).parent, settings.server.port)
        self.settings = settings
        self._worker = tuple(worker)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def command(self) -> list[str]:
        given = {**settings_environ(self.settings), "PYTHONPATH": str(ROOT)}
        environ = [f"{name}={value}" for name, value in given.items()]
        return ["env", *environ, sys.executable, "-c", SERVE, *self._worker]

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.stop(signal.SIGKILL)

    def terminate(self) -> float:
        """End it with SIGTERM; returns the seconds it took."""
        started = time.monotonic()
        self.stop()
        return time.monotonic() - started

    def wait_ready(self, seconds: float = 300.0) -> None:
        """Until it can analyse."""

        def is_ready() -> bool:
            with contextlib.closing(self.connect()) as connection:
                connection.request("GET", "/api/ready")
                return connection.getresponse().status == 200

        wait_until(is_ready, seconds)

    def connect(self, timeout_s: float = 30.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.settings.server.port, timeout=timeout_s)


def multipart(content: bytes) -> bytes:
    """The body of an upload."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="photo.jpg"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def photo(order: str, size: int, number: int) -> bytes:
    """Content that sniffs as JPEG, differs for each number, and tells the stand-in for the analysis what to do."""
    return (JPEG_HEAD + f"|{order}|{number}|{os.getpid()}|".encode()).ljust(size, b"\x5a")


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, value: Any = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Status and answer of a request; `value` is a file to upload, as bytes, or JSON. What is no JSON is `{}`."""
    body = multipart(value) if isinstance(value, bytes) else None if value is None else json.dumps(value).encode()
    if body is not None:
        headers["Content-Type"] = CONTENT_TYPE if isinstance(value, bytes) else "application/json"
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    return answer.status, json.loads(content) if "json" in answer.headers.get_content_type() else {}


def send_upload(
    connection: http.client.HTTPConnection, content: bytes, *, again: bool = False
) -> tuple[int, dict[str, Any]]:
    """Upload without waiting for the verdict; `again` analyses what was analysed before."""
    return ask(connection, "POST", f"/api/detect?again={int(again)}", content, Prefer="respond-async")


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed (nearest rank); 0 without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def wait_until(condition: Callable[[], Any], seconds: float) -> Any:
    """The first true value of the condition; raises TimeoutError if there is none in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise TimeoutError("it did not happen in time")


@contextlib.contextmanager
def at_once(tasks: Iterable[Callable[[], object]], patience_s: float | None = None) -> Iterator[list[threading.Thread]]:
    """Each task in a thread of its own from the start of the block; its end waits for all."""
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.join(patience_s)


def memory_kb(pid: int) -> int:
    """Memory of a process as Linux tells it."""
    return int(Path(f"/proc/{pid}/status").read_text(encoding="ascii").split("VmRSS:")[1].split()[0])


def processor_s(pids: Collection[int]) -> float:
    """Seconds of the processor that living processes and their children have needed, as Linux tells them."""
    spent = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            values = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(stat.parent.name) in pids or int(values[1]) in pids:
                spent += (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def query(settings: Settings, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of the instance's database, read from outside the server."""
    connection = sqlite3.connect(InstancePaths.of(settings).database, timeout=30)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def store_faults(settings: Settings) -> list[str]:
    """What is wrong between rows and files: files missing, cut short or with other content, rows without a medium."""
    uploads = InstancePaths.of(settings).uploads
    faults = []
    for sha256, size, name in query(settings, "SELECT sha256, size_bytes, stored_name FROM media"):
        path = uploads / name
        if not path.is_file():
            faults.append(f"{name}: missing")
        elif path.stat().st_size != size or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            faults.append(f"{name}: other content")
    return faults
