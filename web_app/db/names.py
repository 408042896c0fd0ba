"""Names that hold a text are found by trigrams, without reading every row: FTS5 in SQLite, `pg_trgm` in PostgreSQL.

Where the database has neither, or its user may not add it, every name is read. Of analyses that are not to be kept no
name is indexed. FTS5 only notes that a name has gone; its letters leave the file when `forget_dropped` merges.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.log import get_logger
from web_app.db.session import Database

TABLE = "detection_names"
INDEX = "ix_detections_display_name"
SHORTEST = 3  # characters that an index of trigrams is asked for
DROPPED = f"{TABLE}_dropped"
MERGED = 500  # pages of the index that one write merges
_KEPT = "SELECT job_id, display_name FROM detections WHERE expires_at IS NULL"
_ADD = f"INSERT INTO {TABLE} (rowid, display_name) SELECT new.job_id, new.display_name WHERE new.expires_at IS NULL;"
_DROP = (
    f"INSERT INTO {TABLE} ({TABLE}, rowid, display_name) "
    "SELECT 'delete', old.job_id, old.display_name WHERE old.expires_at IS NULL; "
    f"INSERT INTO {DROPPED} SELECT NULL WHERE old.expires_at IS NULL;"
)
SQLITE = (
    *(f"DROP TRIGGER IF EXISTS {TABLE}_{each}" for each in ("add", "drop", "change")),
    f"DROP TABLE IF EXISTS {TABLE}",
    f"CREATE TABLE {DROPPED} (id INTEGER PRIMARY KEY)",
    f"CREATE VIRTUAL TABLE {TABLE} USING "
    "fts5(display_name, content='detections', content_rowid='job_id', tokenize='trigram')",
    f"CREATE TRIGGER {TABLE}_add AFTER INSERT ON detections BEGIN {_ADD} END",
    f"CREATE TRIGGER {TABLE}_drop AFTER DELETE ON detections BEGIN {_DROP} END",
    f"CREATE TRIGGER {TABLE}_change AFTER UPDATE OF display_name, expires_at ON detections BEGIN {_DROP} {_ADD} END",
    f"INSERT INTO {TABLE} (rowid, display_name) {_KEPT}",
)
POSTGRES = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    f"CREATE INDEX IF NOT EXISTS {INDEX} ON detections USING gin (display_name gin_trgm_ops) WHERE expires_at IS NULL",
)
NOT_ASKED = (
    "ix_detections_lower_display_name"  # of an expression; to drop it shuts everybody out, so that it comes last
)
names = sa.table(TABLE, sa.column("rowid"), sa.column(TABLE))

log = get_logger(__name__)


def is_indexed(connection: sa.Connection) -> bool:
    """Whether the index of names is there, and no former one beside it."""
    if connection.dialect.name == "sqlite":
        return sa.inspect(connection).has_table(DROPPED)
    there = {each["name"] for each in sa.inspect(connection).get_indexes("detections")}
    return INDEX in there and NOT_ASKED not in there


def index_names(database: Database) -> None:
    """Make the index of names, of the rows that are there too; without the means or the right to, go on without it."""
    steps = [SQLITE] if database.is_sqlite else [POSTGRES, (f"DROP INDEX IF EXISTS {NOT_ASKED}",)]
    for statements in steps:  # each a transaction: who reads is not shut out while an index is built
        with database.write() as session:
            connection = session.connection()
            if is_indexed(connection):  # another one was first
                return
            try:
                with connection.begin_nested():
                    for statement in statements:
                        connection.exec_driver_sql(statement)
            except sa.exc.DBAPIError as error:
                log.info("Names are searched without an index (%s).", type(error.orig).__name__)


def forget_dropped(database: Database) -> None:
    """Take the letters of names that have gone out of the index, by merging it in portions."""
    with database.read() as session:
        if not database.is_sqlite or not is_indexed(session.connection()):
            return
        last = session.scalar(sa.text(f"SELECT max(id) FROM {DROPPED}"))  # noqa: S608 - constants
    pages, changes = -MERGED, 2  # below 0: all of it is to be merged
    while last is not None and changes >= 2:  # as FTS5's documentation says when there is no more
        with database.write() as session:
            before = session.scalar(sa.text("SELECT total_changes()"))
            session.execute(sa.text(f"INSERT INTO {TABLE} ({TABLE}, rank) VALUES ('merge', {pages})"))  # noqa: S608
            pages, changes = MERGED, session.scalar(sa.text("SELECT total_changes()")) - before
    if last is not None:
        with database.write() as session:
            session.execute(sa.text(f"DELETE FROM {DROPPED} WHERE id <= :last"), {"last": last})  # noqa: S608


def has_table(session: Session) -> bool:
    """Whether names are found by the table `names`."""
    return session.get_bind().dialect.name == "sqlite" and is_indexed(session.connection())


def matches(text: str) -> sa.ColumnElement[bool]:
    """The condition on `names` for those that hold a text of `SHORTEST` characters and more, in any case."""
    phrase = '"{}"'.format(text.replace('"', '""'))
    return names.c[TABLE].op("MATCH")(phrase)
