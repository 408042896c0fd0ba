"""The protections that the decoding child puts on itself, after its imports and before the first untrusted byte.

Each one is tried on its own and its name returned when it took hold: a container or another operating system may
refuse some, and decoding goes on with the rest. None of them can be taken back by the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from utils.media import seccomp_landlock

try:
    import resource
except ImportError:  # Windows has no resource limits of this kind
    resource = None  # type: ignore[assignment]

PROTECTIONS = (
    "no_network",
    "unprivileged_user",
    "dies_with_parent",
    "no_capabilities",
    "no_new_privileges",
    "no_core_dumps",
    "no_file_writes",
    "no_new_processes",
    "cpu_limit",
    "memory_limit",
    "landlock",
    "no_new_files",
    "syscall_filter",
)
"""All names, in the order in which they are applied."""

NOBODY = 65534

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522


def confine(memory_bytes: int, cpu_s: int) -> tuple[str, ...]:
    """Confine this process for the rest of its life.

    `no_new_files` sets the limit of open files to zero: what is open stays usable, and nothing can be opened any more,
    neither a file nor a socket.

    Args:
        memory_bytes: address space, in all.
        cpu_s: processor time, seconds; at its end the process is killed.

    Returns:
        The names out of `PROTECTIONS` that are in force.
    """
    steps: dict[str, Callable[[], bool]] = {
        "no_network": _leave_network,
        "unprivileged_user": _become_nobody,
        "dies_with_parent": lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # a change of user would clear it
        "no_capabilities": _drop_capabilities,
        "no_new_privileges": lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1),
        "no_core_dumps": lambda: _limit("RLIMIT_CORE", 0),
        "no_file_writes": lambda: _limit("RLIMIT_FSIZE", 0),
        "no_new_processes": lambda: os.geteuid() != 0 and _limit("RLIMIT_NPROC", 0),  # the kernel spares root
        "cpu_limit": lambda: _limit("RLIMIT_CPU", cpu_s, cpu_s + 1),
        "memory_limit": lambda: sys.platform == "linux" and _limit("RLIMIT_AS", memory_bytes),
        "landlock": seccomp_landlock.forbid_files_by_landlock,
        "no_new_files": lambda: _limit("RLIMIT_NOFILE", 0),
        "syscall_filter": seccomp_landlock.filter_system_calls,
    }
    if sys.platform == "win32":
        return ()
    return tuple(name for name in PROTECTIONS if steps[name]())


def _limit(name: str, soft: int, hard: int | None = None) -> bool:
    """Lower one resource limit; False where the system does not know it or refuses."""
    kind = getattr(resource, name, None)
    if kind is None:
        return False
    try:
        _, ceiling = resource.getrlimit(kind)
        wanted = soft if hard is None else hard
        if ceiling != resource.RLIM_INFINITY:
            wanted = min(wanted, ceiling)
        resource.setrlimit(kind, (min(soft, wanted), wanted))
    except (OSError, ValueError):
        return False
    return True


def _libc_call(name: str, *arguments: object) -> bool:
    """Call a function of the Linux C library; True when it returned 0."""
    function = getattr(seccomp_landlock.libc(), name, None) if sys.platform == "linux" else None
    return function is not None and function(*arguments) == 0


def _prctl(option: int, value: int) -> bool:
    return _libc_call("prctl", ctypes.c_int(option), *map(ctypes.c_ulong, (value, 0, 0, 0)))


def _leave_network() -> bool:
    """Move into an empty network namespace; an ordinary user may do so inside a user namespace of its own."""
    return _libc_call("unshare", _CLONE_NEWNET) or _libc_call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)


def _become_nobody() -> bool:
    """Give up root; True when the process is not root afterwards."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        except OSError:
            return False
    return os.geteuid() != 0


def _drop_capabilities() -> bool:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none_left = (ctypes.c_uint32 * 6)()
    return _libc_call("capset", header, none_left)
