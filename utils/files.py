"""Files that survive a crash: whole or not at all, on the disk when a call returns, locked where several write."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

try:
    import fcntl
except ImportError:  # Windows has no flock; there only one process may write
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")


@dataclass(frozen=True)
class DamagedLine:
    """A line that could not be read: its number, from 1, and why."""

    number: int
    why: str


def file_sha256(path: Path) -> str:
    """sha256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, so that a rename in it survives a loss of power."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Bring the files of a folder, and their names, to the disk."""
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    fsync_folder(folder)


def replace_file(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that readers see the old content or the whole new one, also after a loss of power.

    Args:
        mode: who may read and write it, less what the umask takes.

    Raises:
        OSError: it could not be written; what was there is as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")  # two processes never share one
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    fsync_folder(path.parent)


def create_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of a file for its owner alone, made where there is none; who comes at the same time gets the same.

    Raises:
        OSError: it could not be written or read.
    """
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            replace_file(fresh, make(), mode=0o600)
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)  # fails if another process was first, where rename would replace its file
            fsync_folder(path.parent)
        finally:
            fresh.unlink(missing_ok=True)
    return path.read_bytes()


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file against other processes; it is free again when its holder ends, however that happens.

    Raises:
        BlockingIOError: somebody else holds it, and `wait` is false.
    """
    with path.open("a") as stream:
        _lock(stream, wait=wait)
        yield


def append_line(path: Path, make: Callable[[], bytes]) -> None:
    """Write one line behind the others; when this returns, it is on the disk.

    What a crash left of the last line stays a line of its own.

    Args:
        path: of the file; it is created if there is none, for its owner alone.
        make: gives the line with its line feed; called while nobody else can write.

    Raises:
        OSError: the line could not be written; the file is then as it was.
    """
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        _lock(descriptor)
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        line = (b"\n" if torn else b"") + make()
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes could be written", path.name)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if is_new:
        fsync_folder(path.parent)


def read_lines(path: Path, parse: Callable[[Any], T]) -> tuple[list[T], list[DamagedLine]]:
    """The JSON lines of a file, and those that are none; a file that does not exist is empty.

    Args:
        parse: makes an entry of the JSON value of a line; raises ValueError where it is none.

    Raises:
        OSError: the file exists and cannot be read.
    """
    entries: list[T] = []
    damaged: list[DamagedLine] = []
    if not path.exists():
        return entries, damaged
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    entries.append(parse(json.loads(line.decode("utf-8"))))
                except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
                    damaged.append(DamagedLine(number, str(error)))
    return entries, damaged


def _lock(file: IO[str] | int, *, wait: bool = True) -> None:
    """Keep other processes from writing until the file is closed."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
