"""The database's history: at start `migrate` makes the tables of the models, or adds what an earlier database lacks.

The state of a database is a row that Alembic wrote first, hence its name. Since the baseline, tables, columns and
indexes were only added, so that the models alone say what is missing; a change of another kind needs a step here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import sqlalchemy as sa

from utils.errors import ConfigError
from utils.files import locked
from utils.types import MediaKind
from web_app.db.models import NO_OVERALL, Base, DetectionRow, MediaRow
from web_app.db.names import index_names, is_indexed
from web_app.db.session import Database

BASELINE, HEAD = "r0006", "r0013"
OURS = re.compile(r"r\d{4}")
BEFORE_BASELINE = "9952103"  # the last commit that brings an earlier state to the baseline
STATE = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
GONE = ("DROP TABLE IF EXISTS sessions", "DROP INDEX IF EXISTS ix_detections_prediction")
FILLED_AT_ONCE = 2_000  # rows of one write
DAMAGED = (
    "Put a backup in its place, or move it aside with its -wal and -shm files: a new one is made, "
    "and `make feedback-rebuild` brings the feedback back."
)
CHOOSE_ANOTHER = "Name a new one in [storage] database_url, or another [storage] instance_dir."


def migrate(database: Database) -> None:
    """Apply the missing migrations; processes that start together take turns.

    Raises:
        ConfigError: the database cannot be opened or changed, is damaged, too old, of a later version, or not ours.
    """
    name = _name(database)
    with told(database), ExitStack() as held:
        if database.is_sqlite and database.url.database:  # a server database locks by itself
            try:
                held.enter_context(locked(Path(f"{database.url.database}.lock")))
            except OSError as error:
                raise _unusable(error.strerror or type(error).__name__) from error
        with database.read() as session:
            connection = session.connection()
            if database.is_sqlite and connection.scalar(sa.text("PRAGMA quick_check(1)")) != "ok":
                raise ConfigError(f"{name} is damaged.", remedy=DAMAGED)
            is_current = _revision(connection, name) == HEAD
            has_index = is_current and is_indexed(connection)
        if not is_current:
            with database.write() as session:  # which others may have written to since
                if _revision(session.connection(), name) != HEAD:
                    _bring_up(session.connection())
        if not has_index:
            index_names(database)
        _fill_in(database)


def _fill_in(database: Database) -> None:
    """What rows of earlier versions lack, also those that an old server or worker wrote beside new ones."""
    row, video = DetectionRow, MediaKind.VIDEO.value
    kind = sa.select(MediaRow.kind).where(MediaRow.id == row.media_id).scalar_subquery()
    finished = row.prediction.is_not(None)
    of_video = sa.and_(row.media_kind == video, sa.or_(finished & row.overall.is_(None), kind != video))
    lacking = sa.select(row.job_id).where(sa.or_(row.media_kind.is_(None), of_video), row.expires_at.is_(None))
    told = sa.func.coalesce(row.report[("overall", "outcome")].as_string(), NO_OVERALL)
    values = {"media_kind": kind, "overall": sa.case((finished & (kind == video), told))}
    ids: Sequence[int] = [0]
    while True:  # portions, so that nobody who writes meanwhile waits for long
        with database.read() as session:
            after = lacking.where(row.job_id > ids[-1]).order_by(row.job_id).limit(FILLED_AT_ONCE)
            ids = session.scalars(after).all()
        if not ids:
            return
        with database.write() as session:
            session.execute(sa.update(row).where(row.job_id.in_(ids)).values(values))


def _revision(connection: sa.Connection, name: str) -> str | None:
    """The state of a database that can be used or brought up; None for an empty one."""
    inspector = sa.inspect(connection)
    tables = set(inspector.get_table_names())
    revision = None
    if STATE.name in tables:
        revision = connection.scalar(sa.select(STATE))
    if revision is None and not tables - {STATE.name}:
        return None
    if revision is None or not OURS.fullmatch(revision):
        raise ConfigError(f"{name} holds tables of something else.", remedy=CHOOSE_ANOTHER)
    if revision < BASELINE:
        remedy = f"Start Telltale of commit {BEFORE_BASELINE} with it once, then this one again."
        raise ConfigError(f"{name} is of an early state ({revision}).", remedy=remedy)
    if revision > HEAD:
        remedy = f"Start the version that wrote it. {CHOOSE_ANOTHER}"
        raise ConfigError(f"{name} is of a later version ({revision}).", remedy=remedy)
    if revision == HEAD:
        columns = {(table, each["name"]) for (_, table), of in inspector.get_multi_columns().items() for each in of}
        for table in Base.metadata.sorted_tables:
            if not {(table.name, column.name) for column in table.columns} <= columns:
                raise ConfigError(f"{name} is damaged: the table {table.name} is not as it was made.", remedy=DAMAGED)
    return str(revision)


def _bring_up(connection: sa.Connection) -> None:
    """Add what the models have and the database has not: all of it to an empty one."""
    Base.metadata.create_all(connection)
    columns = sa.inspect(connection).get_multi_columns()
    for table in Base.metadata.sorted_tables:
        there = {column["name"] for (_, name), of in columns.items() if name == table.name for column in of}
        for column in table.columns:
            if column.name not in there:
                declared = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {declared}")
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    for statement in GONE:
        connection.exec_driver_sql(statement)
    STATE.create(connection, checkfirst=True)
    connection.execute(STATE.delete())
    connection.execute(STATE.insert().values(version_num=HEAD))


@contextmanager
def told(database: Database) -> Iterator[None]:
    """Say in a sentence why a database cannot be used."""
    try:
        yield
    except sa.exc.DatabaseError as error:
        if type(error) is sa.exc.DatabaseError:  # what sqlite3 raises for a file that it cannot make out
            raise ConfigError(
                f"{_name(database)} is damaged, or no SQLite database ({error.orig}).", remedy=DAMAGED
            ) from error
        raise _unusable(type(error).__name__) from error


def _unusable(why: str) -> ConfigError:
    return ConfigError(f"[storage] database_url: the database cannot be opened or changed ({why}).")


def _name(database: Database) -> str:
    return f"The database {database.url.database if database.is_sqlite else database.url}"
