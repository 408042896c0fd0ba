"""The child: what it imports, how it answers, frames told while it decodes, and protections that really hold."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from utils.config import MediaSettings, SandboxSettings
from utils.errors import DecoderCrashedError, JobCancelledError
from utils.media import child_protocol, decode_media, sandbox
from utils.media.child_protocol import Expected, read_answer
from utils.media.limits import Facts, MediaLimits
from utils.media.sandbox import ROOT, child_command, sandbox_level
from utils.media.sandbox_limits import PROTECTIONS, confine
from utils.types import Frame, MediaKind


def run(request: dict[str, object], file: Path) -> bytes:
    with file.open("rb") as source:
        done = subprocess.run(child_command(json.dumps(request)), stdin=source, capture_output=True, timeout=60)
    return done.stdout


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 40), (10, 20, 30)).save(tmp_path / "x.png")
    return tmp_path / "x.png"


def test_it_reports_what_it_did_not_foresee(picture: Path) -> None:
    limits = [None, 32, 600.0]
    request = {"format": "png", "frames": 1, "max_frames": 1, "limits": limits, "memory_mb": 2048, "cpu_s": 20}
    with pytest.raises(DecoderCrashedError, match="TypeError"):
        read_answer(io.BytesIO(run(request, picture)), Expected(MediaKind.IMAGE, 1, MediaLimits()))


def test_it_imports_neither_networks_nor_server() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import utils.media.child; from utils.media import images, video\n"
        "images.load_codecs(); video.load_codecs()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, str(ROOT)], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"PIL", "av", "numpy"} <= loaded
    assert not loaded & {"torch", "cv2", "flask", "sqlalchemy", "timm", "models", "web_app"}


def test_the_parent_imports_no_decoder_and_reads_no_header() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import utils.media; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code, str(ROOT)], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "utils.media.sniff" in loaded
    assert not {"PIL", "av", "torch", *(f"utils.media.{name}" for name in ("headers", "images", "video"))} & loaded


# Frames are told while the child still decodes, in the parent's own thread; what is raised over one ends the child.


class PipeChild:
    """A child that is a thread here: `write` gets the end of its pipe."""

    def __init__(self, write: Callable[[Any], None]) -> None:
        reading, writing = os.pipe()
        self.answer = os.fdopen(reading, "rb")
        self.ended = False

        def work() -> None:
            with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as out:
                write(out)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def status(self, timeout_s: float) -> int | None:
        return 0

    def end(self) -> None:
        self.ended = True


VIDEO = Expected(MediaKind.VIDEO, 16, MediaLimits())
STILL = np.zeros((40, 40, 3), np.uint8)


def frames_of(count: int) -> list[Frame]:
    return [Frame(i, float(i), STILL) for i in range(count)]


def write_clip(out: Any, count: int) -> None:
    for frame in frames_of(count):
        child_protocol.write_frame(out, frame)
    child_protocol.write_facts(out, Facts(40, 40, float(count), 1.0, "h264"))


def test_frames_are_told_while_the_child_still_decodes() -> None:
    seen_first = threading.Event()

    def write(out: Any) -> None:
        first, second = frames_of(2)
        child_protocol.write_frame(out, first)
        assert seen_first.wait(60), "the parent waited for the whole answer"
        child_protocol.write_frame(out, second)
        child_protocol.write_facts(out, Facts(40, 40, 2.0, 1.0, "h264"))

    told: list[tuple[int, threading.Thread]] = []

    def on_frame(frame: Frame) -> None:
        told.append((frame.index, threading.current_thread()))
        seen_first.set()

    child = PipeChild(write)
    frames, _ = sandbox.converse(
        child, 90.0, lambda pipe, tell: child_protocol.read_answer(pipe, VIDEO, tell), on_frame
    )
    assert [frame.index for frame in frames] == [0, 1]
    assert told == [(0, threading.current_thread()), (1, threading.current_thread())]
    assert child.ended


def test_what_is_raised_over_a_frame_ends_the_child() -> None:
    def on_frame(frame: Frame) -> None:
        raise JobCancelledError

    child = PipeChild(lambda out: write_clip(out, 2))
    with pytest.raises(JobCancelledError):
        sandbox.converse(child, 90.0, lambda pipe, tell: child_protocol.read_answer(pipe, VIDEO, tell), on_frame)
    assert child.ended


def test_time_spent_on_frames_is_not_the_childs() -> None:
    child = PipeChild(lambda out: write_clip(out, 3))
    child.thread.join(60)  # all of it is in the pipe
    wall_s = 1.0
    looked: list[int] = []

    def on_frame(frame: Frame) -> None:
        if not looked:
            time.sleep(wall_s + 0.5)
        looked.append(frame.index)

    frames, _ = sandbox.converse(
        child, wall_s, lambda pipe, tell: child_protocol.read_answer(pipe, VIDEO, tell), on_frame
    )
    assert (len(frames), looked) == (3, [0, 1, 2])


def test_frames_of_a_clip_are_told_in_order(clips: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(clips["mp4"])
    told: list[Frame] = []
    media = decode_media(tmp_path / "x", MediaSettings(), SandboxSettings(), on_frame=told.append)
    assert [id(frame) for frame in told] == [id(frame) for frame in media.frames]


# Each protection that `confine` reports really holds: a child confines itself and then tries to break out.

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these limits")

ATTEMPTS = """
    import ctypes, json, os, resource, socket, sys, tempfile
    sys.path.insert(0, sys.argv[1])
    from utils.media.sandbox_limits import confine
    open_for_writing = tempfile.TemporaryFile("wb", buffering=0)
    status = open("/proc/self/status") if sys.platform == "linux" else None
    level = confine(int(sys.argv[2]) * 1_000_000, 20)

    def refused(attempt):
        try:
            attempt()
        except (OSError, MemoryError):
            return True
        return False

    def fork():
        if os.fork() == 0:
            os._exit(0)

    libc = ctypes.CDLL(None)
    held = {
        "no_new_files": refused(lambda: open("/etc/passwd")) and refused(lambda: socket.socket()),
        "no_file_writes": refused(lambda: open_for_writing.write(b"x")),
        "no_new_processes": refused(fork),
        "memory_limit": refused(lambda: bytearray(1_500_000_000)),
        "cpu_limit": resource.getrlimit(resource.RLIMIT_CPU) == (20, 21),
        "no_core_dumps": resource.getrlimit(resource.RLIMIT_CORE) == (0, 0),
        "unprivileged_user": os.geteuid() != 0,
    }
    if status:
        facts = {line.split()[0].rstrip(":"): line.split()[-1] for line in status if line.strip()}
        death = ctypes.c_int()
        libc.prctl(2, ctypes.byref(death), 0, 0, 0)
        held["no_capabilities"] = {int(facts[k], 16) for k in ("CapEff", "CapPrm")} == {0}
        held["no_new_privileges"] = facts["NoNewPrivs"] == "1"
        held["dies_with_parent"] = death.value == 9
    print(json.dumps({"level": level, "held": held}))
"""


def broken_out(memory_mb: int = 1000) -> dict[str, dict[str, bool]]:
    command = [sys.executable, "-I", "-c", textwrap.dedent(ATTEMPTS), str(ROOT), str(memory_mb)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return dict(json.loads(done.stdout))


@posix
def test_what_is_reported_holds() -> None:
    told = broken_out()
    level, held = told["level"], told["held"]
    assert set(level) <= set(PROTECTIONS)
    assert {"no_core_dumps", "no_file_writes", "cpu_limit", "no_new_files"} <= set(level)
    for name in set(level) & set(held):
        assert held[name], name


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can try what another user gets")
def test_an_ordinary_user_gets_it_too() -> None:
    """Servers do not run as root: all but what needs a user namespace must hold for an ordinary user."""
    code = """
    import os, sys
    sys.path.insert(0, sys.argv[1])
    from utils.media.sandbox_limits import confine
    os.setgroups([]); os.setgid(1234); os.setuid(1234)
    print(*confine(2_000_000_000, 20))
    """
    command = [sys.executable, "-I", "-c", textwrap.dedent(code), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert set(sandbox_level()) - set(done.stdout.split()) <= {"no_network"}


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_the_network_namespace_is_empty() -> None:
    code = """
    import os, sys
    sys.path.insert(0, sys.argv[1])
    from utils.media.sandbox_limits import _leave_network
    before = os.readlink("/proc/self/ns/net")
    moved = _leave_network()
    print(moved, before != os.readlink("/proc/self/ns/net"))
    """
    command = [sys.executable, "-I", "-c", textwrap.dedent(code), str(ROOT)]
    moved, changed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert moved == changed
    assert (moved == "True") == ("no_network" in sandbox_level())


@posix
def test_the_level_of_this_machine() -> None:
    level = sandbox_level()
    assert level == tuple(name for name in PROTECTIONS if name in level)
    assert "no_new_files" in level


@posix
def test_other_systems_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert confine(10**9, 10) == ()
