"""The API's description as a page: Swagger UI from its package on this disk, nothing from elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from flask import Response, current_app, render_template, send_file

from utils.errors import NotFoundError

PACKAGE = "flask_swagger_ui"  # only the files of Swagger UI in it are used
ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
CACHE_S = 3600


def get_docs() -> Response:
    """This description as a page to read and to try out."""
    return current_app.response_class(render_template("api_docs.html"), mimetype="text/html")


def get_docs_asset(name: str) -> Response:
    """A file of Swagger UI."""
    if name not in ASSETS:
        raise NotFoundError("There is no such file.")
    return send_file(_folder() / name, mimetype=ASSETS[name], conditional=True, max_age=CACHE_S)


def _folder() -> Path:
    """Where the package's files lie; the package itself is not imported."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise NotFoundError("Swagger UI is not installed; the description itself is at /api/openapi.json.")
    return Path(found.origin).parent / "dist"
