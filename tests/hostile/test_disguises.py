"""Playlists, drawings and documents named like media: refused by content; nothing else is opened or called.

A file and a listening socket stand ready that they point to: the test would see any touch of either.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.fuzz.engine import fuzz, inputs
from benchmarks.fuzz.targets import TARGETS, Target
from tests.hostile.attacks.disguises import disguises, references
from utils.config import MediaSettings, SandboxSettings
from utils.errors import MediaError, UnsupportedMediaError
from utils.media import decode_media
from web_app.storage.files import MediaStore

NAMES = sorted(disguises("/x", "http://x/"))
REFERENCES = sorted(references("/x", "http://x/"))
IN_OPEN_OR_ACCESS = 0x20 | 0x01


class Trap:
    """A file that reports each opening, and a port that reports each call."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "secret.jpg"
        self.file.write_bytes(b"\xff\xd8\xffsecret")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/x.jpg"
        libc = ctypes.CDLL(None)
        self._watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self._watch, bytes(self.file), IN_OPEN_OR_ACCESS) >= 0

    @property
    def file_was_touched(self) -> bool:
        try:
            return bool(os.read(self._watch, 4096))
        except BlockingIOError:
            return False

    @property
    def server_was_called(self) -> bool:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return False
        connection.close()
        return True

    def close(self) -> None:
        os.close(self._watch)
        self._listener.close()


def store(path: Path) -> None:
    with MediaStore(path.parent, 10**6).incoming() as incoming:
        incoming.write(path.read_bytes())
        incoming.finish()


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    if sys.platform != "linux":
        pytest.skip("the trap uses inotify of Linux")
    ready = Trap(tmp_path)
    yield ready
    ready.close()


@pytest.mark.parametrize("ending", ["mp4", "jpg"])
@pytest.mark.parametrize("name", NAMES)
def test_a_disguise_is_refused_by_content_and_touches_nothing(name: str, ending: str, trap: Trap) -> None:
    path = trap.file.parent / f"holiday.{ending}"
    path.write_bytes(disguises(str(trap.file), trap.url)[name])
    with pytest.raises(UnsupportedMediaError):
        decode_media(path, MediaSettings(), SandboxSettings())
    with pytest.raises(UnsupportedMediaError):
        store(path)
    assert not trap.file_was_touched
    assert not trap.server_was_called


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_inside_a_video_is_not_followed(name: str, trap: Trap) -> None:
    path = trap.file.parent / "clip.mov"
    path.write_bytes(references(str(trap.file), trap.url)[name])
    try:
        media = decode_media(path, MediaSettings(), SandboxSettings())
    except MediaError as error:
        assert error.code == "media_corrupt"  # noqa: PT017 - without its pixels there is no clip
    else:
        assert media.info.format == "mov"
    assert not trap.file_was_touched
    assert not trap.server_was_called


def test_the_trap_works(trap: Trap) -> None:
    trap.file.read_bytes()
    assert trap.file_was_touched
    assert not trap.file_was_touched
    host, _, port = trap.url.split("/")[2].partition(":")
    socket.create_connection((host, int(port))).close()
    assert trap.server_was_called


# The readers of foreign bytes under repeatable mutations: the short form of `make fuzz`.

COUNTS = {"sniff": 600, "child_protocol": 3000, "feedback_reader": 1500, "config_reader": 250, "report_renderer": 200}


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_surprises_a_reader(name: str) -> None:
    count = COUNTS.get(name, 400)
    assert fuzz(TARGETS[name], count=count) == count


def test_the_fuzzer_finds_what_is_wrong() -> None:
    def careless(data: bytes) -> None:
        if b"\x00" in data:
            raise KeyError(data)

    with pytest.raises(AssertionError, match="KeyError"):
        fuzz(Target(careless, lambda: [b"healthy"]), count=5000)


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second = (inputs([b"one", b"two"], 5) for _ in range(2))
    assert [next(first) for _ in range(200)] == [next(second) for _ in range(200)]
