"""A request whose body is above the limit: the application answers it before the body comes, then the connection ends.

waitress refuses such a body by its length, but in plain text, without a line in the log, and with a connection that is
reset while the client still sends, so that many a client never sees the answer. Here the application gets the request
without its body and refuses it as it does all else; what the client still sends is thrown away for a short while.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from flask import request
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import RequestEntityTooLarge

from web_app.services import services
from web_app.storage.files import too_large

OVER_LIMIT = "telltale.over_limit"
"""In the WSGI environment of a request that came without its body, since that is above the limit."""
LINGER_S = 5.0  # what a client sends after the answer is read for so long, as nginx does


def refuse() -> None:
    """Before a request: nothing but the refusal is done for one without its body.

    Raises:
        MediaTooLargeError: its body is above the limit.
    """
    if OVER_LIMIT in request.environ:
        raise too_large(services().store.max_bytes)


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
        """Whether the loop shall read."""
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
