"""Children that are forked: the same answers and errors as from spawned ones, one file each, and none left behind."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.utils.media.conftest import children_of, is_gone, wait_until
from utils.config import MediaSettings, SandboxSettings
from utils.errors import DecoderCrashedError, DecoderLimitError, MediaCorruptError, MediaError
from utils.media import decode_media, fork_server, sandbox, sandbox_level
from utils.media.child_protocol import read_level
from utils.media.fork_server import ForkServer

pytestmark = pytest.mark.skipif(not ForkServer.available(), reason="this system forks no children")

MEDIA, SANDBOX = MediaSettings(), SandboxSettings()
Misbehave = Callable[..., ForkServer]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(2).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    return tmp_path / "x.png"


@pytest.fixture
def decoders() -> Iterator[ForkServer]:
    made = sandbox.start_fork_server()
    assert made is not None
    yield made
    made.close()


@pytest.fixture
def misbehave() -> Iterator[Misbehave]:
    """Decoders whose children run a piece of code where they would decode a picture."""
    made: list[ForkServer] = []

    def build(code: str) -> ForkServer:
        lines = "\n    ".join(code.splitlines())
        program = (
            "import os, signal, sys, time\nsys.path.insert(0, sys.argv[1])\nfrom utils.media import child\n"
            f"def main(request):\n    {lines}\n    os._exit(0)\n"
            "child.main = main\nfrom utils.media import fork_main\nfork_main.main()"
        )
        head = [sys.executable, "-I", "-c", program, str(sandbox.ROOT)]
        made.append(ForkServer(sandbox.clean_environment(), head))
        return made[-1]

    yield build
    for each in made:
        each.close()


def test_pictures_and_videos_decode_alike(
    picture: Path, tmp_path: Path, clips: dict[str, bytes], decoders: ForkServer
) -> None:
    (tmp_path / "clip").write_bytes(clips["mp4"])
    for path in (picture, tmp_path / "clip", picture):
        forked, spawned = decode_media(path, MEDIA, SANDBOX, decoders), decode_media(path, MEDIA, SANDBOX)
        assert (forked.info, forked.notices) == (spawned.info, spawned.notices)
        for one, other in zip(forked.frames, spawned.frames, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)
            assert one.time_s == other.time_s


def test_coded_errors_cross(tmp_path: Path, picture: Path, decoders: ForkServer) -> None:
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:60])
    with pytest.raises(MediaCorruptError):
        decode_media(tmp_path / "cut.png", MEDIA, SANDBOX, decoders)
    assert decode_media(picture, MEDIA, SANDBOX, decoders).info.width == 120


def test_a_forked_child_has_every_protection_of_a_spawned_one(decoders: ForkServer) -> None:
    request = json.dumps({"format": None, "memory_mb": 2048, "cpu_s": 20})
    with Path(os.devnull).open("rb") as nothing:
        level = sandbox.converse(decoders.start(request, nothing), 20.0, lambda pipe, tell: read_level(pipe))
    assert set(level) >= set(sandbox_level())


def test_a_child_sees_its_file_and_nothing_else(
    picture: Path, misbehave: Misbehave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELLTALE_STORAGE__DATABASE_URL", "postgresql://user:word@host/db")
    code = """
opened = [n for n in os.listdir("/proc/self/fd") if int(n) > 2 and os.path.exists("/proc/self/fd/" + n)]
secrets = [name for name in os.environ if name.startswith("TELLTALE")]
alone = os.getsid(0) == os.getpid() == os.getpgid(0)
os._exit(40 if len(opened) == 0 and not secrets and alone else 41)"""
    with pytest.raises(DecoderCrashedError, match="status 40"):
        decode_media(picture, MEDIA, SANDBOX, misbehave(code))


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", DecoderCrashedError, "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", DecoderLimitError, "killed by the system"),
        ("os._exit(3)", DecoderCrashedError, "status 3"),
        ("raise RuntimeError('unforeseen')", DecoderCrashedError, "status 1"),
        ("os.write(1, b'TTMEDIA1')", DecoderCrashedError, "status 0"),
        ("os.write(1, b'x' * 60000); time.sleep(300)", DecoderCrashedError, "breaks the rules"),
        ("os.kill(os.getppid(), signal.SIGKILL); time.sleep(0.2); os._exit(0)", DecoderCrashedError, "answering"),
    ],
)
def test_crashes_and_nonsense(
    code: str, error: type[MediaError], says: str, picture: Path, misbehave: Misbehave
) -> None:
    broken = misbehave(code)
    for _ in range(2):  # a second one too: whatever happened, there is a process to fork from again
        with pytest.raises(error, match=says):
            decode_media(picture, MEDIA, SANDBOX, broken)


def test_a_hanging_child_and_its_children_are_killed(tmp_path: Path, picture: Path, misbehave: Misbehave) -> None:
    pids = tmp_path / "pids"
    first = f"if not os.path.exists({str(pids)!r}):\n    open({str(pids)!r}, 'w').close()\n    os._exit(0)\n"
    code = f"os.fork()\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(300)"
    broken = misbehave(first + code)
    with pytest.raises(DecoderCrashedError):  # the process to fork from has started then
        decode_media(picture, MEDIA, SANDBOX, broken)
    with pytest.raises(DecoderLimitError, match=r"longer than 1\.5 seconds"):
        decode_media(picture, MEDIA, SandboxSettings(wall_s=1.5), broken)
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    wait_until(lambda: all(map(is_gone, left)))


def test_each_file_has_a_child_of_its_own(tmp_path: Path, picture: Path, misbehave: Misbehave) -> None:
    pids = tmp_path / "pids"
    broken = misbehave(f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}} {{os.getppid()}}\\n')")
    for _ in range(3):
        with pytest.raises(DecoderCrashedError):
            decode_media(picture, MEDIA, SANDBOX, broken)
    lines = [line.split() for line in pids.read_text().splitlines()]
    assert len({child for child, _ in lines}) == 3
    assert len({parent for _, parent in lines}) == 1


def test_a_killed_source_is_replaced(picture: Path, decoders: ForkServer) -> None:
    before = set(children_of())
    assert decode_media(picture, MEDIA, SANDBOX, decoders).info.width == 120
    (source,) = set(children_of()) - before
    os.kill(source, signal.SIGKILL)
    wait_until(lambda: is_gone(source))
    assert decode_media(picture, MEDIA, SANDBOX, decoders).info.width == 120


def test_a_source_that_cannot_start(picture: Path, tmp_path: Path) -> None:
    for command in ([str(tmp_path / "nothing")], [sys.executable, "-c", "raise SystemExit(4)"]):
        broken = ForkServer(sandbox.clean_environment(), command)
        with pytest.raises(DecoderCrashedError):
            decode_media(picture, MEDIA, SANDBOX, broken)
        broken.close()


@pytest.mark.parametrize("broken", ["os.pipe", "socket.socketpair"])
def test_a_lack_of_descriptors_costs_only_the_file_that_meets_it(
    broken: str, picture: Path, misbehave: Misbehave, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    slow = misbehave("time.sleep(300)")
    with picture.open("rb") as file:
        running = slow.start("{}", file)
        sources, before = set(children_of()), set(Path("/proc/self/fd").iterdir())
        with monkeypatch.context() as full:
            full.setattr(f"utils.media.fork_server.{broken}", refuse)
            with pytest.raises(DecoderCrashedError, match="Too many open files"):
                slow.start("{}", file)
            if broken == "socket.socketpair":
                with pytest.raises(DecoderCrashedError, match="Too many open files"):
                    misbehave("pass").warm()
        assert set(Path("/proc/self/fd").iterdir()) <= before
    assert set(children_of()) == sources
    assert running.status(0.2) is None  # it has not ended
    running.end()
    running.answer.close()


def test_a_source_retires(picture: Path, decoders: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "CHILDREN", 2)
    before = set(children_of())
    seen = set()
    for _ in range(5):
        decode_media(picture, MEDIA, SANDBOX, decoders)
        seen |= set(children_of()) - before
    assert len(seen) == 3, seen


def test_what_is_forgotten_ends(picture: Path) -> None:
    before = set(children_of())
    made = sandbox.start_fork_server()
    assert made is not None
    made.warm()
    (source,) = set(children_of()) - before
    del made
    gc.collect()
    assert is_gone(source)


def test_everything_ends_with_a_killed_parent(tmp_path: Path, picture: Path) -> None:
    pids = tmp_path / "pids"
    program = f"""
import os, sys, time
sys.path.insert(0, {str(sandbox.ROOT)!r})
from pathlib import Path
from utils.config import MediaSettings, SandboxSettings
from utils.media import decode_media, sandbox
from utils.media.fork_server import ForkServer
code = '''
import os, sys, time
sys.path.insert(0, sys.argv[1])
from utils.media import child
from utils.media import fork_main
def main(request):
    open({str(pids)!r}, "a").write(f"{{os.getpid()}} {{os.getppid()}}")
    time.sleep(300)
child.main = main
fork_main.main()
'''
command = [sys.executable, "-I", "-c", code, str(sandbox.ROOT)]
decode_media(Path({str(picture)!r}), MediaSettings(), SandboxSettings(),
             ForkServer(sandbox.clean_environment(), command))
"""
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        parent.kill()
    wait_until(lambda: all(is_gone(int(pid)) for pid in pids.read_text().split()))


def test_many_threads_share_a_source(tmp_path: Path, decoders: ForkServer) -> None:
    widths: list[tuple[int, int]] = []

    def work(first: int) -> None:
        for width in range(first, first + 40, 8):
            Image.new("RGB", (width, 40)).save(tmp_path / f"{width}.png")
            media = decode_media(tmp_path / f"{width}.png", MEDIA, SANDBOX, decoders)
            widths.append((width, media.frames[0].pixels.shape[1]))

    threads = [threading.Thread(target=work, args=(40 + n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(widths) == 40
    assert all(wanted == got for wanted, got in widths)
