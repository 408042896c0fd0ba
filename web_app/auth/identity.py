"""Guards around every request: who is asking, from where, and the headers of every answer.

`caller()` says who makes the present request and what they may do; `require_scope` refuses those who may not. A caller
sees and deletes what is their own; `admin` sees everything. docs/operations.md says so to those who run a server.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast
from urllib.parse import urlsplit

import sqlalchemy as sa
from flask import Response, current_app, g, request, session
from sqlalchemy.orm import InstrumentedAttribute, Session

from utils.config import Settings
from utils.errors import BadRequestError, CrossSiteError, ForbiddenError, NotFoundError, UnauthorizedError
from web_app.auth.keys import KEY_OWNER, SCOPES, find_key, find_public
from web_app.auth.network import FORWARDED, allowed_hosts, host_name, is_loopback
from web_app.db.models import OwnedRow
from web_app.db.session import Database

EXTENSION = "telltale"
"""Under this name an application keeps its services."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CLIENT_COOKIE = "telltale_client"
CLIENT_COOKIE_AGE_S = 365 * 24 * 3600
SESSION_KEY = "key"  # under which a session keeps the public part of the key that opened it
ALL_SCOPES = frozenset(SCOPES)
OPEN_SCOPES = frozenset({"analyse", "feedback"})  # of somebody without a key from another machine
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": (
        "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), "
        "microphone=(), payment=(), usb=()"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY = "Content-Security-Policy"
HSTS = "max-age=31536000"  # said only over TLS, where it can be kept
MEDIA_POLICY = "default-src 'none'; sandbox"  # a served upload may load and run nothing
Owned = TypeVar("Owned", bound=OwnedRow)
_CLIENT_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Caller:
    """Who makes a request.

    Args:
        id: stable; the owner of what is uploaded. `key:` and the public part of a key, or an anonymous client id.
        scopes: of `analyse`, `feedback`, `moderate`, `admin`.
        key_name: what the key was called when it was made; None without a key.
        local: sits at this machine, where keys are off; no rate limit applies.
    """

    id: str
    scopes: frozenset[str]
    key_name: str | None = None
    local: bool = False

    def owns(self, client_id: str) -> bool:
        """Whether something of this owner is the caller's to see and to delete."""
        return client_id == self.id or self.sees_all

    @property
    def sees_all(self) -> bool:
        return "admin" in self.scopes

    def sees(self, owner: InstrumentedAttribute[str]) -> sa.ColumnElement[bool]:
        """The same as a condition on a column that names owners."""
        return sa.true() if self.sees_all else owner == self.id


def host_check(settings: Settings) -> Callable[[], None]:
    """What refuses a request that uses another name of the server than the settings allow.

    Raises:
        ConfigError: `[security] hosts` cannot be understood.
    """
    hosts = allowed_hosts(settings.server, settings.security)

    def refuse_unknown_host() -> None:
        if hosts is not None and host_name(request.headers.get("Host", "")) not in hosts:
            raise BadRequestError("This server does not answer to that name; [security] hosts lists the names it has.")

    return refuse_unknown_host


def caller() -> Caller:
    """Who makes the present request.

    Raises:
        UnauthorizedError: the server asks for keys, and there is none or a wrong one.
    """
    if "caller" not in g:
        parts = current_app.extensions[EXTENSION]
        keyed = parts.settings.security.keys == "on"
        g.caller = _keyed(parts.database) if keyed else _anonymous(parts.settings, parts.secret)
    return cast(Caller, g.caller)


def require_own(session: Session, table: type[Owned], public_id: str, what: str) -> Owned:
    """The caller's row with this public id.

    Raises:
        NotFoundError: there is none, or it is somebody else's, which nobody needs to know.
    """
    row = session.scalar(sa.select(table).where(table.public_id == public_id))
    if row is None or not caller().owns(row.client_id):
        raise NotFoundError(f"There is no {what} with this id.")
    return row


def require_scope(scope: str) -> Caller:
    """The caller, who may do what `scope` stands for.

    Raises:
        ForbiddenError: the caller lacks the scope.
    """
    found = caller()
    if scope not in found.scopes:
        keyless = "Use the server from its own machine, or turn API keys on ([security] keys)."
        remedy = keyless if found.key_name is None else None
        raise ForbiddenError(f"This needs the scope `{scope}`.", scope=scope, remedy=remedy)
    return found


def _keyed(database: Database) -> Caller:
    scheme, _, untrusted_key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        key = find_key(database, untrusted_key.strip())
    else:
        key = find_public(database, session.get(SESSION_KEY, ""))
    if key is None:
        raise UnauthorizedError("There is no valid API key in this request.")
    return Caller(f"{KEY_OWNER}{key.public}", frozenset(key.scopes.split(",")), key.name)


def _anonymous(settings: Settings, secret: bytes) -> Caller:
    """Somebody at this machine may do everything, unless it is a proxy for somebody elsewhere.

    A proxy on this machine that is not declared and sends no forwarding header cannot be told from a user.
    """
    local = (
        is_loopback(settings.server.host)
        and not settings.security.trusted_proxies
        and not request.environ.get(FORWARDED, False)
        and is_loopback(request.remote_addr or "")
    )
    return Caller(client_id(secret), ALL_SCOPES if local else OPEN_SCOPES, local=local)


def refuse_cross_site() -> None:
    """Refuse a request that changes something when a browser says that another site made it.

    Browsers send Sec-Fetch-Site, or at least Origin, and pages cannot forge either; programs send neither and pass. So
    does who sends an API key along, as a browser's extension: a page of another site may only add that header after
    asking for it (CORS), which is granted to none. (The password of a proxy, *Basic*, browsers add by themselves.)

    Raises:
        CrossSiteError: the request comes from another origin.

    Source: OWASP Cross-Site Request Forgery Prevention Cheat Sheet, "Fetch Metadata headers".
    """
    scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
    if request.method in SAFE_METHODS or scheme == "bearer":
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

    A browser has it in a signed cookie, which the answer sets; a cookie that we have not signed counts as none.
    Programs without cookies are told apart by a keyed hash of address and program, so that repeating a request does not
    make a second vote.
    """
    given, _, signature = request.cookies.get(CLIENT_COOKIE, "").partition(".")
    expected = client_signature(secret, given)
    if _CLIENT_ID.fullmatch(given) and hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
        return given
    if request.headers.get("Sec-Fetch-Site") is not None or not is_api():  # a browser's first visit
        fresh = secrets.token_hex(16)
        g.new_client = f"{fresh}.{client_signature(secret, fresh)}"
        return fresh
    who = f"{request.remote_addr}\n{request.user_agent.string}".encode()
    return hmac.new(secret, who, hashlib.sha256).hexdigest()[:32]


def client_signature(secret: bytes, client: str) -> str:
    """What stands behind an anonymous id in its cookie, so that nobody can make one up."""
    return hmac.new(secret, f"client\n{client}".encode(errors="replace"), hashlib.sha256).hexdigest()


def add_headers(response: Response) -> Response:
    """The headers of every answer, and the cookie of a browser that comes for the first time."""
    for name, value in (HEADERS | current_app.config.get("OWN_HEADERS", {})).items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", HSTS)
    if response.status_code == UnauthorizedError.status:
        response.headers.setdefault("WWW-Authenticate", "Bearer")
    new_client = g.pop("new_client", None)
    if new_client is not None:
        response.set_cookie(
            CLIENT_COOKIE, new_client, max_age=CLIENT_COOKIE_AGE_S, httponly=True, samesite="Lax",
            secure=request.is_secure, path=request.script_root or "/",
        )  # fmt: skip
    return response


def is_api() -> bool:
    """Whether the present request is for the REST API, under whichever prefix."""
    return (request.blueprint or "").startswith("api")
