"""The tables: models and migrations agree, SQLite is set up as promised, writers wait for each other."""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError

from utils.config import Settings
from web_app.db.migrations import HEAD, migrate
from web_app.db.models import Base, DetectionRow, JobRow, JobState, MediaRow
from web_app.db.session import Database
from web_app.paths import InstancePaths
from web_app.services import Services

OLDEST = Path(__file__).resolve().parents[2] / "data" / "v5" / "database.sql"


@pytest.mark.parametrize("of_before", [False, True], ids=["new", "brought up"])
def test_models_and_database_agree(tmp_path: Path, of_before: bool) -> None:
    path = tmp_path / "db.sqlite3"
    if of_before:  # the oldest state that is taken, with rows
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(OLDEST.read_text(encoding="utf-8"))
    database = Database.at(path)
    for _ in range(2):
        migrate(database)
        with database.engine.connect() as connection:
            assert connection.scalars(sa.text("SELECT version_num FROM alembic_version")).all() == [HEAD]
            opts = {"compare_type": True, "compare_server_default": True}
            assert compare_metadata(MigrationContext.configure(connection, opts=opts), Base.metadata) == []
            assert (connection.scalar(sa.text("SELECT count(*) FROM feedback")) > 0) == of_before
    database.close()


def test_servers_that_start_together_migrate_once(tmp_path: Path) -> None:
    databases = [Database.at(tmp_path / "db.sqlite3") for _ in range(4)]
    faults: list[BaseException] = []

    def start(database: Database) -> None:
        try:
            migrate(database)
        except BaseException as error:
            faults.append(error)
            raise

    threads = [threading.Thread(target=start, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for database in databases:
        database.close()
    assert faults == []


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("foreign_keys", 1), ("busy_timeout", 15000), ("synchronous", 2)]
)
def test_sqlite_is_set_up(durable: None, parts: Services, pragma: str, value: object) -> None:
    with parts.database.read() as session:
        assert session.execute(sa.text(f"PRAGMA {pragma}")).scalar_one() == value


def test_a_detection_needs_its_medium(parts: Services) -> None:
    def add_without_medium() -> None:
        with parts.database.write() as session:
            job = JobRow(public_id="a", task="analyse", state=JobState.QUEUED)
            session.add(job)
            session.flush()
            session.add(DetectionRow(job_id=job.id, media_id=99, client_id="c", display_name="n"))

    with pytest.raises(IntegrityError):
        add_without_medium()
    with parts.database.read() as session:
        assert session.scalars(sa.select(JobRow)).all() == []


def test_times_come_back_in_utc(parts: Services) -> None:
    given = dt.datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=dt.timezone(dt.timedelta(hours=5)))
    with parts.database.write() as session:
        session.add(
            MediaRow(
                sha256="0" * 64, size_bytes=1, format="png", mime="image/png", kind="image", stored_name="n",
                created_at=given,
            )
        )  # fmt: skip
    with parts.database.read() as session:
        found = session.scalars(sa.select(MediaRow)).one().created_at
    assert (found, found.tzinfo) == (given, dt.UTC)


def test_writers_take_turns(both_databases: Settings) -> None:
    database = Database.of(both_databases)
    InstancePaths.of(both_databases).create()
    migrate(database)
    with database.write() as session:
        session.add(JobRow(public_id="a", task="analyse", state=JobState.QUEUED))

    def count_up() -> None:
        for _ in range(20):
            with database.write() as session:
                row = session.scalars(sa.select(JobRow)).one()
                row.attempts += 1

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with database.read() as session:
        assert session.scalars(sa.select(JobRow)).one().attempts == 80
    database.close()
