"""What the guards need of the application's services, which stand above them."""

from __future__ import annotations

from typing import Protocol, cast

from flask import current_app

from utils.config import Settings
from web_app.db.session import Database

EXTENSION = "telltale"
"""Under this name an application keeps its services."""


class AuthParts(Protocol):
    """Settings, the database of keys, and the secret that signs sessions and anonymous ids."""

    @property
    def settings(self) -> Settings: ...

    @property
    def database(self) -> Database: ...

    @property
    def secret(self) -> bytes: ...


def auth_parts() -> AuthParts:
    """Of the application that handles the present request."""
    return cast(AuthParts, current_app.extensions[EXTENSION])
