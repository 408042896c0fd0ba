"""Each protection that `confine` reports really holds: a child confines itself and then tries to break out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from utils.media.sandbox import ROOT, sandbox_level
from utils.media.sandbox_limits import PROTECTIONS, confine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these limits")

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


def test_the_level_of_this_machine() -> None:
    level = sandbox_level()
    assert level == tuple(name for name in PROTECTIONS if name in level)
    assert "no_new_files" in level


def test_other_systems_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert confine(10**9, 10) == ()
