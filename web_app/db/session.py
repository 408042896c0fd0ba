"""The way to the database: SQLite (write-ahead log) by default, any SQLAlchemy address on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from utils.config import Settings
from utils.errors import ConfigError
from utils.log import get_logger
from web_app.paths import InstancePaths

BUSY_TIMEOUT_S = 15.0  # longer than any transaction of ours, so that a backup or a slow disk is waited for
CONNECT_S = 5  # until a server database counts as away
POOL_SIZE = 16  # sessions are short; more connections only wait for SQLite's single writer
AFTERWARDS = "afterwards"
WRITE_KEY = 7_355_607  # of PostgreSQL's advisory lock; any number nobody else uses in this database

log = get_logger(__name__)


class Database:
    """An engine and its two kinds of session; `close` gives the connections back.

    Raises:
        ConfigError: it is no address, or of a database whose driver is not there.
    """

    def __init__(self, url: str | sa.URL) -> None:
        try:
            self.url = sa.make_url(url)
            self.is_sqlite = self.url.get_backend_name() == "sqlite"
            timeout = {"timeout": BUSY_TIMEOUT_S} if self.is_sqlite else {"connect_timeout": CONNECT_S}
            self.engine = sa.create_engine(
                self.url, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, pool_pre_ping=not self.is_sqlite,
                connect_args=timeout,
            )  # fmt: skip
        except (sa.exc.ArgumentError, ImportError, ValueError) as error:  # its text may hold the password
            raise ConfigError(
                "[storage] database_url must be an address such as sqlite:////path/to/file or "
                f"postgresql+psycopg://user:word@host/name, with its driver installed ({type(error).__name__})."
            ) from None
        if self.is_sqlite:
            _prepare_sqlite(self.engine)
        self._writing = self.engine.execution_options(telltale_writes=True)

    @classmethod
    def of(cls, settings: Settings) -> Database:
        """The database of `[storage] database_url`, or SQLite in the instance folder."""
        given = settings.storage.database_url
        if given.startswith("sqlite") and "?" in given and not sa.make_url(given).query:
            raise ConfigError("[storage] database_url: a ? in a file's name is written as %3F, a % as %25.")
        return cls(given) if given else cls.at(InstancePaths.of(settings).database)

    @classmethod
    def at(cls, path: Path) -> Database:
        """The SQLite database in a file, whatever characters its name has."""
        return cls(sa.URL.create("sqlite", database=str(path)))

    def read(self) -> Session:
        """A session that only reads, for a `with` block; its rows stay usable afterwards."""
        return Session(self.engine, expire_on_commit=False)

    @contextmanager
    def write(self, *, alone: bool = True) -> Iterator[Session]:
        """A session in one transaction; commits, or rolls back on an error.

        What stands under `AFTERWARDS` in its `info` is called when that is done and holds no connection any more; an
        error there is only logged: what is written stays.

        Args:
            alone: no other such transaction runs meanwhile, so that what was read still holds when it is written. False
                for what is one statement with all its conditions in it. SQLite has one writer at a time in any case.
        """
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            if alone and not self.is_sqlite:
                session.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITE_KEY)))
            yield session
        for act in session.info.get(AFTERWARDS, ()):
            try:
                act()
            except Exception:
                log.exception("what follows a transaction failed, for a reason that nobody foresaw")

    def close(self) -> None:
        self.engine.dispose()


def _prepare_sqlite(engine: sa.Engine) -> None:
    """Turn on what SQLite leaves off, and begin transactions ourselves.

    A writing transaction starts with BEGIN IMMEDIATE: a reader that turns writer later would be refused at once
    instead of waiting for its turn.
    """

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin by itself; on_begin does
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}",
            "journal_mode = WAL",
            "synchronous = FULL",  # an accepted upload survives a power cut
            "foreign_keys = ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("telltale_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
