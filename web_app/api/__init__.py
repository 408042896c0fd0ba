"""The REST API: `routes.py` is its table of contents, `register` makes Flask's of it.

The same routes answer below /api/v1, which will stay as it is, and below /api, which is short to type. Views parse,
call and answer; they import no torch, cv2, PIL or av.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from flask import Blueprint, Flask, Response, request

from web_app.api.conditional import conditional_json
from web_app.api.openapi import openapi_document
from web_app.api.routes import Route, all_routes
from web_app.auth.identity import require_scope

PREFIX = "/api"
VERSIONED_PREFIX = "/api/v1"
VERSIONED_NAME = "api_v1"


def get_openapi() -> Response:
    """This description of the API (OpenAPI 3.1)."""
    return conditional_json(description())


@cache
def api_routes() -> tuple[Route, ...]:
    """Every route of the API, `get_openapi` among them."""
    return all_routes(get_openapi)


def description() -> dict[str, Any]:
    """The OpenAPI document as it is for the present request, behind the path that the application is mounted at."""
    return openapi_document(api_routes(), [f"{request.script_root}{each}" for each in (VERSIONED_PREFIX, PREFIX)])


def register(app: Flask) -> None:
    """Put the API's routes into an application, under both prefixes."""
    blueprint = build_blueprint()
    app.register_blueprint(blueprint)
    app.register_blueprint(blueprint, name=VERSIONED_NAME, url_prefix=VERSIONED_PREFIX)


def build_blueprint() -> Blueprint:
    """A new blueprint with every route of the table, each behind the scope that the table names."""
    routes = api_routes()
    blueprint = Blueprint("api", __name__, url_prefix=PREFIX)
    for route in routes:
        blueprint.add_url_rule(
            route.path, endpoint=route.view.__name__, view_func=route.view, methods=[route.method],
            provide_automatic_options=False,
        )  # fmt: skip
    scopes = {route.view.__name__: route.scope for route in routes}

    def require_the_scope_of_the_route() -> None:
        scope = scopes[(request.endpoint or "").rpartition(".")[2]]
        if scope is not None:
            require_scope(scope)

    blueprint.before_request(require_the_scope_of_the_route)
    return blueprint
