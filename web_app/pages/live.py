"""The page of the live camera: it may use the camera, which no other page of this server may."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, render_template

from web_app.auth.identity import HEADERS

blueprint = Blueprint("live", __name__)


@blueprint.get("/live")
def live() -> Response:
    """The page; its module takes pictures and sends them to /api/detect/image with `keep=0`."""
    answer = current_app.response_class(render_template("live.html"), mimetype="text/html")
    answer.headers["Permissions-Policy"] = HEADERS["Permissions-Policy"].replace("camera=()", "camera=(self)")
    return answer
