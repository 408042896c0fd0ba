"""From a multipart body to a stored file and a queued job: read as a stream, counted, hashed and judged on the way.

The body is never held in memory and never parsed into a temporary file of the framework: the part named `file` goes
straight into the store.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData, State

from utils.errors import BadRequestError, TelltaleError, UnsupportedMediaError
from utils.types import MediaKind, Notice
from web_app.storage.files import MediaStore, StoredFile, too_large

CHUNK_BYTES = 256 * 1024
PART_HEADER_BYTES = 16 * 1024  # of a part's headers, and of what stands before the first part or after the last
MAX_PARTS = 8  # one file and a few fields; more is abuse
MULTIPART_OVERHEAD = 64 * 1024  # boundaries and headers around the file
MAX_NAME_CHARACTERS = 120
EXTENSIONS = {
    "jpeg": {"jpg", "jpeg", "jpe", "jfif"},
    "png": {"png"},
    "webp": {"webp"},
    "mp4": {"mp4", "m4v", "mov", "3gp"},
    "mov": {"mov", "qt", "mp4", "m4v"},
    "matroska": {"mkv", "webm"},
    "webm": {"webm", "mkv"},
    "avi": {"avi"},
    "flv": {"flv"},
}
"""Endings that people give to each format; another one earns a notice, because the content decides."""


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


def receive_upload(request: Request, store: MediaStore, accepted: MediaKind | None) -> Upload:
    """Read the request's body into the store.

    Args:
        request: with a body of type multipart/form-data and exactly one part named `file`.
        store: where the bytes go.
        accepted: the only kind that this route takes; None takes both.

    Raises:
        BadRequestError: the body is no multipart, is cut off, or has not exactly one part `file`.
        MediaTooLargeError: the file is above the limit; the rest of the body is not read.
        UnsupportedMediaError: the content is of no kind we read, or not of the accepted one.
    """
    boundary = _boundary(request)
    request.max_content_length = store.max_bytes + MULTIPART_OVERHEAD
    stored: list[Upload] = []
    try:
        for name, untrusted_file_name, chunks in _parts(request, boundary.encode(), MAX_PARTS):
            if name == "file" and untrusted_file_name is not None:
                stored.append(_store_part(untrusted_file_name, chunks, store, accepted))
            for _ in chunks:  # other parts are allowed and ignored; they count against the body's limit
                continue
        if len(stored) != 1:
            raise BadRequestError(f"There must be exactly one part named `file` with a file name, not {len(stored)}.")
    except BaseException as error:
        for upload in stored:
            store.remove(upload.file.name)
        if isinstance(error, RequestEntityTooLarge):
            raise too_large(store.max_bytes) from error
        if isinstance(error, ValueError):  # the decoder's word for a body that breaks the format
            raise BadRequestError("The multipart body is cut off or broken.") from error
        raise
    return stored[0]


@dataclass(frozen=True)
class Refused:
    """A file of a batch that was not taken, and why."""

    display_name: str
    error: TelltaleError


def receive_batch(request: Request, store: MediaStore, max_files: int) -> list[Upload | Refused]:
    """Read a request's body with several files into the store; all together they may be as large as one upload.

    Args:
        request: with a body of type multipart/form-data and one part named `file` or more.
        store: where the bytes go.
        max_files: most files.

    Raises:
        BadRequestError: the body is no multipart, is cut off, or has no file or too many; nothing is kept.
        MediaTooLargeError: the body is above the limit; nothing is kept.
    """
    boundary = _boundary(request)
    request.max_content_length = store.max_bytes + MULTIPART_OVERHEAD
    received: list[Upload | Refused] = []
    try:
        for name, untrusted_file_name, chunks in _parts(request, boundary.encode(), max_files + MAX_PARTS):
            if name == "file" and untrusted_file_name is not None:
                if len(received) == max_files:
                    raise BadRequestError(f"There are more than {max_files} files in one request.")
                received.append(_try_part(untrusted_file_name, chunks, store))
            for _ in chunks:
                continue
        if not received:
            raise BadRequestError("There must be at least one part named `file` with a file name.")
    except BaseException as error:
        for each in received:
            if isinstance(each, Upload):
                store.remove(each.file.name)
        if isinstance(error, RequestEntityTooLarge):
            raise too_large(store.max_bytes) from error
        if isinstance(error, ValueError):
            raise BadRequestError("The multipart body is cut off or broken.") from error
        raise
    return received


def _try_part(untrusted_name: str, chunks: Iterator[bytes], store: MediaStore) -> Upload | Refused:
    try:
        return _store_part(untrusted_name, chunks, store, None)
    except TelltaleError as error:
        return Refused(display_name(untrusted_name), error)


def _boundary(request: Request) -> str:
    content_type, options = parse_options_header(request.headers.get("Content-Type"))
    boundary = options.get("boundary", "")
    if content_type != "multipart/form-data" or not boundary or not boundary.isascii():
        raise BadRequestError("Send the file as multipart/form-data in a part named `file`.")
    return boundary


def _store_part(untrusted_name: str, chunks: Iterator[bytes], store: MediaStore, accepted: MediaKind | None) -> Upload:
    with store.incoming() as incoming:
        for chunk in chunks:
            incoming.write(chunk)
        stored = incoming.finish()
    if accepted is not None and stored.format.kind is not accepted:
        store.remove(stored.name)
        kind = stored.format.kind.value
        raise UnsupportedMediaError(
            f"This route takes {accepted.value}s, and the file is {_with_article(kind)} ({stored.format.name}): "
            f"send it to /api/detect/{kind}, or to /api/detect, which takes both.",
            kind=kind,
            route=f"/api/detect/{kind}",
        )
    shown = display_name(untrusted_name)
    return Upload(stored, shown, name_notices(shown, stored))


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def name_notices(shown: str, stored: StoredFile) -> tuple[Notice, ...]:
    """What is odd about a file's name beside its content."""
    ending = shown.rpartition(".")[2].lower() if "." in shown else ""
    known = EXTENSIONS.get(stored.format.name, set())
    if not ending or not known or ending in known:
        return ()
    return (
        Notice("extension", f"The name ends in .{ending}, but the content is {stored.format.name}; content decides."),
    )


def _parts(request: Request, boundary: bytes, max_parts: int) -> Iterator[tuple[str, str | None, Iterator[bytes]]]:
    """Name, file name (None for a field) and bytes of each part; read a part's bytes before asking for the next."""
    events = _events(request, boundary, max_parts)
    for event in events:
        if isinstance(event, File):
            yield event.name, event.filename, _part_bytes(events)
        elif isinstance(event, Field):
            yield event.name, None, _part_bytes(events)


def _part_bytes(events: Iterator[Event]) -> Iterator[bytes]:
    for event in events:
        if isinstance(event, Data):
            if event.data:
                yield bytes(event.data)
            if not event.more_data:
                return


def _events(request: Request, boundary: bytes, max_parts: int) -> Iterator[Event]:
    decoder = MultipartDecoder(boundary, max_parts=max_parts)
    while True:
        event = decoder.next_event()
        if isinstance(event, NeedData):
            within_a_part = decoder.state in (State.DATA_START, State.DATA)
            if not within_a_part and len(decoder.buffer) > PART_HEADER_BYTES:  # the decoder would keep all of it
                raise BadRequestError(f"A part of the body has more than {PART_HEADER_BYTES} bytes of headers.")
            chunk = request.stream.read(CHUNK_BYTES if within_a_part else PART_HEADER_BYTES)
            decoder.receive_data(chunk or None)
        else:
            yield event
            if isinstance(event, Epilogue):
                return
