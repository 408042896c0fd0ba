"""Signing in on the page: where keys are on, a key opens a session, which Flask keeps in a signed cookie.

The cookie names the key's public part; the key is looked up with each request, so that revoking it ends its sessions.
A session lasts twelve hours from signing in, which its signature proves. `require_session`
also gives every browser its anonymous id with the first page, before the page's own requests need one.
"""

from __future__ import annotations

import datetime as dt
from urllib.parse import urlsplit

from flask import Blueprint, Flask, current_app, redirect, render_template, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from werkzeug.wrappers import Response

from utils.errors import UnauthorizedError
from web_app.auth.identity import EXTENSION, SESSION_KEY, caller, is_api
from web_app.auth.keys import find_key

MAX_FORM_BYTES = 4096
SESSION_LIFETIME = dt.timedelta(hours=12)
OPEN = (None, "static", "report_keys", "metrics", "login.show", "login.sign_in", "login.sign_out")

blueprint = Blueprint("login", __name__)


class SessionCookie(SecureCookieSessionInterface):
    """The cookie's place and whether it needs TLS, as the request came: below a proxy's path, or over HTTPS."""

    def get_cookie_path(self, app: Flask) -> str:
        return request.script_root or "/"

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def install(app: Flask, secret: bytes) -> None:
    """Add the routes, and sign sessions with `secret`."""
    app.secret_key = secret
    app.session_interface = SessionCookie()
    app.config.update(
        SESSION_COOKIE_NAME="telltale_session",
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=SESSION_LIFETIME,
    )
    app.register_blueprint(blueprint)


def require_session() -> Response | None:
    """Send a browser without a session to the form; the API asks for its scopes itself."""
    if request.endpoint in OPEN or is_api():
        return None
    try:
        caller()
    except UnauthorizedError:
        return redirect(url_for("login.show", next=request.full_path.removesuffix("?")), 303)
    return None


@blueprint.get("/login")
def show() -> str:
    return render_template("login.html", next=safe_path(request.args.get("next", "")), wrong=False)


@blueprint.post("/login")
def sign_in() -> Response | tuple[str, int]:
    """Open a session with a key, and go on to the page that was asked for."""
    request.max_content_length = MAX_FORM_BYTES
    untrusted_key = request.form.get("key", "").strip()
    target = safe_path(request.form.get("next", ""))
    parts = current_app.extensions[EXTENSION]
    key = find_key(parts.database, untrusted_key)
    if key is None:
        parts.limits.note_wrong_key()
        return render_template("login.html", next=target, wrong=True), UnauthorizedError.status
    session[SESSION_KEY] = key.public
    session.permanent = True
    return redirect((request.script_root + target) or "/", 303)


@blueprint.post("/logout")
def sign_out() -> Response:
    session.clear()
    return redirect(url_for("login.show"), 303)


def safe_path(untrusted_target: str) -> str:
    """A path on this server; the start page for anything that could lead elsewhere."""
    parts = urlsplit(untrusted_target.replace("\\", "/"))
    ours = not parts.scheme and not parts.netloc and parts.path.startswith("/") and not parts.path.startswith("//")
    target = f"{parts.path}?{parts.query}".removesuffix("?")
    return target if ours and target.isprintable() else "/"
