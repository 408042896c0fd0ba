"""The protections that the decoding child puts on itself, after its imports and before the first untrusted byte.

Each one is tried on its own and its name returned when it took hold: a container or another operating system may
refuse some, and decoding goes on with the rest. None of them can be taken back by the process. Landlock and the filter
of system calls, which Linux gives to ordinary processes, are set through plain system calls.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence

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

# Landlock (Linux, Documentation/userspace-api/landlock.rst): numbers of its calls are the same on every processor.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_VERSION = 1
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights over files a version of Landlock knows; 16 since the fifth."""
_TCP_RIGHTS = 0b11  # bind, connect
_SCOPES = 0b11  # abstract sockets and signals to processes outside

# Seccomp (Linux, Documentation/userspace-api/seccomp_filter.rst).
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_RETURN_ALLOW, _RETURN_KILL, _RETURN_EPERM = 0x7FFF0000, 0x80000000, 0x00050001
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGUMENTS = 0, 4, 16
_X32_BIT = 0x40000000
_PR_GET_PDEATHSIG = 2
_PROT_EXEC = 4

_CALLS = (
    "read", "write", "close", "fstat", "lseek", "mmap", "mprotect", "munmap", "brk", "rt_sigaction",
    "rt_sigprocmask", "rt_sigreturn", "pread64", "readv", "writev", "sched_yield", "mremap", "madvise", "nanosleep",
    "getpid", "exit", "uname", "gettimeofday", "getrlimit", "getrusage", "sysinfo", "times", "getuid", "getgid",
    "geteuid", "getegid", "sigaltstack", "prctl", "gettid", "futex", "sched_getaffinity", "set_tid_address",
    "restart_syscall", "clock_gettime", "clock_getres", "clock_nanosleep", "exit_group", "tgkill", "newfstatat",
    "set_robust_list", "prlimit64", "getrandom", "membarrier", "statx", "rseq",
)  # fmt: skip
"""What decoding needs: to read and write what is open, memory, time and an end. All else answers `EPERM`."""

_NUMBERS = {
    "x86_64": (0xC000003E, (
        0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 17, 19, 20, 24, 25, 28, 35, 39, 60, 63, 96, 97, 98, 99, 100, 102,
        104, 107, 108, 131, 157, 186, 202, 204, 218, 219, 228, 229, 230, 231, 234, 262, 273, 302, 318, 324, 332, 334,
    )),
    "aarch64": (0xC00000B7, (
        63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 67, 65, 66, 124, 216, 233, 101, 172, 93, 160, 169, 163,
        165, 179, 153, 174, 176, 175, 177, 132, 167, 178, 98, 123, 96, 128, 113, 114, 115, 94, 131, 79, 99, 261, 278,
        283, 291, 293,
    )),
}  # fmt: skip
"""For each processor its identifier in the filter and the numbers of `_CALLS`, in their order."""


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
        "landlock": _forbid_files_by_landlock,
        "no_new_files": lambda: _limit("RLIMIT_NOFILE", 0),
        "syscall_filter": _filter_system_calls,
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
    function = getattr(_libc(), name, None) if sys.platform == "linux" else None
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


def _forbid_files_by_landlock() -> bool:
    """Take away every right over files, TCP, and over processes outside; what is open stays usable.

    Returns:
        Whether the kernel took it; it needs `no_new_privileges` first.
    """
    if sys.platform != "linux":
        return False
    version = _syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    rights = struct.pack("=Q", (1 << _FILE_RIGHTS.get(version, 16)) - 1)
    if version >= 4:
        rights += struct.pack("=Q", _TCP_RIGHTS)
    if version >= 6:
        rights += struct.pack("=Q", _SCOPES)
    rules = _syscall(_LANDLOCK_CREATE_RULESET, rights, len(rights), 0)
    if rules < 0:
        return False
    try:
        return _syscall(_LANDLOCK_RESTRICT_SELF, rules, 0) == 0
    finally:
        os.close(rules)


def _filter_system_calls() -> bool:
    """Let only the calls through that decoding needs.

    Calls with a target are let through for the process itself only, and memory never becomes executable.

    Returns:
        Whether the kernel took it; it needs `no_new_privileges` first.
    """
    if sys.platform != "linux" or os.uname().machine not in _NUMBERS or struct.calcsize("P") != 8:
        return False
    program = b"".join(_program(*_NUMBERS[os.uname().machine], os.getpid()))
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    arguments = (_SECCOMP_MODE_FILTER, ctypes.addressof(head), 0, 0)
    return bool(_libc().prctl(ctypes.c_int(_PR_SET_SECCOMP), *map(ctypes.c_ulong, arguments)) == 0)


def _program(arch: int, numbers: Sequence[int], pid: int) -> list[bytes]:
    """The filter as instructions of the classic BPF machine: look at processor and call, then answer."""
    calls = dict(zip(_CALLS, numbers, strict=True))
    out = [_step(_LOAD, _OFFSET_ARCH), _step(_JUMP_EQUAL, arch, 1, 0), _step(_RETURN, _RETURN_KILL)]
    out += [_step(_LOAD, _OFFSET_NUMBER), _step(_JUMP_AT_LEAST, _X32_BIT, 0, 1), _step(_RETURN, _RETURN_EPERM)]
    out += _only(calls.pop("tgkill"), 0, pid)  # abort() signals itself
    out += _only(calls.pop("prlimit64"), 0, 0)
    out += _only(calls.pop("prctl"), 0, _PR_GET_PDEATHSIG)
    for name in ("mmap", "mprotect"):
        out += _only(calls.pop(name), 2, _PROT_EXEC, unless=True)
    for number in calls.values():
        out += [_step(_JUMP_EQUAL, number, 0, 1), _step(_RETURN, _RETURN_ALLOW)]
    return [*out, _step(_RETURN, _RETURN_EPERM)]


def _only(number: int, argument: int, value: int, *, unless: bool = False) -> list[bytes]:
    """Let a call through where the low half of an argument has a value, or none of its bits."""
    test = _step(_JUMP_SET, value, 1, 0) if unless else _step(_JUMP_EQUAL, value, 0, 1)
    return [
        _step(_JUMP_EQUAL, number, 0, 4),
        _step(_LOAD, _OFFSET_ARGUMENTS + 8 * argument),
        test,
        _step(_RETURN, _RETURN_ALLOW),
        _step(_RETURN, _RETURN_EPERM),
    ]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _libc() -> ctypes.CDLL:
    """The C library of this process."""
    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """A system call by number; whole numbers are handed over as machine words."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(_libc().syscall(ctypes.c_long(number), *words))
