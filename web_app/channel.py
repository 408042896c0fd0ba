"""The server's side of one connection: refusals as problem JSON, as early as the headers allow, and deadlines.

waitress reads a whole request before a thread gets it. What can be refused by its headers alone is refused then: the
rest of the body is read and thrown away for a moment, so that the client gets to see the answer, and it ends.
A request that does not arrive in time is answered with 408, however busily its client sends single bytes. All bodies
that are on their way or wait for a thread share one allowance of room.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask

from utils.errors import (
    BadRequestError,
    MediaTooLargeError,
    RequestTimeoutError,
    TelltaleError,
    UnauthorizedError,
    UnavailableError,
)
from web_app.auth.identity import HEADERS
from web_app.errors import MIME

HEADER_DEADLINE_S = 20.0
SLOWEST_BYTES_PER_S = 4096  # a body may take its deadline and a second more for each of these
BODY_DEADLINE_S = 30.0
RETRY_S = 5  # when an upload may be tried again that had to make room
LINGER_S = 2.0
LINGER_BYTES = 64 * 1024 * 1024
LINGERING = 32  # connections that may linger at the same time; the others are cut
CHUNK_BYTES = 256 * 1024

Gate = Callable[[str, str, Mapping[str, str]], TelltaleError | None]
"""Method, path and headers (upper case, underscores) to why the request is refused before its body is read."""


class Refusal:
    """What our parser leaves in `request.error`, in the place of waitress's own errors.

    Args:
        error: what to answer.
    """

    def __init__(self, error: TelltaleError) -> None:
        self.error = error
        self.code = error.status
        self.reason = error.title
        self.body = error.detail


class ProblemErrorTask(ErrorTask):
    """What is refused before the application sees it, as problem JSON like every other error."""

    def execute(self) -> None:
        request: Any = self.request
        refused = request.error
        error = refused.error if isinstance(refused, Refusal) else _problem_of(refused.code, refused.body)
        body = json.dumps(error.to_problem()).encode()
        self.status = f"{error.status} {refused.reason}"
        self.response_headers = [*HEADERS.items(), ("Content-Type", MIME), ("Content-Length", str(len(body)))]
        if error.status == UnauthorizedError.status:
            self.response_headers.append(("WWW-Authenticate", "Bearer"))
        if "retry_after_s" in error.facts:
            self.response_headers.append(("Retry-After", str(error.facts["retry_after_s"])))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Allowance:
    """The room that the bodies of all requests hold at present, in memory and in temporary files.

    Args:
        most_bytes: for all of them.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._lock = threading.Lock()
        self._held: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()

    def note(self, request: object, held_bytes: int) -> None:
        """A request holds so much now; 0 when it has been read or refused."""
        with self._lock:
            if held_bytes:
                self._held[request] = held_bytes
            else:
                self._held.pop(request, None)

    def exceeded(self) -> bool:
        """Whether it is used up."""
        with self._lock:
            return sum(self._held.values()) > self._most


def _parser_class(gate: Gate, allowance: Allowance) -> type[HTTPRequestParser]:
    """The requests of one server."""

    class GatedParser(HTTPRequestParser):
        def __init__(self, adj: Any) -> None:
            super().__init__(adj)
            self.began = time.monotonic()
            self.judged = False

        def received(self, data: bytes) -> int:
            consumed: int = super().received(data)
            if self.headers_finished and not (self.completed or self.judged):
                self.judged = True
                chunked = {"TRANSFER_ENCODING": "chunked"} if self.chunked else {}  # waitress takes it away
                refused = gate(self.command, self.path, {**self.headers, **chunked})
                if refused is not None:
                    self.refuse(refused)
            if self.error is not None:
                self.expect_continue = False  # waitress would ask for the body of what it has refused
            elif self.body_bytes_received:
                allowance.note(self, self.body_bytes_received)
            return consumed

        def close(self) -> None:
            allowance.note(self, 0)
            super().close()

        def overdue(self, now: float) -> bool:
            """Whether the request should have been here by now."""
            if not self.headers_finished:
                return now - self.began > HEADER_DEADLINE_S
            return now - self.began > BODY_DEADLINE_S + self.body_bytes_received / SLOWEST_BYTES_PER_S

        def refuse(self, error: TelltaleError) -> None:
            if not self.headers_finished:
                self.parse_header(b"GET / HTTP/1.0\r\n")  # the error task needs the members of a request
            self.error = Refusal(error)
            self.completed = True
            self.close()  # what has arrived of it is not needed any more

    return GatedParser


def channel_class(gate: Gate, allowance: Allowance) -> type[HTTPChannel]:
    """The connections of one server.

    Args:
        gate: asked about each request once its headers are there.
        allowance: that the bodies share.
    """
    lingering = threading.BoundedSemaphore(LINGERING)

    class GatedChannel(HTTPChannel):
        parser_class = _parser_class(gate, allowance)
        error_task_class = ProblemErrorTask
        refused = False

        def received(self, data: bytes) -> bool:
            if self.request is not None and self.request.overdue(time.monotonic()):
                return self.give_up(RequestTimeoutError())
            answer: bool = super().received(data)
            if allowance.exceeded():
                _make_room(self.server.active_channels.values())
            self.refused = self.refused or any(request.error is not None for request in self.requests)
            return answer

        def give_up(self, error: TelltaleError) -> bool:
            """Refuse a request that has not arrived completely."""
            with self.requests_lock:
                if self.request is None or self.will_close or self.close_when_flushed:
                    return False
                late, self.request = self.request, None
                late.refuse(error)
                self.refused = True
                self.requests.append(late)
                if len(self.requests) == 1:
                    self.server.add_task(self)
            return True

        def check_deadline(self, now: float) -> None:
            """Called every few seconds for clients that have fallen silent."""
            request = self.request
            if request is not None and request.overdue(now):
                self.give_up(RequestTimeoutError())

        def handle_close(self) -> None:
            with self.requests_lock:
                broken_off, self.request = self.request, None
            if broken_off is not None:
                broken_off.close()
            if self.refused and self.connected and lingering.acquire(blocking=False):
                try:
                    rest = self.socket.dup()
                except OSError:
                    lingering.release()
                else:
                    threading.Thread(target=_linger, args=(rest, lingering), name="linger", daemon=True).start()
            self.refused = False
            super().handle_close()

    return GatedChannel


def _make_room(channels: Iterable[Any]) -> None:
    """Give up one upload: the oldest if it is slow, so that nobody can hold the allowance, else the newest."""
    arriving = [channel for channel in channels if channel.request is not None and channel.request.body_bytes_received]
    if arriving:
        arriving.sort(key=lambda channel: channel.request.began)
        slow = time.monotonic() - arriving[0].request.began > BODY_DEADLINE_S
        arriving[0 if slow else -1].give_up(
            UnavailableError("Too much is being uploaded at the moment.", retry_after_s=RETRY_S)
        )


def _linger(connection: socket.socket, lingering: threading.BoundedSemaphore) -> None:
    """Throw away what the client still sends: closing at once would reset the connection and lose our answer."""
    until = time.monotonic() + LINGER_S
    left = LINGER_BYTES
    try:
        with connection:
            connection.settimeout(LINGER_S / 4)
            connection.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic() < until:
                read = len(connection.recv(CHUNK_BYTES))
                if read == 0:
                    return
                left -= read
    except OSError:
        return  # the client has gone, which is what we wait for
    finally:
        lingering.release()


def watch_deadlines(server: Any) -> None:
    """Let a listening server look for overdue requests whenever it does its maintenance."""
    maintain = server.maintenance

    def maintenance(now: float) -> None:
        maintain(now)
        monotonic = time.monotonic()
        for channel in list(server.active_channels.values()):
            channel.check_deadline(monotonic)

    server.maintenance = maintenance


def _problem_of(status: int, detail: str) -> TelltaleError:
    if status == MediaTooLargeError.status:
        return MediaTooLargeError(detail)
    error: TelltaleError = BadRequestError(detail)
    error.status = status
    return error
