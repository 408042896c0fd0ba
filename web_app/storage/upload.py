"""From a multipart body to a stored file: read as a stream, counted, hashed and judged on the way.

The body is never held in memory and never parsed into a temporary file of the framework: werkzeug's parser writes the
bytes of a file straight into the store.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, cast

from flask import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from utils.errors import BadRequestError, TelltaleError, UnsupportedMediaError
from utils.types import MediaKind, Notice
from web_app.storage.files import MediaStore, StoredFile, too_large

AROUND_BYTES = 500_000  # of a part's headers, of a field, and of what stands before the first part or after the last
OTHER_PARTS = 7  # fields and files that nobody asked for; more is abuse
MULTIPART_OVERHEAD = 64 * 1024  # boundaries and headers around the file
MAX_NAME_CHARACTERS = 120


@dataclass(frozen=True)
class Upload:
    """A file that is safely stored, with the name to show and what was odd about it."""

    file: StoredFile
    display_name: str
    notices: tuple[Notice, ...]


def display_name(untrusted_name: str) -> str:
    """A file name fit for showing: its last component, without control and direction characters, 120 at most."""
    last = PurePosixPath(untrusted_name.replace("\\", "/")).name
    visible = "".join(c for c in unicodedata.normalize("NFC", last) if unicodedata.category(c)[0] != "C")
    visible = " ".join(visible.split())
    if len(visible) > MAX_NAME_CHARACTERS:
        visible = visible[: MAX_NAME_CHARACTERS - 12] + "…" + visible[-11:]
    return visible or "unnamed"


@dataclass(frozen=True)
class Refused:
    """A file of a batch that was not taken, and why."""

    display_name: str
    error: TelltaleError


class _Part:
    """A file of the body on its way into the store; the parser writes its bytes, and rewinds it when it is complete.

    A refusal stops nothing yet: whether the file is one that was asked for is known when the body has been read.
    """

    def __init__(self, store: MediaStore) -> None:
        self._store = store
        self._open = contextlib.ExitStack()
        self._file = self._open.enter_context(store.incoming())
        self.result: StoredFile | TelltaleError | None = None

    def write(self, untrusted_chunk: bytes) -> None:
        self._try(lambda: self._file.write(untrusted_chunk))

    def seek(self, _offset: int) -> None:
        self._try(self._file.finish)
        self._open.close()

    def clear(self) -> None:
        self._open.close()
        if isinstance(self.result, StoredFile):
            self._store.remove(self.result.name)

    def _try(self, step: Callable[[], StoredFile | None]) -> None:
        if self.result is None:
            try:
                self.result = step()
            except TelltaleError as error:
                self.result = error


def receive_upload(request: Request, store: MediaStore, accepted: MediaKind | None) -> Upload:
    """Read the request's body, which has exactly one file, into the store.

    Args:
        accepted: the only kind that this route takes; of recordings containers of video too; None takes all.

    Raises:
        MediaTooLargeError: the file or the body is above the limit.
        UnsupportedMediaError: the content is of no kind we read, or not of the accepted one.
    """
    (received,) = receive_files(request, store, 1)
    if isinstance(received, Refused):
        raise received.error
    kind, name = received.file.format.kind, received.file.format.name
    if accepted in (None, kind) or (accepted is MediaKind.AUDIO and kind is MediaKind.VIDEO):
        return received
    store.remove(received.file.name)
    taken = "recordings" if accepted is MediaKind.AUDIO else f"{accepted}s"
    raise UnsupportedMediaError(
        f"This route takes {taken}, and the file is {'a' if kind is MediaKind.VIDEO else 'an'} {kind} ({name}).",
        remedy=f"Send it to /api/detect/{kind} or /api/detect.",
        kind=kind.value,
        route=f"/api/detect/{kind}",
    )


def receive_files(request: Request, store: MediaStore, max_files: int) -> list[Upload | Refused]:
    """Read the files of a request's body into the store; all together they may be as large as one upload.

    Args:
        request: with a body of type multipart/form-data; its parts named `file` that have a file name count, or where
            there is none those named `image`, `video` and `audio`; further ones are ignored.

    Raises:
        BadRequestError: the body is no multipart, is cut off, or has no file or too many; nothing is kept.
        MediaTooLargeError: the body is above the limit; nothing is kept.
    """
    if request.mimetype != "multipart/form-data" or not request.mimetype_params.get("boundary", "").isascii():
        raise BadRequestError("Send the file as multipart/form-data in a part named `file`.")
    request.max_content_length = limit = store.max_bytes + MULTIPART_OVERHEAD
    parts: list[_Part] = []
    wanted: list[FileStorage] = []

    def open_part(*_: object, **__: object) -> Any:
        parts.append(_Part(store))
        return parts[-1]

    parser = FormDataParser(open_part, AROUND_BYTES, limit, silent=False, max_form_parts=max_files + OTHER_PARTS)
    try:
        _, fields, files = parser.parse(
            request.stream, request.mimetype, request.content_length, request.mimetype_params
        )
        found = files.getlist("file") or [each for kind in MediaKind for each in files.getlist(kind)]
        if not 1 <= len(found) <= max_files:
            named = [*((name or "", "") for name in files), *((name, " (text)") for name in fields)]
            sent = [f"`{display_name(name)}`{kind}" for name, kind in named]
            raise BadRequestError(_wrong_count(len(found), max_files, sent))
        wanted = found
        return [_received(each) for each in wanted]
    except RequestEntityTooLarge as error:
        if request.content_length is not None and request.content_length <= limit:
            raise BadRequestError(f"There are too many parts, or over {AROUND_BYTES} bytes around a file.") from error
        raise too_large(store.max_bytes) from error
    except UnicodeDecodeError as error:
        head = display_name(error.object.decode("latin-1"))
        raise BadRequestError(f"The head of a part, with its file name, must be in UTF-8: {head}") from error
    except ValueError as error:  # the parser's word for a body that breaks the format
        raise BadRequestError("The multipart body is cut off or broken.") from error
    finally:
        kept: list[object] = [each.stream for each in wanted]
        for part in parts:
            if part not in kept:
                part.clear()


def _wrong_count(count: int, max_files: int, sent: list[str]) -> str:
    """The sentence for a body with too few files or too many; `sent` are the names of its parts."""
    allowed = "exactly one part" if max_files == 1 else f"1 to {max_files} parts"
    sentence = f"There must be {allowed} named `file` with a file name, not {count}."
    if count > 1 and max_files == 1:
        return f"{sentence} Several files go to /api/batch."
    if count == 0 and sent:
        return f"{sentence} There came {', '.join(sent)}; curl sends a file with -F file=@NAME."
    return sentence


def _received(file: FileStorage) -> Upload | Refused:
    shown, result = display_name(file.filename or ""), cast("_Part", file.stream).result
    if isinstance(result, StoredFile):
        return Upload(result, shown, name_notices(shown, result))
    return Refused(shown, result or BadRequestError("The file is cut off."))


def name_notices(shown: str, stored: StoredFile) -> tuple[Notice, ...]:
    """What is odd about a file's name beside its content."""
    ending = shown.rpartition(".")[2].lower() if "." in shown else ""
    if not ending or ending in stored.format.endings:
        return ()
    return (
        Notice("extension", f"The name ends in .{ending}, but the content is {stored.format.name}; content decides."),
    )
