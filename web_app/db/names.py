"""Names that hold a text are found by trigrams, without reading every row: FTS5 in SQLite, `pg_trgm` in PostgreSQL.

Where the database has neither, or its user may not add it, every name is read.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from utils.log import get_logger
from web_app.db.models import DetectionRow

TABLE = "detection_names"
INDEX = "ix_detections_lower_display_name"
SHORTEST = 3  # characters that an index of trigrams is asked for
_ADD = f"INSERT INTO {TABLE} (rowid, display_name) VALUES (new.job_id, new.display_name);"  # noqa: S608 - constants
_DROP = f"INSERT INTO {TABLE} ({TABLE}, rowid, display_name) VALUES ('delete', old.job_id, old.display_name);"  # noqa: S608
SQLITE = (
    f"CREATE VIRTUAL TABLE {TABLE} USING "
    "fts5(display_name, content='detections', content_rowid='job_id', tokenize='trigram')",
    f"CREATE TRIGGER {TABLE}_add AFTER INSERT ON detections BEGIN {_ADD} END",
    f"CREATE TRIGGER {TABLE}_drop AFTER DELETE ON detections BEGIN {_DROP} END",
    f"CREATE TRIGGER {TABLE}_change AFTER UPDATE OF display_name ON detections BEGIN {_DROP} {_ADD} END",
    f"INSERT INTO {TABLE} ({TABLE}) VALUES ('rebuild')",  # noqa: S608
)
POSTGRES = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    f"CREATE INDEX {INDEX} ON detections USING gin (lower(display_name) gin_trgm_ops)",
)
names = sa.table(TABLE, sa.column("rowid"), sa.column(TABLE))

log = get_logger(__name__)


def index_names(connection: sa.Connection) -> None:
    """Make the index of names, of the rows that are there too; without the means or the right to, go on without it."""
    try:
        with connection.begin_nested():
            for statement in SQLITE if connection.dialect.name == "sqlite" else POSTGRES:
                connection.exec_driver_sql(statement)
    except sa.exc.DBAPIError as error:
        log.info("Names are searched without an index (%s).", type(error.orig).__name__)


@event.listens_for(DetectionRow.__table__, "after_create")
def _with_the_table(_table: sa.Table, connection: sa.Connection, **_: object) -> None:
    index_names(connection)


def has_table(session: Session) -> bool:
    """Whether names are found by the table `names`."""
    return session.get_bind().dialect.name == "sqlite" and sa.inspect(session.connection()).has_table(TABLE)


def matches(text: str) -> sa.ColumnElement[bool]:
    """The condition on `names` for those that hold a text of `SHORTEST` characters and more, in any case."""
    phrase = '"{}"'.format(text.replace('"', '""'))
    return names.c[TABLE].op("MATCH")(phrase)
