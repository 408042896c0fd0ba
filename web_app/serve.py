"""Serving: waitress in this process, the supervised worker beside it, and an orderly end for both.

waitress is a threaded server in pure Python. It reads a request completely before a thread gets it, so slow clients
cost a socket and no thread; a body above the limit is refused by its length, before it comes (web_app.over_limit).
What an open server needs in front of it stands in docs/operations.md.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from flask import Flask
from waitress.server import create_server

from utils.config import Settings
from utils.errors import ConfigError
from utils.log import get_logger
from web_app.jobs.supervisor import Supervisor, worker_command
from web_app.over_limit import Channel
from web_app.services import EXTENSION, WAITING_SLOTS, Services
from web_app.storage.upload import MULTIPART_OVERHEAD

SHORT_REQUEST_THREADS = 16  # beside the threads that may sleep until a job ends
CONNECTIONS = 1000  # so many slow clients keep nobody else out
IDLE_CONNECTION_S = 60
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
        supervisor = Supervisor(settings, parts.queue, command or worker_command()) if with_worker else None
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
