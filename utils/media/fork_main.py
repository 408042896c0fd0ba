"""The process that decoding children are forked from: it has imported the decoders, and sees no untrusted byte.

Started by `fork_server.py`, never imported by anything else. Starting Python and the libraries takes ten times as long
as decoding a photo, so it is done once. Each request brings an open file, a pipe for the answer and a lifeline; each is
served by a fresh fork of this process that confines itself like any other decoding child, decodes one file, and ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import struct
from dataclasses import dataclass

from utils.media import child, images

MAX_REQUEST_BYTES = 4096
HIGHEST_DESCRIPTOR = 4096
"""Descriptors up to here are closed in a child; this process never has more than a few dozen."""


@dataclass(eq=False)
class _Fork:
    """A child that runs: its number, what tells its end, and its lifeline."""

    pid: int
    ended: int
    lifeline: socket.socket


def main() -> None:
    """Fork a child for each request on standard input, a socket, until it is closed."""
    images.load_codecs()
    importlib.import_module("utils.evidence.reading")
    gc.collect()
    gc.freeze()  # the collector shall not touch, and so copy, the pages that all children share
    control = socket.socket(fileno=os.dup(0))
    control.setblocking(True)
    waiting = selectors.DefaultSelector()
    waiting.register(control, selectors.EVENT_READ)
    forks: set[_Fork] = set()
    open_for_more = True
    while open_for_more or forks:  # without its parent the lifelines of all children have ended too
        for key, _ in waiting.select():
            if key.fileobj is control:
                open_for_more = _take_request(control, waiting, forks)
                if not open_for_more:
                    waiting.unregister(control)
            elif key.data not in forks:
                continue  # its end was dealt with a moment ago
            elif key.fileobj is key.data.lifeline:
                waiting.unregister(key.data.lifeline)  # the parent has let go, or is gone
                _kill(key.data.pid)
            else:
                _reap(key.data, waiting)
                forks.remove(key.data)


def _take_request(control: socket.socket, waiting: selectors.BaseSelector, forks: set[_Fork]) -> bool:
    """Fork a child for the next request; False when there will be none any more."""
    request, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 3)
    if not request or len(descriptors) != 3:
        return False
    file, answer, lifeline = descriptors
    try:
        pid = os.fork()
    except OSError:  # too many processes; the parent sees its lifeline end
        for descriptor in descriptors:
            os.close(descriptor)
        return True
    if pid == 0:
        _become_child(file, answer, request.decode())
    os.close(file)
    os.close(answer)
    fork = _Fork(pid, os.pidfd_open(pid), socket.socket(fileno=lifeline))
    forks.add(fork)
    waiting.register(fork.ended, selectors.EVENT_READ, fork)
    waiting.register(fork.lifeline, selectors.EVENT_READ, fork)
    return True


def _become_child(file: int, answer: int, request: str) -> None:
    """What follows a fork: a session of its own, three descriptors and no more, then the work of every child."""
    try:
        os.setsid()
        os.dup2(file, 0)
        os.dup2(answer, 1)
        os.closerange(3, HIGHEST_DESCRIPTOR)
        child.main(request)
    finally:
        os._exit(1)


def _reap(fork: _Fork, waiting: selectors.BaseSelector) -> None:
    """Tell the parent how a child ended, once nothing of its group is left."""
    _kill(fork.pid)
    _, status = os.waitpid(fork.pid, 0)
    waiting.unregister(fork.ended)
    os.close(fork.ended)
    with contextlib.suppress(KeyError):  # let go before
        waiting.unregister(fork.lifeline)
    with contextlib.suppress(OSError):
        fork.lifeline.send(struct.pack("<i", os.waitstatus_to_exitcode(status)))
    fork.lifeline.close()


def _kill(pid: int) -> None:
    """End a child that was not waited for yet, and its group, if it has made one already."""
    for end in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)
