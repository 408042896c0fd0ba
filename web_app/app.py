"""The web application: `create_app` builds it, `python -m web_app serve` serves it together with its worker."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # as a script: `python -m web_app serve`, with modules looked for in the repository's root
    sys.path[0], sys.argv[1:1] = str(Path(__file__).resolve().parent.parent), ["serve"]
    runpy.run_module("web_app", run_name="__main__")

from flask import Flask, jsonify

from utils.config import Settings
from utils.detection.processor import read_precision
from web_app import api, errors
from web_app.auth import identity, login
from web_app.auth.network import ProxyHeaders, networks
from web_app.observability import requests
from web_app.pages import blueprint as pages_blueprint
from web_app.services import Services, refuse_unread


def create_app(settings: Settings, *, verify: Callable[[Settings], object] | None = None) -> Flask:
    """Build an application; `app.extensions["telltale"].close()` gives its connections back.

    Args:
        verify: checks the weights for `/api/ready`, raising WeightsError; None takes `utils.weights.verify_current`.

    Raises:
        ConfigError: a setting cannot be understood, or what it names cannot be used.
    """
    read_precision(settings.detection.precision)
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    parts = app.extensions[identity.EXTENSION] = Services.build(settings, verify)
    if parts.store.origin:  # where clean copies come from
        policy = re.sub(r"(img|media)-src 'self'", rf"\g<0> {parts.store.origin}", identity.HEADERS[identity.POLICY])
        app.config["OWN_HEADERS"] = {identity.POLICY: policy}
    requests.install(app, settings, parts.database, lambda: identity.require_scope("admin"), parts.queue.lengths)
    login.install(app, parts.secret)
    errors.install(app)
    api.register(app)
    app.register_blueprint(pages_blueprint)
    app.add_url_rule("/.well-known/telltale-keys.json", "report_keys", lambda: jsonify(parts.report_keys.public()))
    trusted = networks("[security] trusted_proxies", settings.security.trusted_proxies)
    app.wsgi_app = ProxyHeaders(app.wsgi_app, trusted)  # type: ignore[method-assign]
    for before in (
        requests.begin,
        parts.shared.follow,
        identity.host_check(settings),
        identity.refuse_cross_site,
        parts.limits.enforce,  # from here on it is known who asks
        login.require_session,  # of pages; a route of the API asks for its scope itself
        refuse_unread,
    ):
        app.before_request(before)
    for after in (requests.say, identity.add_headers):  # Flask calls the last one first
        app.after_request(after)
    app.teardown_request(requests.end)
    return app
