"""Handing uploaded files out: as a download with a fixed type that may run nothing, and without their metadata."""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Iterator
from pathlib import Path

from flask import Response, current_app, request

from utils.errors import MediaCorruptError, NotFoundError, UnavailableError
from utils.types import MediaKind
from web_app.auth.identity import MEDIA_POLICY
from web_app.db.models import MediaRow
from web_app.storage.clean import bare_parts
from web_app.storage.clean.parts import Content

ENDINGS = {"jpeg": "jpg", "matroska": "mkv"}  # where the format's name is not its usual ending


READER_WAIT_S = 2.0
RETRY_S = 3


def hand_out(path: Path, media: MediaRow, readers: threading.BoundedSemaphore) -> Response:
    """The file of a medium; ranges are served, so that a player can jump.

    Args:
        path: of the file.
        media: its row.
        readers: bounds how many videos are looked through at the same time, for one may take seconds.

    Raises:
        NotFoundError: it is gone, or so damaged that its metadata cannot be told from it.
        UnavailableError: too many others are being looked through.
    """
    if not path.is_file():
        raise NotFoundError("The file of this analysis is gone.")
    name = f"telltale-{media.sha256[:12]}.{ENDINGS.get(media.format, media.format)}"
    with _turn(readers) if media.kind == MediaKind.VIDEO else contextlib.nullcontext():
        answer = _without_metadata(path, media)
    answer.headers.set("Content-Disposition", "attachment", filename=name)
    answer.headers["Content-Security-Policy"] = MEDIA_POLICY
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Cache-Control"] = "private, no-cache"
    return answer


@contextlib.contextmanager
def _turn(readers: threading.BoundedSemaphore) -> Iterator[None]:
    if not readers.acquire(timeout=READER_WAIT_S):
        raise UnavailableError("Many videos are asked for at the moment.", retry_after_s=RETRY_S)
    try:
        yield
    finally:
        readers.release()


def _without_metadata(path: Path, media: MediaRow) -> Response:
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        parts = bare_parts(data, media.format)  # type: ignore[arg-type]  # a map has what is used of bytes
    except MediaCorruptError:
        data.close()
        raise NotFoundError(
            f"This {media.kind} is damaged: metadata could go with it, so it is not handed out."
        ) from None
    content = Content(data, parts)  # type: ignore[arg-type]
    answer = current_app.response_class(content, mimetype=media.mime)
    answer.call_on_close(data.close)
    answer.content_length = content.size
    answer.set_etag(f"{media.sha256}-bare")
    answer.make_conditional(request, accept_ranges=True, complete_length=content.size)
    return answer
