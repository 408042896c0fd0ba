"""Databases of a PostgreSQL server for the tests of the server: each instance folder gets one of its own.

`TELLTALE_TEST_POSTGRES` names the server, such as postgresql+psycopg://user:word@localhost/postgres; its user may make
databases. Without it everything runs on SQLite.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import sqlalchemy as sa

SERVER = os.environ.get("TELLTALE_TEST_POSTGRES", "")
PREFIX = "telltale_test_"


@functools.cache
def database_url(folder: Path) -> str:
    """The address of an empty database for a folder; empty for SQLite."""
    if not SERVER:
        return ""
    name = PREFIX + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    _administer(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')
    return sa.make_url(SERVER).set(database=name).render_as_string(hide_password=False)


def drop_database(url: str) -> None:
    """Take a database away again."""
    _administer(f'DROP DATABASE IF EXISTS "{sa.make_url(url).database}" WITH (FORCE)')


def _administer(*statements: str) -> None:
    engine = sa.create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()
