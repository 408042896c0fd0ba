"""Signing in on the page: where keys are on, a key opens a session that the browser keeps in a cookie.

`web_app/auth/sessions.py` keeps the sessions. `install` also gives every browser its anonymous id with the first page,
before the page's own requests need one.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, Flask, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from utils.errors import UnauthorizedError
from web_app.auth.identity import SESSION_COOKIE, caller, is_api, set_cookie
from web_app.auth.keys import find_key
from web_app.auth.parts import auth_parts
from web_app.auth.rate_limit import note_wrong_key
from web_app.auth.sessions import SESSION_AGE_S, begin_session, end_session

MAX_FORM_BYTES = 4096
OPEN_BLUEPRINTS = ("login", "metrics")

blueprint = Blueprint("login", __name__)


def install(app: Flask) -> None:
    """Add the routes, and ask for a session before any page is shown."""
    app.register_blueprint(blueprint)
    app.before_request(require_session)


def require_session() -> Response | None:
    """Send a browser without a session to the form; the API asks for its scopes itself."""
    if request.endpoint in (None, "static") or request.blueprint in OPEN_BLUEPRINTS or is_api():
        return None
    try:
        caller()
    except UnauthorizedError:
        return redirect(url_for("login.show", next=request.path), 303)
    return None


@blueprint.get("/login")
def show() -> str:
    """The form."""
    return render_template("login.html", next=safe_path(request.args.get("next", "")), wrong=False)


@blueprint.post("/login")
def sign_in() -> Response | tuple[str, int]:
    """Open a session with a key, and go on to the page that was asked for."""
    request.max_content_length = MAX_FORM_BYTES
    parts = auth_parts()
    untrusted_key = request.form.get("key", "").strip()
    target = safe_path(request.form.get("next", ""))
    key = find_key(parts.database, untrusted_key)
    if key is None:
        note_wrong_key()
        return render_template("login.html", next=target, wrong=True), UnauthorizedError.status
    answer = redirect((request.script_root + target) or "/", 303)
    set_cookie(answer, SESSION_COOKIE, begin_session(parts.database, key.public), SESSION_AGE_S)
    return answer


@blueprint.post("/logout")
def sign_out() -> Response:
    """End the session, also for copies of its cookie."""
    end_session(auth_parts().database, request.cookies.get(SESSION_COOKIE, ""))
    answer = redirect(url_for("login.show"), 303)
    set_cookie(answer, SESSION_COOKIE, "", 0)
    return answer


def safe_path(untrusted_target: str) -> str:
    """A path on this server; the start page for anything that could lead elsewhere."""
    parts = urlsplit(untrusted_target.replace("\\", "/"))
    ours = not parts.scheme and not parts.netloc and parts.path.startswith("/") and not parts.path.startswith("//")
    return parts.path if ours and parts.path.isprintable() else "/"
