"""The uploads folder: bytes come in through a temporary file and appear under a name made of their hash, or not at all.

No part of a path is taken from the user. A stored name carries a random part besides the hash, so that deleting one
entry can never remove the file of another one that was uploaded a moment later.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from utils.errors import MediaTooLargeError, StorageFullError, UnavailableError
from utils.files import fsync_folder
from utils.log import get_logger
from utils.media.sniff import SNIFF_BYTES, MediaFormat, sniff

PART_SUFFIX = ".part"
THUMBNAIL_SUFFIX = ".thumb"
FRAMES_SUFFIX = ".frames"
CLEAN_SUFFIX = ".clean"
DERIVED_SUFFIXES = (THUMBNAIL_SUFFIX, FRAMES_SUFFIX, CLEAN_SUFFIX)
THUMBNAIL_MIME = "image/jpeg"
FRESH_PART_S = 10.0
LOOK_FOR_ROOM_BYTES = 4_000_000  # how much is written between two looks at the room that is left

log = get_logger(__name__)


@dataclass(frozen=True)
class StoredFile:
    """A complete file in the uploads folder: its name there, hash, size in bytes and format by content."""

    name: str
    sha256: str
    size_bytes: int
    format: MediaFormat


class IncomingFile:
    """One upload on its way into a store; use it in a `with` block, `write` the bytes, then `finish`."""

    def __init__(self, store: MediaStore) -> None:
        self._store = store
        self._look_at = 0
        self._temporary = store.folder / f"{secrets.token_hex(16)}{PART_SUFFIX}"
        self._hash = hashlib.sha256()
        self._size = 0
        self._head = b""
        self._format: MediaFormat | None = None

    def __enter__(self) -> Self:
        self._file = os.fdopen(os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # held while the upload lives, so that no sweep takes it for a rest
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.unlink(missing_ok=True)  # first, for closing may fail on a full disk
        with contextlib.suppress(OSError):  # what the disk refused was reported by write or finish
            self._file.close()

    def write(self, untrusted_chunk: bytes) -> None:
        """Take the next bytes; the kind is decided as soon as the head has arrived, not after the whole file.

        Raises:
            MediaTooLargeError: more than `max_bytes` arrived.
            UnsupportedMediaError: the head is of no kind we read.
            StorageFullError: too little room would be left.
        """
        self._size += len(untrusted_chunk)
        if self._size > self._store.max_bytes:
            raise too_large(self._store.max_bytes)
        if self._size >= self._look_at:
            self._look_at = self._size + LOOK_FOR_ROOM_BYTES
            if not self._store.has_room(LOOK_FOR_ROOM_BYTES):
                raise StorageFullError("Too little room would be left on the server's disk.")
        self._hash.update(untrusted_chunk)
        self._file.write(untrusted_chunk)
        if self._format is None:
            self._head += untrusted_chunk[: SNIFF_BYTES - len(self._head)]
            if len(self._head) >= SNIFF_BYTES:
                self._format = sniff(self._head)

    def finish(self) -> StoredFile:
        """Bring the file to the disk and give it its name.

        Raises:
            EmptyFileError: no byte arrived.
            UnsupportedMediaError: the content is of no kind we read.
            UnavailableError: somebody else deleted the half file.
        """
        media_format = self._format or sniff(self._head)
        self._file.flush()
        os.fsync(self._file.fileno())
        digest = self._hash.hexdigest()
        name = f"{digest[:2]}/{digest}-{secrets.token_hex(4)}"
        final = self._store.folder / name
        new_folder = not final.parent.is_dir()
        final.parent.mkdir(exist_ok=True, mode=0o700)
        try:
            self._temporary.rename(final)
        except FileNotFoundError as error:
            raise UnavailableError("The half file has been deleted from outside.") from error
        fsync_folder(final.parent)
        if new_folder:
            fsync_folder(self._store.folder)
        return StoredFile(name, digest, self._size, media_format)


class MediaStore:
    origin = ""
    """Of addresses that `link` gives, for the pages' policy."""

    def __init__(self, folder: Path, max_bytes: int, reserve_bytes: int = 0) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.reserve_bytes = reserve_bytes

    def prepare(self) -> None:
        """Make all folders that names can begin with, so that no upload has to bring a new one to the disk."""
        for number in range(256):
            (self.folder / f"{number:02x}").mkdir(exist_ok=True, mode=0o700)
        fsync_folder(self.folder)

    def incoming(self) -> IncomingFile:
        return IncomingFile(self)

    def has_room(self, size_bytes: int) -> bool:
        """Whether the disk keeps `reserve_bytes` free when so much is written."""
        return shutil.disk_usage(self.folder).free >= self.reserve_bytes + size_bytes

    def path(self, stored_name: str, suffix: str = "") -> Path:
        """Where a stored file lies, or with a suffix what its worker made of it; its name is never from a request.

        An empty clean copy says that none can be made.
        """
        return self.folder / (stored_name + suffix)

    def size(self, stored_name: str, suffix: str = "") -> int | None:
        """Bytes of a stored file, or of what was made of it; None where there is none."""
        path = self.folder / (stored_name + suffix)
        return path.stat().st_size if path.is_file() else None

    def shows(self, stored_name: str, *, done: bool) -> bool:
        """Whether there is a thumbnail, for a list; a store that would have to ask for each goes by `done`."""
        return self.path(stored_name, THUMBNAIL_SUFFIX).is_file()

    def link(self, stored_name: str, suffix: str, mime: str, name: str) -> str | None:
        """Where somebody else hands a file out as a download; None: that is done here."""
        return None

    def share(self, stored_name: str, mime: str) -> None:
        """Let the other machines have what was made of a file of this type."""

    def remove(self, stored_name: str) -> None:
        """Delete a file and what was made of it; one that is gone already is fine."""
        for suffix in (*DERIVED_SUFFIXES, ""):
            self.path(stored_name, suffix).unlink(missing_ok=True)

    def sweep_cut_off(self) -> int:
        """Delete what interrupted writers left behind; returns how many files.

        A living writer holds a lock on its file, or has made it a moment ago; what nobody holds is a rest.
        """
        deleted = 0
        for path in self._parts():
            with contextlib.suppress(FileNotFoundError):  # a writer that ends meanwhile renames or removes its own
                deleted += _remove_if_left(path)
        if deleted:
            log.info("deleted %d files of interrupted uploads", deleted)
        return deleted

    def derived(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*/*") if path.suffix in DERIVED_SUFFIXES)

    def _parts(self) -> Iterator[Path]:
        return self.folder.rglob(f"*{PART_SUFFIX}")

    def files(self) -> Iterator[tuple[str, float]]:
        """Stored name of each complete file, and when it was written in seconds since 1970."""
        for path in self.folder.glob("*/*"):
            if path.suffix not in (PART_SUFFIX, *DERIVED_SUFFIXES):
                with contextlib.suppress(FileNotFoundError):
                    yield f"{path.parent.name}/{path.name}", path.stat().st_mtime


def write_beside(path: Path, suffix: str, fill: Callable[[BinaryIO], object]) -> bool:
    """Write what is made of a stored file beside it, whole or not at all; whether that is done.

    A disk that refuses costs what was to be written and nothing else; a file that was deleted meanwhile leaves none
    behind.
    """
    target = path.with_name(path.name + suffix)
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}{PART_SUFFIX}")
    try:
        with part.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # so that no sweep takes it for a rest
            fill(file)
        part.rename(target)
        if not path.exists():
            target.unlink()
    except OSError as error:
        log.warning("%s was not stored: %s", suffix, error)
        with contextlib.suppress(OSError):
            part.unlink()
        return False
    return True


def _remove_if_left(path: Path) -> bool:
    """Delete a half file that nobody is writing; whether it was one."""
    with path.open("rb") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if abs(time.time() - path.stat().st_mtime) < FRESH_PART_S:
            return False  # its writer may be about to take the lock
        path.unlink()
    return True


def too_large(max_bytes: int) -> MediaTooLargeError:
    return MediaTooLargeError(f"The file is larger than {max_bytes / 1e6:g} MB.", limit_bytes=max_bytes)
