"""The database's history; `migrate` brings any older state, or an empty database, to the present one at start."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from utils.errors import ConfigError
from web_app.db.models import Database

LOCK_KEY = 7_355_608  # of PostgreSQL's advisory lock; any number nobody else uses in this database


def alembic_config() -> Config:
    """Alembic's settings without an ini file: the scripts lie beside this module."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def migrate(database: Database) -> None:
    """Apply the missing migrations; processes that start together take turns.

    Raises:
        ConfigError: the database cannot be opened or changed.
    """
    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)  # it reports every start
    try:
        _migrate(database)
    except (OSError, sa.exc.OperationalError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"[storage] database_url: the database cannot be opened or changed ({why}).") from error


def _migrate(database: Database) -> None:
    with _one_at_a_time(database), database.engine.connect() as connection:
        if database.url.get_backend_name() == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


@contextmanager
def _one_at_a_time(database: Database) -> Iterator[None]:
    """A file lock beside an SQLite database; a server database locks by itself."""
    path = database.url.database
    if not database.is_sqlite or not path:
        yield
        return
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
