"""Decoding children that are ready at once: forked from a process that has imported the decoders already.

`sandbox.py` takes its children from here where the caller hands it a `ForkServer`, and starts them anew where
not. That process is started at the first file; between it and its children stands what `fork_main.py` describes. Only
Linux has what it needs (`pidfd_open`).

All its children share the places of the libraries in memory, which a new program would have drawn by lot; so it is
replaced after `CHILDREN` of them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from utils.errors import DecoderCrashedError

CHILDREN = 1000
"""Children of one process, after which a new one takes over."""
PIPE_BYTES = 1 << 20
"""What an answer's pipe holds; the usual 64 KiB make child and parent wake each other sixty times for a photo."""
_END_S = 2.0
_START = "import sys; sys.path.insert(0, sys.argv[1]); from utils.media.fork_main import main; main()"
_ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = (sys.executable, "-I", "-c", _START, str(_ROOT))
"""Starts the process that children are forked from."""


class ForkedChild:
    """A running child, seen through its answer and its lifeline; see `sandbox.Child`."""

    def __init__(self, answer: BinaryIO, lifeline: socket.socket) -> None:
        self.answer = answer
        self._lifeline = lifeline

    def status(self, timeout_s: float) -> int | None:
        """How it ended (negative: by that signal); None when nothing is known after `timeout_s`."""
        self._lifeline.settimeout(timeout_s)
        try:
            told = self._lifeline.recv(4)
        except OSError:
            return None
        return int(struct.unpack("<i", told)[0]) if len(told) == 4 else None

    def end(self) -> None:
        """End it and everything that it started, and wait until that is done."""
        with contextlib.suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_WR)
            self._lifeline.settimeout(_END_S)
            while self._lifeline.recv(16):
                continue
        self._lifeline.close()


class ForkServer:
    """Starts decoding children by forking; may be used from several threads.

    Args:
        command: see `COMMAND`.
    """

    def __init__(self, environment: dict[str, str], command: Sequence[str] = COMMAND) -> None:
        self._environment = environment
        self._command = command
        self._lock = threading.Lock()
        self._running: _Source | None = None
        self._retired: list[_Source] = []

    @staticmethod
    def available() -> bool:
        """Whether this system has what forked children need."""
        return sys.platform == "linux" and hasattr(os, "pidfd_open")

    def warm(self) -> None:
        """Start the process, without waiting until it is ready.

        Raises:
            DecoderCrashedError: it cannot be started.
        """
        with self._lock:
            self._source()

    def start(self, request: str, file: BinaryIO) -> ForkedChild:
        """Start a child for one file.

        Args:
            request: as JSON, for `child.main`.
            file: open for reading; the child finds its own position.

        Raises:
            DecoderCrashedError: no process to fork from can be started, or this one may open no more files.
        """
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            answer, lifeline, sent = _channels(ours, theirs)
            with self._lock:
                for _ in range(2):
                    source = self._source()
                    with contextlib.suppress(OSError):
                        source.fork(request, [file.fileno(), *sent])
                        ours.pop_all()
                        return ForkedChild(answer, lifeline)
                    source.close()
                    self._running = None
        raise DecoderCrashedError("The decoder's process ends whenever it is started.")

    def _source(self) -> _Source:
        self._retired = [old for old in self._retired if not old.ended()]
        if self._running is not None and self._running.forks >= CHILDREN:
            self._running.retire()
            self._retired.append(self._running)
            self._running = None
        if self._running is None:
            self._running = _Source(self._command, self._environment)
        return self._running

    def close(self) -> None:
        """End the process and its children; the next file starts a new one."""
        with self._lock:
            for source in (*([self._running] if self._running else ()), *self._retired):
                source.close()
            self._running, self._retired = None, []


class _Source:
    """One process to fork from."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.forks = 0
        with _start_errors(), contextlib.ExitStack() as undo:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.enter_context(self._control)
            with theirs:
                process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                )
            undo.pop_all()
        self._process = process
        self.close = weakref.finalize(self, _end, process, self._control)

    def retire(self) -> None:
        """Let it end when the last of its children has."""
        self._control.shutdown(socket.SHUT_WR)

    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def fork(self, request: str, descriptors: list[int]) -> None:
        """Ask for a child that takes these descriptors; OSError when the process is gone."""
        socket.send_fds(self._control, [request.encode()], descriptors)
        self.forks += 1


def _channels(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[BinaryIO, socket.socket, list[int]]:
    """A child's answer and lifeline, which `ours` closes, and its own ends of them, which `theirs` closes."""
    import fcntl  # Linux has it, and so everybody who comes here

    with _start_errors():
        reading, writing = os.pipe()
        theirs.callback(os.close, writing)
        answer = ours.enter_context(os.fdopen(reading, "rb"))
        with contextlib.suppress(OSError):  # this user's pipes hold too much already
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        lifeline, end = socket.socketpair()
        ours.enter_context(lifeline)
        theirs.enter_context(end)
    return answer, lifeline, [writing, end.fileno()]


@contextlib.contextmanager
def _start_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DecoderCrashedError(f"The decoder cannot be started ({error.strerror}).") from error


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    """End a process at once; its children die with it."""
    control.close()
    process.kill()
    process.wait()
