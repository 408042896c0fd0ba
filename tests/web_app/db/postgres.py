"""Databases of a PostgreSQL server for the tests of the server: each instance folder that asks gets one of its own.

The tests start a server where one is needed. `TELLTALE_TEST_POSTGRES` names another, such as
postgresql+psycopg://user:word@localhost/postgres, whose user may make databases, and has all tests use it instead of
SQLite; `own` has them all use the server that they start.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.servers import Postgres, temporary
from web_app.db import names
from web_app.db.models import Base

CHOSEN = os.environ.get("TELLTALE_TEST_POSTGRES", "")
PREFIX = "telltale_test_"


@functools.cache
def server() -> sa.URL:
    """The server's address; it is started at the first question and ends with the tests."""
    if CHOSEN not in ("", "own"):
        return sa.make_url(CHOSEN)
    running = contextlib.ExitStack()
    atexit.register(running.close)
    return sa.make_url(running.enter_context(temporary(Postgres)).url)


@functools.cache
def database_url(folder: Path) -> str:
    """The address of an empty database for a folder."""
    name = PREFIX + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    _administer(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')
    return server().set(database=name).render_as_string(hide_password=False)


def drop_database(url: str) -> None:
    """Take a database away again."""
    _administer(f'DROP DATABASE IF EXISTS "{sa.make_url(url).database}" WITH (FORCE)')


def differences(connection: sa.Connection) -> list[Any]:
    """How the tables of a database differ from the models, but for the index of names."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def is_modelled(_: object, name: str | None, *__: object) -> bool:
        return not (name or "").startswith((names.TABLE, names.INDEX))

    opts = {"compare_type": True, "compare_server_default": True, "include_object": is_modelled}
    return list(compare_metadata(MigrationContext.configure(connection, opts=opts), Base.metadata))


def _administer(*statements: str) -> None:
    engine = sa.create_engine(server(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()
