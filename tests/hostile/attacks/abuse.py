"""Children that misbehave in the decoder's place, and what the parent makes of them: error code, seconds, memory."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.config import MediaSettings, SandboxSettings
from utils.errors import MediaError
from utils.media import sandbox

_START = f"""
import json, os, signal, struct, sys, time, types
sys.path.insert(0, {str(sandbox.ROOT)!r})
sys.modules["utils.media"] = types.ModuleType("utils.media")  # without its imports, which only take time here
sys.modules["utils.media"].__path__ = [{str(sandbox.ROOT / "utils" / "media")!r}]
from utils.media.sandbox_limits import confine

def send(height, width, index=0):
    head = {{"frame": [index, height, width, index / 1000]}}
    text = json.dumps(head).encode()
    os.write(1, b"TTMEDIA1" + struct.pack("<I", len(text)) + text)

"""


@dataclass(frozen=True)
class Abuse:
    """One way to misbehave.

    Args:
        code: what the child runs, after it has confined itself unless it says otherwise.
        expected: the error codes that are right.
        waits: whether it ends by the deadline only.
        confined: whether the child confines itself first.
    """

    code: str
    expected: tuple[str, ...]
    waits: bool = False
    confined: bool = True


ABUSES = {
    "hangs": Abuse("time.sleep(600)", ("decoder_limit",), waits=True),
    "hangs deaf to signals": Abuse(
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(600)", ("decoder_limit",), waits=True
    ),
    "stops itself": Abuse("signal.raise_signal(signal.SIGSTOP)", ("decoder_limit",), waits=True),
    "closes its answer and hangs": Abuse("os.close(1); time.sleep(600)", ("decoder_crashed",)),
    "computes for ever": Abuse(
        "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", ("decoder_limit",), waits=True
    ),
    "forks": Abuse("os.fork()", ("decoder_crashed",)),
    "forks where nothing forbids it": Abuse(
        "[os.fork() for _ in range(5)]; time.sleep(600)", ("decoder_limit",), waits=True, confined=False
    ),
    "allocates 10 GB": Abuse("held = bytearray(10**10)", ("decoder_crashed", "decoder_limit")),
    "allocates 10 GB bit by bit": Abuse(
        "held = []\nwhile len(held) < 10000: held.append(bytearray(10**6))", ("decoder_crashed", "decoder_limit")
    ),
    "writes garbage": Abuse("os.write(1, bytes(range(256)) * 200)", ("decoder_crashed",)),
    "writes garbage behind the magic": Abuse("os.write(1, b'TTMEDIA1' + b'\\x40\\x00\\x00\\x00' + b'{' * 64)",
                                             ("decoder_crashed",)),
    "writes deep JSON": Abuse("os.write(1, b'TTMEDIA1' + struct.pack('<I', 60000) + b'[' * 60000)",
                              ("decoder_crashed",)),
    "announces a huge header": Abuse("os.write(1, b'TTMEDIA1' + b'\\xff' * 4)\nwhile True: os.write(1, bytes(9999))",
                                     ("decoder_crashed",)),
    "announces huge pixels": Abuse("send(60000, 60000)\nwhile True: os.write(1, bytes(65536))", ("decoder_crashed",)),
    "announces the largest picture and sends nothing": Abuse(
        "send(7000, 7000); time.sleep(600)", ("decoder_limit",), waits=True
    ),
    "announces a thousand frames": Abuse("for n in range(1000): send(64, 64, n); os.write(1, bytes(64 * 64 * 3))",
                                         ("decoder_crashed",)),
    "writes more than announced": Abuse("send(64, 64)\nwhile True: os.write(1, bytes(65536))", ("decoder_crashed",)),
    "fills the largest picture and goes on": Abuse("send(7000, 7000)\nwhile True: os.write(1, bytes(65536))",
                                                   ("decoder_crashed", "decoder_limit")),
    "writes less than announced": Abuse("send(640, 640); os.write(1, bytes(1000))", ("decoder_crashed",)),
    "trickles": Abuse("while True: os.write(1, b'T'); time.sleep(0.2)", ("decoder_crashed", "decoder_limit")),
    "trickles for ever": Abuse("send(640, 640)\nwhile True: os.write(1, b'T'); time.sleep(0.2)", ("decoder_limit",),
                               waits=True),
    "dies of a fault": Abuse("os.abort()", ("decoder_crashed",)),
    "says that all is well and ends": Abuse("os._exit(0)", ("decoder_crashed",)),
}  # fmt: skip
"""The child never reads its input in any of them: what nobody reads must not hold the parent up either."""


@dataclass(frozen=True)
class Outcome:
    """What came of one.

    Args:
        code: of the error, `none` without.
        seconds: until it was there.
        peak_mb: by how much the parent grew at its peak; None where the system does not tell.
        left_mb: how much of it was left afterwards.
    """

    code: str
    seconds: float
    peak_mb: float | None
    left_mb: float | None


_program = threading.local()


@contextlib.contextmanager
def misbehaving() -> Iterator[None]:
    """Within this block `run_abuse` may be called, from any number of threads."""
    original = sandbox.child_command, sandbox.PICTURE_WALL_S
    sandbox.child_command = lambda request: [sys.executable, "-I", "-c", _program.text]
    sandbox.PICTURE_WALL_S = float("inf")  # the deadline is the caller's alone
    try:
        yield
    finally:
        sandbox.child_command, sandbox.PICTURE_WALL_S = original


def run_abuse(abuse: Abuse, picture: Path, wall_s: float) -> Outcome:
    """Decode a picture with a child that misbehaves.

    Args:
        abuse: what the child does.
        picture: any picture that is accepted.
        wall_s: the deadline, seconds.
    """
    confined = "confine(2_000_000_000, 600)\n" if abuse.confined else ""
    _program.text = _START + confined + abuse.code
    gc.collect()
    before = _reset_peak()
    started = time.monotonic()
    code = "none"
    try:
        sandbox.decode_media(picture, MediaSettings(), SandboxSettings(wall_s=wall_s))
    except MediaError as error:
        code = error.code
    seconds = time.monotonic() - started
    peak, now = memory_mb("VmHWM"), memory_mb("VmRSS")
    if before is None or peak is None or now is None:
        return Outcome(code, seconds, None, None)
    return Outcome(code, seconds, peak - before, now - before)


def _reset_peak() -> float | None:
    """Make the peak of this process's memory its present size, MB; None where /proc does not offer it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return memory_mb("VmRSS")


def memory_mb(name: str) -> float | None:
    """A line of this process's status in MB, such as `VmRSS`; None where /proc does not offer it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(name))
