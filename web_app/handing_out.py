"""Handing uploaded files out: as a download with a fixed type that may run nothing, and without their metadata."""

from __future__ import annotations

import mmap
from pathlib import Path

from flask import Response, current_app, request

from utils.errors import MediaCorruptError, NotFoundError
from web_app.bare import bare_parts
from web_app.bare.parts import Content
from web_app.db import MediaRow
from web_app.security import MEDIA_POLICY

ENDINGS = {"jpeg": "jpg", "matroska": "mkv"}  # where the format's name is not its usual ending


def hand_out(path: Path, media: MediaRow) -> Response:
    """The file of a medium; ranges are served, so that a player can jump.

    Raises:
        NotFoundError: it is gone, or so damaged that its metadata cannot be told from it.
    """
    if not path.is_file():
        raise NotFoundError("The file of this analysis is gone.")
    name = f"telltale-{media.sha256[:12]}.{ENDINGS.get(media.format, media.format)}"
    answer = _without_metadata(path, media)
    answer.headers.set("Content-Disposition", "attachment", filename=name)
    answer.headers["Content-Security-Policy"] = MEDIA_POLICY
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Cache-Control"] = "private, no-cache"
    return answer


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
