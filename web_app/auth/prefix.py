"""The server below a path prefix, as a reverse proxy offers it: every address that we make begins with it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from utils.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class PathPrefix:
    """WSGI middleware that makes `prefix` the application's root, whether the proxy has cut it off or not.

    Args:
        application: what is served.
        prefix: begins with a slash and does not end with one.
    """

    def __init__(self, application: WSGIApplication, prefix: str) -> None:
        self._application = application
        self._prefix = prefix

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == self._prefix or path.startswith(f"{self._prefix}/"):
            environ["PATH_INFO"] = path.removeprefix(self._prefix)
        environ["SCRIPT_NAME"] = self._prefix
        return self._application(environ, start_response)


def checked_prefix(text: str) -> str:
    """`[page] prefix` without a slash at its end; empty for none.

    Raises:
        ConfigError: it is no plain path.
    """
    prefix = text.strip().rstrip("/")
    if prefix and not (_PREFIX.fullmatch(prefix) and not {".", ".."} & set(prefix.split("/"))):
        raise ConfigError(f"[page] prefix must be a path such as /telltale, not {text!r}.")
    return prefix
