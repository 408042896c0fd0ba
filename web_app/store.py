"""The uploads folder: bytes come in through a temporary file and appear under a name made of their hash, or not at all.

No part of a path is taken from the user. A stored name carries a random part besides the hash, so that deleting one
entry can never remove the file of another one that was uploaded a moment later.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from utils.errors import BadRequestError, MediaTooLargeError
from utils.log import get_logger
from utils.media.sniff import SNIFF_BYTES, MediaFormat, sniff

PART_SUFFIX = ".part"
STALE_PART_S = 3600.0  # an upload that has not grown for an hour was cut off

log = get_logger(__name__)


@dataclass(frozen=True)
class StoredFile:
    """A complete file in the uploads folder: its name there, hash, size in bytes and format by content."""

    name: str
    sha256: str
    size_bytes: int
    format: MediaFormat


class IncomingFile:
    """One upload on its way in; use it in a `with` block, `write` the bytes, then `finish`.

    Args:
        folder: the uploads folder.
        max_bytes: more than this is refused while it arrives.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._temporary = folder / f"{secrets.token_hex(16)}{PART_SUFFIX}"
        self._hash = hashlib.sha256()
        self._size = 0
        self._head = b""
        self._format: MediaFormat | None = None

    def __enter__(self) -> Self:
        self._file = os.fdopen(os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.unlink(missing_ok=True)  # first, for closing may fail on a full disk
        with contextlib.suppress(OSError):  # what the disk refused was reported by write or finish
            self._file.close()

    def write(self, untrusted_chunk: bytes) -> None:
        """Take the next bytes; the kind is decided as soon as the head has arrived, not after the whole file.

        Raises:
            MediaTooLargeError: more than `max_bytes` arrived.
            UnsupportedMediaError: the head is of no kind we read.
        """
        self._size += len(untrusted_chunk)
        if self._size > self._max_bytes:
            raise too_large(self._max_bytes)
        self._hash.update(untrusted_chunk)
        self._file.write(untrusted_chunk)
        if self._format is None:
            self._head += untrusted_chunk[: SNIFF_BYTES - len(self._head)]
            if len(self._head) >= SNIFF_BYTES:
                self._format = sniff(self._head)

    def finish(self) -> StoredFile:
        """Bring the file to the disk and give it its name.

        Raises:
            BadRequestError: no byte arrived.
            UnsupportedMediaError: the content is of no kind we read.
        """
        if self._size == 0:
            raise BadRequestError("The file is empty.")
        media_format = self._format or sniff(self._head)
        self._file.flush()
        os.fsync(self._file.fileno())
        digest = self._hash.hexdigest()
        name = f"{digest[:2]}/{digest}-{secrets.token_hex(4)}"
        final = self._folder / name
        new_folder = not final.parent.is_dir()
        final.parent.mkdir(exist_ok=True, mode=0o700)
        self._temporary.rename(final)
        _fsync_folder(final.parent)
        if new_folder:
            _fsync_folder(self._folder)
        return StoredFile(name, digest, self._size, media_format)


class MediaStore:
    """The files of the uploads folder.

    Args:
        folder: the uploads folder; it exists.
        max_bytes: largest file.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def incoming(self) -> IncomingFile:
        """A place for one upload."""
        return IncomingFile(self.folder, self.max_bytes)

    def path(self, stored_name: str) -> Path:
        """Where a stored file lies; the name comes from the database, never from a request."""
        return self.folder / stored_name

    def remove(self, stored_name: str) -> None:
        """Delete a file; one that is gone already is fine."""
        self.path(stored_name).unlink(missing_ok=True)

    def sweep_cut_off(self, now: float | None = None) -> int:
        """Delete what interrupted uploads left behind; returns how many files."""
        before = (time.time() if now is None else now) - STALE_PART_S
        deleted = 0
        for path in self._parts():
            with contextlib.suppress(FileNotFoundError):  # an upload that ends meanwhile renames or removes its own
                if path.stat().st_mtime < before:
                    path.unlink()
                    deleted += 1
        if deleted:
            log.info("deleted %d files of interrupted uploads", deleted)
        return deleted

    def _parts(self) -> Iterator[Path]:
        return self.folder.glob(f"*{PART_SUFFIX}")


def too_large(max_bytes: int) -> MediaTooLargeError:
    """The refusal of a file above the limit."""
    return MediaTooLargeError(f"The file is larger than {max_bytes / 1e6:g} MB.", limit_bytes=max_bytes)


def _fsync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
