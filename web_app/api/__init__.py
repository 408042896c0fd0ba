"""The REST API: one module per resource, a decorator above each view (`routing.route`), the values in `schemas`.

The same routes answer below /api/v1, which will stay as it is, and below /api, which is short to type. Views call and
answer; they import no torch, cv2, PIL or av.
"""

from __future__ import annotations

from flask import Flask

from web_app.api import cases, detect, detections, explanations, feedback, learning, reports, seen, server, webhooks
from web_app.api.routing import PREFIXES, blueprint

__all__ = [
    "cases", "detect", "detections", "explanations", "feedback", "learning", "register", "reports", "seen",
    "server", "webhooks",
]  # fmt: skip


def register(app: Flask) -> None:
    for name, prefix in zip(("api_v1", "api"), PREFIXES, strict=True):
        app.register_blueprint(blueprint, name=name, url_prefix=prefix)
