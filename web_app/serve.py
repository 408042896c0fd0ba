"""Serving: waitress in this process, the supervised worker beside it, and an orderly end for both.

waitress is a threaded server in pure Python. It reads a request completely before a thread gets it, so slow clients
cost a socket and no thread. What an open server needs in front of it stands in docs/operations.md.

A request whose body is above the limit is answered by the application before the body comes, then the connection ends.
waitress refuses such a body by its length, but in plain text, without a line in the log, and with a connection that is
reset while the client still sends, so that many a client never sees the answer. Here the application gets the request
without its body and refuses it as it does all else; what the client still sends is thrown away for a short while.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import RequestEntityTooLarge

from utils.config import Settings
from utils.errors import ConfigError
from utils.log import get_logger
from web_app.auth.identity import EXTENSION
from web_app.jobs.supervisor import WORKER, Supervisor
from web_app.services import OVER_LIMIT, WAITING_SLOTS, Services
from web_app.storage.upload import MULTIPART_OVERHEAD

SHORT_REQUEST_THREADS = 16  # beside the threads that may sleep until a job ends
CONNECTIONS = 1000  # so many slow clients keep nobody else out
IDLE_CONNECTION_S = 60
LINGER_S = 5.0  # what a client sends after a refusal is read for so long, as nginx does
RECEIVE_BYTES = 256 * 1024
INPUT_IN_MEMORY_BYTES = 2 * 1024 * 1024  # a longer body waits in a temporary file until it is complete
EXIT_ADDRESS = 1
ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on

log = get_logger(__name__)


def serve(app: Flask, *, with_worker: bool = True, command: Sequence[str] | None = None) -> int:
    """Verify the weights, then serve until SIGTERM or SIGINT.

    Args:
        app: from `create_app`; its connections are given back at the end. The worker gets its settings.
        with_worker: start and supervise a worker process.
        command: starts the worker; None takes `python -m web_app worker`.

    Returns:
        The exit code: 0 after a clean end, 1 if the address cannot be listened on.

    Raises:
        ConfigError: [server] host is no address; nothing was served.
        WeightsError: the weights are missing or do not match their checksums; nothing was served.
    """
    parts: Services = app.extensions[EXTENSION]
    settings = parts.settings
    try:
        parts.weights.require()
        try:
            server = _listen(app, parts)
        except OSError as error:
            print(
                f"Cannot listen on {settings.server.host} port {settings.server.port}: {error.strerror}. "
                "Another program may use it; choose another with --port.",
                file=sys.stderr,
            )
            return EXIT_ADDRESS
        except ValueError:
            raise ConfigError(
                f"[server] host must be an address or a name of this machine, not {settings.server.host!r}."
            ) from None
        supervisor = Supervisor(settings, parts.queue, command or WORKER) if with_worker else None
        _run(server, parts, supervisor, settings)
    finally:
        parts.close()
    return 0


def _run(server: Any, parts: Services, supervisor: Supervisor | None, settings: Settings) -> None:
    def end(number: int, _frame: FrameType | None) -> None:
        parts.stopping.set()
        if supervisor is not None:
            supervisor.request_stop()  # the worker ends while the last requests are answered
        raise SystemExit(0)  # waitress takes this as the order to finish

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if supervisor is not None:
            supervisor.start()
        gc.collect()
        gc.freeze()  # all that the start has made stays, and a collection that looked through it took 100 ms
        print(f"Telltale is ready at {_address(server, settings)} (Ctrl-C ends it)", flush=True)
        server.run()
    except SystemExit:
        log.info("the server ends")
    finally:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave the worker behind
        server.close()
        if supervisor is not None:
            supervisor.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _listen(app: Flask, parts: Services) -> Any:
    settings = parts.settings
    sockets: dict[int, Any] = {}
    server = create_server(
        app,
        map=sockets,
        host=settings.server.host,
        port=settings.server.port,
        threads=WAITING_SLOTS + SHORT_REQUEST_THREADS,
        max_request_body_size=parts.store.max_bytes + MULTIPART_OVERHEAD,
        connection_limit=CONNECTIONS,
        channel_timeout=IDLE_CONNECTION_S,
        recv_bytes=RECEIVE_BYTES,
        inbuf_overflow=INPUT_IN_MEMORY_BYTES,
        asyncore_use_poll=True,  # select() cannot watch descriptors above 1023
        clear_untrusted_proxy_headers=False,  # web_app.auth.network looks at them and then drops them
        ident="telltale",
    )
    for listener in sockets.values():
        listener.channel_class = Channel  # read where a connection is taken
    return server


def _address(server: Any, settings: Settings) -> str:
    port = server.effective_listen[0][1] if hasattr(server, "effective_listen") else server.effective_port
    host = "localhost" if settings.server.host in ANY_ADDRESS else settings.server.host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class _Refusal(WSGITask):
    channel: Channel

    def get_environment(self) -> dict[str, Any]:
        return {**super().get_environment(), OVER_LIMIT: True}

    def execute(self) -> None:
        self.channel.lingers = True
        self.set_close_on_finish()
        super().execute()


def _task(channel: HTTPChannel, parsed: Any) -> Any:
    return (_Refusal if isinstance(parsed.error, RequestEntityTooLarge) else ErrorTask)(channel, parsed)


class Channel(HTTPChannel):
    """A client's connection; all but `lingers` belongs to the thread of the sockets."""

    error_task_class: Any = staticmethod(_task)
    lingers = False  # it is answered before the body was read
    _until: float | None = None  # all was sent; read and thrown away until then

    def send_continue(self) -> None:
        """Ask for the body, unless the request is refused already."""
        if self.request is not None and self.request.error is None:
            super().send_continue()

    def readable(self) -> bool:
        return self._until is not None or bool(super().readable())

    def handle_read(self) -> None:
        """Read a request, or throw away what comes after a refusal; a silent client is left to the idle limit."""
        if self._until is None:
            super().handle_read()
        elif self.recv(self.adj.recv_bytes) and time.monotonic() > self._until:  # at the end recv closes
            self.handle_close()

    def handle_close(self) -> None:
        """Close; after a refusal first only our direction, so that the client reads it before its sending fails."""
        if self.lingers and self.socket is not None and not self.total_outbufs_len:
            self.lingers, self.will_close, self._until = False, False, time.monotonic() + LINGER_S
            with contextlib.suppress(OSError):  # the client is gone
                self.socket.shutdown(socket.SHUT_WR)
                return
        super().handle_close()
