"""Guards around every request: cross-site check, security headers, and the anonymous id of a client.

There are no accounts: whoever reaches the server sees its history. The client id only tells one voice of feedback from
another. docs/api.md says so to the users.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, Response, g, request

from utils.errors import CrossSiteError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CLIENT_COOKIE = "telltale_client"
CLIENT_COOKIE_AGE_S = 365 * 24 * 3600
SECRET_BYTES = 32
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
MEDIA_POLICY = "default-src 'none'; sandbox"  # a served upload may load and run nothing
_CLIENT_ID = re.compile(r"[0-9a-f]{32}")


def install(app: Flask) -> None:
    """Put the guards around all requests of an application."""
    app.before_request(refuse_cross_site)
    app.after_request(_add_headers)


def refuse_cross_site() -> None:
    """Refuse a request that changes something when a browser says that another site made it.

    Browsers send Sec-Fetch-Site, or at least Origin, and pages cannot forge either; programs send neither and pass.

    Raises:
        CrossSiteError: the request comes from another origin.

    Source: OWASP Cross-Site Request Forgery Prevention Cheat Sheet, "Fetch Metadata headers".
    """
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise CrossSiteError(f"The browser says the request is {site}.")
        return
    origin = request.headers.get("Origin")
    if origin is not None and (urlsplit(origin).netloc or None) != request.host:
        raise CrossSiteError("The Origin of the request is not this server.")


def client_id(secret: bytes) -> str:
    """The anonymous id of who makes the request.

    A browser has it in a cookie, which the answer sets. Programs without cookies are told apart by a keyed hash of
    address and program, so that repeating a request does not make a second voice.

    Args:
        secret: the instance's key.
    """
    given = request.cookies.get(CLIENT_COOKIE, "")
    if _CLIENT_ID.fullmatch(given):
        return given
    if request.headers.get("Sec-Fetch-Site") is not None:  # a browser before its first cookie
        g.new_client = secrets.token_hex(16)
        return str(g.new_client)
    who = f"{request.remote_addr}\n{request.user_agent.string}".encode()
    return hmac.new(secret, who, hashlib.sha256).hexdigest()[:32]


def load_secret(path: Path) -> bytes:
    """The instance's random key, made at the first start; processes that start together get the same one."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    if not path.exists():
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(SECRET_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(fresh, path)  # fails if another process was first, where rename would replace its key
        except FileExistsError:
            return path.read_bytes()
        finally:
            fresh.unlink()
    return path.read_bytes()


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    new_client = g.pop("new_client", None)
    if new_client is not None:
        response.set_cookie(
            CLIENT_COOKIE, new_client, max_age=CLIENT_COOKIE_AGE_S, httponly=True, samesite="Lax",
            secure=request.is_secure, path=request.script_root or "/",
        )  # fmt: skip
    return response
