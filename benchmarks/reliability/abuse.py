"""Requests that break the rules: each is refused, by the server or by the application, while others are served as ever.

Two hundred slow clients send a byte a second for as long as the run takes; the server's health is asked all the time.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

from benchmarks.reliability.common import (
    CONTENT_TYPE,
    Figure,
    Server,
    ask,
    make_settings,
    multipart,
    percentile,
    photo,
    workspace,
)

GOAL_MS = 200
ALLOWED = {400, 413, 415, 422, 431, 501}
SLOW_CLIENTS = 200
SILENCE_S = 150.0  # within which a connection ends that has fallen silent
HEAD = "POST /api/detect HTTP/1.1\r\nHost: localhost\r\n"


def _raw(port: int, request: bytes) -> int:
    """Status of the answer to raw bytes; 0 when the connection ended without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused while it was being sent
            connection.sendall(request)
        with contextlib.suppress(ConnectionResetError):
            answer = connection.recv(65536)
            return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0
    return 0


def _post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [*headers, f"Content-Length: {len(body) if length is None else length}"]
    return (HEAD + "\r\n".join(lines) + "\r\n\r\n").encode() + body


def _many_parts(count: int) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
    return part * count + b"--b--\r\n"


def attacks(short: bool) -> dict[str, bytes]:
    """Name to request."""
    photo_body = multipart(photo("fake", 2000, 1))
    content_type = f"Content-Type: {CONTENT_TYPE}"
    small = "Content-Type: multipart/form-data; boundary=b"
    return {
        "many parts": _post(_many_parts(2_000 if short else 100_000), small),
        "no boundary": _post(photo_body, "Content-Type: multipart/form-data"),
        "a boundary that never comes": _post(photo_body, small),
        "a very long boundary": _post(photo_body, f"Content-Type: multipart/form-data; boundary={'b' * 10_000}"),
        "no multipart": _post(b"{}", "Content-Type: application/json"),
        "no body": _post(b"", content_type),
        "Content-Length too small": _post(photo_body, content_type, length=500),
        "Content-Length of 99 GB": _post(b"x", content_type, length=99_000_000_000),
        "Content-Length that is no number": HEAD.encode() + b"Content-Length: many\r\n\r\n",
        "two different Content-Lengths": HEAD.encode() + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc",
        "length and chunks": HEAD.encode() + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "chunks of garbage": HEAD.encode() + f"{content_type}\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".encode(),
        "a header of 300 kB": HEAD.encode() + b"X-Long: " + b"a" * 300_000 + b"\r\n\r\n",
        "a header without a colon": HEAD.encode() + b"nonsense\r\n\r\n",
        "a part without an end": _post(photo_body[:-20], content_type),
        "6 MB of a part's headers": _post(b"--b\r\nContent-Disposition: form-data; name=" + b"a" * 6_000_000, small),
        "6 MB before the first part": _post(b"a" * 6_000_000, small),
        "6 MB behind the last part": _post(_many_parts(1) + b"a" * 6_000_000, small),
    }  # fmt: skip


@contextlib.contextmanager
def _slow_clients(port: int, count: int) -> Iterator[None]:
    """Clients that send a byte a second: half of them of their headers, half of an upload's body."""
    ending = threading.Event()
    connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(count)]
    for number, connection in enumerate(connections):
        head = f"{HEAD}Content-Type: {CONTENT_TYPE}\r\nContent-Length: 100000\r\n\r\n" if number % 2 else HEAD
        connection.sendall(head.encode())

    def drip() -> None:
        while not ending.wait(1.0):
            for connection in connections:
                with contextlib.suppress(OSError):  # the server has given up on it, as it should
                    connection.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        for connection in connections:
            connection.close()


def _ask_health(server: Server, while_running: Callable[[], bool], times: list[float]) -> None:
    connection = server.connect()
    while while_running():
        started = time.monotonic()
        status, _ = ask(connection, "GET", "/api/health")
        if status == 200:
            times.append(time.monotonic() - started)
        time.sleep(0.02)
    connection.close()


def _ends_silence(port: int) -> bool:
    """Whether the connections of requests that stop in the middle are closed."""
    short_body = _post(b"x", f"Content-Type: {CONTENT_TYPE}", length=9000)
    try:
        return [_raw(port, HEAD.encode()), _raw(port, short_body)] == [0, 0]
    except TimeoutError:
        return False


def run(short: bool) -> list[Figure]:
    """All attacks beside 200 slow clients; fewer parts, and no waiting for silent connections, in the short form."""
    times: list[float] = []
    silence_ends = True
    with workspace() as folder, Server(make_settings(folder)) as server:
        port = server.settings.server.port
        running = threading.Event()
        running.set()
        asking = threading.Thread(target=_ask_health, args=(server, running.is_set, times))
        with _slow_clients(port, SLOW_CLIENTS):
            asking.start()
            statuses = {name: _raw(port, request) for name, request in attacks(short).items()}
            if not short:
                silence_ends = _ends_silence(port)
            time.sleep(1.0)
        running.clear()
        asking.join()
        connection = server.connect()
        after, _ = ask(connection, "GET", "/api/health")
        with contextlib.suppress(http.client.HTTPException, json.JSONDecodeError):
            connection.close()
    wrong = {name: status for name, status in statuses.items() if status not in ALLOWED}
    p99_ms = percentile(times, 0.99) * 1e3
    named = ", ".join(sorted({str(status) for status in statuses.values()}))
    return [
        Figure(f"abusive requests ({len(statuses)} kinds)", f"answered with {named}; others: {wrong or 'none'}",
               "a refusal each", not wrong),
        *([] if short else [Figure("silent connections", f"closed: {silence_ends}", "closed", silence_ends)]),
        Figure(f"health beside {SLOW_CLIENTS} slow clients, p99", f"{p99_ms:.0f} ms of {len(times)}",
               f"under {GOAL_MS} ms", p99_ms < GOAL_MS, True),
        Figure("health afterwards", f"{after}", "200", after == 200),
    ]  # fmt: skip
