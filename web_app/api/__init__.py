"""The REST API: `routes.py` is its table of contents, `build_blueprint` makes Flask's of it.

Views parse, call and answer; they import no torch, cv2, PIL or av.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from web_app.api.openapi import openapi_document
from web_app.api.routes import all_routes

PREFIX = "/api"


def build_blueprint() -> Blueprint:
    """A new blueprint with every route of the table."""

    def get_openapi() -> Response:
        """This description of the API (OpenAPI 3.1)."""
        return jsonify(openapi_document(routes, PREFIX))

    routes = all_routes(get_openapi)
    blueprint = Blueprint("api", __name__, url_prefix=PREFIX)
    for route in routes:
        blueprint.add_url_rule(
            route.path, endpoint=route.view.__name__, view_func=route.view, methods=[route.method],
            provide_automatic_options=False,
        )  # fmt: skip
    return blueprint
