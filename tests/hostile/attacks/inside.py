"""Code of an attacker inside the decoding child: what it tries, and what becomes of it.

Each attack runs where the decoder would run, in the real child after `confine`, as if a picture had taken the decoder
over. It answers with pixels, like everything that may leave the child.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from utils.config import MediaSettings, SandboxSettings
from utils.media import sandbox
from utils.media.fork_server import ForkServer
from utils.media.sandbox_limits import PROTECTIONS

FILES = frozenset(("landlock", "no_new_files", "syscall_filter"))
PATHS = frozenset(("landlock", "syscall_filter"))
NETWORK = frozenset(("no_network", "no_new_files", "syscall_filter"))
PROCESSES = frozenset(("no_new_processes", "syscall_filter"))
OTHERS = frozenset(("syscall_filter",))
USER = frozenset(("no_capabilities", "syscall_filter"))

ATTACKS: dict[str, tuple[str, frozenset[str]]] = {
    "read /etc/passwd": ("open('/etc/passwd').read()", FILES),
    "create a file": ("os.open(place + '/new', os.O_WRONLY | os.O_CREAT)", FILES),
    "write over a file": ("open(victim, 'w')", FILES),
    "reopen the upload for writing": ("os.open('/proc/self/fd/0', os.O_RDWR)", FILES),
    "write into the upload": ("os.write(0, b'x')", frozenset()),
    "list a folder": ("os.listdir('/')", FILES),
    "delete a file": ("os.unlink(victim)", PATHS),
    "rename a file": ("os.rename(victim, victim + '.moved')", PATHS),
    "truncate a file by its path": ("os.truncate(victim, 0)", PATHS),
    "open up a file's permissions": ("os.chmod(victim, 0o777)", OTHERS),
    "make a folder": ("os.mkdir(place + '/folder')", PATHS),
    "make a link": ("os.symlink('/etc/passwd', place + '/link')", PATHS),
    "change the folder": ("os.chdir('/')", OTHERS),
    "open a TCP socket": ("socket.socket()", NETWORK),
    "open a UDP socket": ("socket.socket(type=socket.SOCK_DGRAM)", NETWORK),
    "open a local socket": ("socket.socket(socket.AF_UNIX)", NETWORK),
    "open a pair of sockets": ("socket.socketpair()", FILES),
    "open a pipe": ("os.pipe()", FILES),
    "fork": ("os.fork() or os._exit(0)", PROCESSES),
    "start a thread": ("threading.Thread(target=print).start()", PROCESSES),
    "execute a program": ("os.execv('/bin/true', ['true'])", PATHS),
    "spawn a program": ("os.posix_spawn('/bin/true', ['true'], {})", PROCESSES),
    "trace the parent": ("call('ptrace', 16, parent, 0, 0)", OTHERS),
    "read the parent's memory": ("call('process_vm_readv', parent, None, 0, None, 0, 0)", OTHERS),
    "read the parent's memory by file": ("open(f'/proc/{parent}/mem', 'rb')", FILES),
    "read the parent's environment": ("open(f'/proc/{parent}/environ', 'rb')", FILES),
    "end the parent": ("os.kill(parent, 0)", OTHERS),
    "end everything": ("os.kill(-1, 0)", OTHERS),
    "end the parent's group": ("os.killpg(os.getpgid(parent), 0)", OTHERS),
    "change the parent's limits": ("resource.prlimit(parent, resource.RLIMIT_NOFILE, (8, 8))", OTHERS),
    "slow the parent down": ("os.setpriority(os.PRIO_PROCESS, parent, 19)", OTHERS),
    "move the parent to one processor": ("os.sched_setaffinity(parent, {0})", OTHERS),
    "hold the parent": ("os.pidfd_open(parent)", FILES),
    "raise its own limits": ("resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))", USER),
    "outlive its parent": ("call('prctl', 1, 0, 0, 0, 0)", OTHERS),
    "leave its group": ("os.setpgid(0, 0)", OTHERS),
    "become root": ("os.setuid(0)", USER),
    "mount": ("call('mount', None, b'/tmp', None, 32, None)", USER),
    "change the root": ("os.chroot('/')", USER),
    "make a namespace": ("call('unshare', 0x10000000)", OTHERS),
    "take System V memory": ("call('shmget', 0, 1000000, 0o1600)", OTHERS),
    "take a System V queue": ("call('msgget', 0, 0o1600)", OTHERS),
    "make a memory file": ("os.memfd_create('x')", FILES),
    "make memory executable": ("mmap.mmap(-1, 4096, prot=7)", OTHERS),
}
"""Name, code, and the protections of which any one stops it (none named: an ordinary permission does)."""

_CODE = """
import ctypes, errno, json, mmap, os, resource, socket, sys, threading
sys.path.insert(0, sys.argv[1])
import numpy as np
from utils.media import child, images
from utils.media import sandbox_limits
from utils.media.limits import Facts
from utils.types import Frame

asked = json.loads(sys.argv[3])
place, victim = asked["place"], asked["victim"]
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def attempt(code):
    try:
        exec(code, globals())
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except (RuntimeError, ValueError) as error:  # no thread could be started, no limit raised
        return type(error).__name__
    return "done"

def decode_image(untrusted, limits):
    global parent
    parent = os.getppid()
    told = json.dumps({name: attempt(code) for name, code in asked["attacks"].items()}).encode()
    pixels = np.frombuffer(told.ljust(96 * 96 * 3), np.uint8).reshape(96, 96, 3)
    return Frame(0, 0.0, pixels), Facts(96, 96)

images.decode_image = decode_image
sandbox_limits.PROTECTIONS = tuple(name for name in sandbox_limits.PROTECTIONS if name in asked["protections"])
"""
_SPAWNED = _CODE + "child.main(sys.argv[2])"
_FORKED = _CODE + "from utils.media.fork_main import main\nmain()"


def attack_from_inside(
    picture: Path,
    place: Path,
    victim: Path,
    names: Iterable[str] = tuple(ATTACKS),
    protections: Iterable[str] = PROTECTIONS,
    *,
    forked: bool = False,
) -> dict[str, str]:
    """Run attacks in one confined child.

    Args:
        picture: a picture that the child is started for.
        place: a folder to which everybody may write.
        victim: a file that everybody may change.
        names: of the attacks.
        protections: that the child shall put on itself; all unless a test wants to see what fewer hold.
        forked: take a child of `ForkServer` instead of one that is a program of its own.

    Returns:
        For each attack the name of the error that stopped it, or `done`.
    """
    attacks = {name: ATTACKS[name][0] for name in names}
    asked = json.dumps(
        {"place": str(place), "victim": str(victim), "attacks": attacks, "protections": list(protections)}
    )
    head = [sys.executable, "-I", "-c"]
    original = sandbox.child_command
    sandbox.child_command = lambda request: [*head, _SPAWNED, str(sandbox.ROOT), request, asked]
    decoders = ForkServer(sandbox.clean_environment(), [*head, _FORKED, str(sandbox.ROOT), "", asked])
    try:
        media = sandbox.decode_media(picture, MediaSettings(), SandboxSettings(), decoders if forked else None)
    finally:
        sandbox.child_command = original
        decoders.close()
    answers = json.loads(np.asarray(media.frames[0].pixels).tobytes())
    return {str(name): str(answer) for name, answer in answers.items()}
