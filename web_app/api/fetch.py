"""Analysing a file from the internet: fetched under the rules of `integrations/http_client.py`, then like an upload."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from flask import Response, request

from utils.errors import FetchError, NotAvailableError, UnavailableError
from web_app.api.detect import answer_upload, asked_wait_s, waiting_slot, wish_of
from web_app.api.parse import parse_json
from web_app.api.schemas import UrlRequest
from web_app.auth import identity
from web_app.integrations.http_client import open_url
from web_app.services import Services, services
from web_app.storage.files import too_large
from web_app.storage.upload import Upload, display_name, name_notices

CHUNK_BYTES = 64 * 1024
ACCEPT = {"Accept": "image/jpeg, image/png, image/webp, video/*"}


def detect_url() -> Response:
    """Analyse a picture or video from an address on the internet; off unless `[api] url_input` is on."""
    parts = services()
    if parts.settings.api.url_input != "on":
        raise NotAvailableError("URL input is switched off ([api] url_input).")
    said = parse_json(UrlRequest, request)
    asked_s = asked_wait_s()
    wish = wish_of(request, parts)
    with parts.database.read() as session:
        parts.queue.require_room(session)
    with waiting_slot(parts) as free:
        if not free:
            raise UnavailableError("Too many requests are waiting.", retry_after_s=5)
        upload = fetch(said.url, parts)
    return answer_upload(parts, upload, identity.caller().id, wish, asked_s)


def fetch(untrusted_url: str, parts: Services) -> Upload:
    """Bring the file behind a URL into the store.

    Raises:
        AddressRefusedError: see `web_app.integrations.http_client.check_url`.
        FetchError: it could not be fetched, or not in time.
        MediaTooLargeError: it is above the limit.
        UnsupportedMediaError: its content is of no kind we read.
    """
    with (
        parts.store.incoming() as incoming,
        open_url(untrusted_url, parts.outbound, parts.settings.api.url_timeout_s, headers=ACCEPT) as answer,
    ):
        if answer.status != 200:
            raise FetchError(f"The other server answered {answer.status}.")
        if answer.getheader("Content-Encoding", "identity").lower() != "identity":
            raise FetchError("The other server sent the file in an encoding that was not asked for.")
        if answer.length is not None and answer.length > parts.store.max_bytes:
            raise too_large(parts.store.max_bytes)
        announced = answer.length
        received = 0
        while chunk := answer.read1(CHUNK_BYTES):
            received += len(chunk)
            incoming.write(chunk)
        if announced is not None and received != announced:
            raise FetchError("The connection ended before the file did.")
        stored = incoming.finish()
    shown = display_name(unquote(urlsplit(untrusted_url).path))
    return Upload(stored, shown, name_notices(shown, stored))
