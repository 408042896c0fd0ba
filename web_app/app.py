"""The web application: `create_app` builds it, `python web_app/app.py` serves it together with its worker.

A production server such as gunicorn calls `wsgi()` and runs `python -m web_app.worker` beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # as a script, Python looks for modules in web_app/ instead of the repository's root
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from flask import Flask

from utils.config import Settings, load_settings
from utils.detection.choice import read_experts
from utils.detection.precision import read_precision
from utils.errors import ConfigError, WeightsError
from utils.log import configure_logging
from web_app import api, errors
from web_app.auth import identity, login, rate_limit
from web_app.auth.prefix import PathPrefix, checked_prefix
from web_app.observability import metrics, request_log
from web_app.pages import SETTINGS_KEY
from web_app.pages import blueprint as pages_blueprint
from web_app.pages.live import blueprint as live_blueprint
from web_app.paths import PRIVATE
from web_app.services import EXTENSION, Services

EXIT_CONFIG = 2
EXIT_WEIGHTS = 3


def create_app(settings: Settings, *, verify: Callable[[Settings], object] | None = None) -> Flask:
    """Build an application; any number of them can live in one process.

    Args:
        settings: the whole configuration.
        verify: checks the weights for `/api/ready`, raising WeightsError; None takes `utils.weights.verify_current`.

    Returns:
        The application; `app.extensions["telltale"].close()` gives its connections back.

    Raises:
        ConfigError: a setting cannot be understood, or what it names cannot be used.
    """
    read_experts(settings.detection.experts)  # the worker needs them, but only the start can refuse
    read_precision(settings.detection.precision)
    app = Flask(__name__)
    app.config[SETTINGS_KEY] = settings
    app.json.sort_keys = False  # type: ignore[attr-defined]
    parts = app.extensions[EXTENSION] = Services.build(settings, verify)
    request_log.install(app)
    metrics.install(app, settings, parts.database, lambda: identity.require_scope("admin"))
    identity.install(app, settings)
    rate_limit.install(app, settings)
    login.install(app)
    errors.install(app)
    api.register(app)
    app.register_blueprint(pages_blueprint)
    app.register_blueprint(live_blueprint)
    prefix = checked_prefix(settings.page.prefix)
    if prefix:
        app.wsgi_app = PathPrefix(app.wsgi_app, prefix)  # type: ignore[method-assign]
    return app


def wsgi() -> Flask:
    """The application for a production server: settings from config.ini and the environment, weights verified first."""
    os.umask(PRIVATE)
    settings = load_settings(complete=True)
    configure_logging(settings.server.log_level, settings.server.log_format)
    app = create_app(settings)
    app.extensions[EXTENSION].weights.require()
    return app


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; see `--help`.

    Returns:
        0 after a clean end, 1 if the address is taken, 2 for a wrong configuration, 3 for unusable weights.
    """
    parser = argparse.ArgumentParser(prog="web_app/app.py", description="Telltale's web server with its worker.")
    parser.add_argument("--host", help="address to listen on; [server] host by default")
    parser.add_argument("--port", type=int, help="port to listen on; [server] port by default")
    parser.add_argument("--config", type=Path, help="configuration file; config.ini by default")
    parser.add_argument("--no-worker", action="store_true", help="serve only; run web_app.worker yourself")
    given = parser.parse_args(arguments)
    from web_app.serve import serve  # not needed by create_app and gunicorn

    try:
        settings = load_settings(given.config, complete=True)
        server = dataclasses.replace(
            settings.server,
            host=settings.server.host if given.host is None else given.host,
            port=settings.server.port if given.port is None else given.port,
        )
        settings = dataclasses.replace(settings, server=server)
        configure_logging(settings.server.log_level, settings.server.log_format)
        return serve(settings, with_worker=not given.no_worker)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    except WeightsError as error:
        print(error, file=sys.stderr)
        return EXIT_WEIGHTS


if __name__ == "__main__":
    sys.exit(main())
