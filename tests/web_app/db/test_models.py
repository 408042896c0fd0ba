"""The tables: a database of any state is brought to the models, SQLite is set up as promised, writers take turns."""

from __future__ import annotations

import contextlib
import datetime as dt
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tests.web_app.db import postgres
from tests.web_app.db.postgres import differences
from tests.web_app.helpers import make_settings
from utils.config import Settings
from web_app.db import migrations, names
from web_app.db.migrations import HEAD, migrate
from web_app.db.models import DetectionRow, JobRow, JobState, MediaRow, utc_now
from web_app.db.session import Database
from web_app.jobs.detections import delete_detection
from web_app.jobs.supervisor import settings_environ
from web_app.paths import ROOT, InstancePaths
from web_app.services import Services
from web_app.worker import clean_up

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
            assert differences(connection) == []
            assert (connection.scalar(sa.text("SELECT count(*) FROM feedback")) > 0) == of_before
    database.close()


UNDO = {
    "r0012": (
        "DROP INDEX ix_detections_listed", "DROP INDEX ix_detections_listed_own",
        "ALTER TABLE detections DROP COLUMN media_kind", "ALTER TABLE detections DROP COLUMN overall",
        "CREATE INDEX ix_detections_prediction ON detections (prediction)",
    ),
    "r0011": ("DROP INDEX ix_jobs_created_at",),
    "r0010": ("DROP TABLE picture_hashes",),
    "r0009": ("DROP TABLE journal", "DROP TABLE shared"),
    "r0008": ("DROP TABLE case_items", "DROP TABLE cases"),
    "r0007": tuple(
        f"ALTER TABLE feedback DROP COLUMN {name}"
        for name in ("checked_version", "checked_prediction", "checked_probability", "right_version")
    ),
    "r0006": ("CREATE TABLE sessions (id VARCHAR(64) PRIMARY KEY)",),
}  # fmt: skip
"""What the models have and each state that may stand in a database had not, the latest first."""


@pytest.mark.parametrize("state", UNDO)
def test_a_database_of_each_state_is_brought_up(
    both_databases: Settings, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while an old process goes on writing."""
    InstancePaths.of(both_databases).create()
    database = Database.of(both_databases)
    migrate(database)
    with database.write() as session:
        session.add(JobRow(public_id="kept", task="analyse", state=JobState.DONE))
        for undone, statements in UNDO.items():
            for statement in statements if undone >= state else ():
                session.execute(sa.text(statement))
        session.execute(sa.text(f"UPDATE alembic_version SET version_num = '{state}'"))
        assert differences(session.connection()) != []
    real, written = migrations._revision, ["kept"]

    def read_and_write(connection: sa.Connection, name: str) -> str | None:
        found = real(connection, name)
        if len(written) == 1:
            with database.write(alone=False) as session:
                session.add(JobRow(public_id="meanwhile", task="analyse", state=JobState.DONE))
            written.append("meanwhile")
        return found

    monkeypatch.setattr(migrations, "_revision", read_and_write)
    migrate(database)
    with database.read() as session:
        assert session.scalars(sa.text("SELECT version_num FROM alembic_version")).all() == [HEAD]
        assert differences(session.connection()) == []
        assert session.scalars(sa.select(JobRow.public_id).order_by(JobRow.id)).all() == written
    database.close()


def test_what_the_history_is_filtered_by_is_filled_in(
    both_databases: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a database from before there were columns and indexes for it, and of rows that old processes write."""
    monkeypatch.setattr(migrations, "FILLED_AT_ONCE", 1)
    database = Database.of(both_databases)
    InstancePaths.of(both_databases).create()
    migrate(database)
    with database.write() as session:
        for number, outcome in enumerate((None, "fake"), start=1):
            session.add(JobRow(public_id=f"job-{number}", task="analyse", state=JobState.DONE))
            medium = MediaRow(sha256=f"{number}" * 64, size_bytes=1, format="mp4", mime="video/mp4", kind="video")
            medium.stored_name = str(number)
            session.add(medium)
            session.flush()
            report = {"overall": outcome and {"outcome": outcome}}
            row = DetectionRow(job_id=number, media_id=number, client_id="c", display_name=f"Clip {number}.mp4")
            row.report, row.prediction = report, "real"
            session.add(row)
    of_sqlite = [f"DROP TRIGGER {names.TABLE}_{each}" for each in ("add", "drop", "change")]
    of_sqlite += [f"DROP TABLE {names.TABLE}", f"DROP TABLE {names.DROPPED}"]
    no_index = of_sqlite if database.is_sqlite else [f"DROP INDEX {names.INDEX}"]
    earlier = [
        *no_index,
        *UNDO["r0012"],
        "UPDATE alembic_version SET version_num = 'r0012'",
    ]
    portions: list[int] = []

    @sa.event.listens_for(database.engine, "after_cursor_execute")
    def note(_: object, cursor: sqlite3.Cursor, statement: str, *__: object) -> None:
        if statement.startswith("UPDATE detections SET media_kind="):
            portions.append(cursor.rowcount)

    filled, sound = [("video", None), ("video", "fake")], [("audio", None), ("video", "fake")]
    for statements, wanted, writes in (
        (earlier, filled, [1, 1]),
        (["UPDATE detections SET media_kind = NULL, overall = NULL"], filled, [1, 1]),
        (["UPDATE detections SET overall = NULL", *no_index], filled, [1, 1]),
        (["SELECT 1"], filled, []),
        (["UPDATE media SET kind = 'audio' WHERE id = 1"], sound, [1]),
    ):
        portions.clear()
        with database.write() as session:
            for statement in statements:
                session.execute(sa.text(statement))
        migrate(database)
        with database.read() as session:
            found = session.execute(
                sa.select(DetectionRow.media_kind, DetectionRow.overall).order_by(DetectionRow.job_id)
            )
            assert (found.all(), portions) == (wanted, writes)
            assert differences(session.connection()) == []
            if database.is_sqlite:
                assert names.has_table(session)
                looked = sa.select(names.names.c.rowid).where(names.matches("CLIP 2"))
                assert session.scalars(looked).all() == [2]
            else:
                indexes = session.scalars(sa.text("SELECT indexname FROM pg_indexes WHERE tablename = 'detections'"))
                assert names.INDEX in indexes.all()
    database.close()


def test_whichever_program_comes_first_makes_the_index_of_names(both_databases: Settings) -> None:
    environ = {**os.environ, **settings_environ(both_databases)}
    command = [sys.executable, "-m", "web_app", "keys", "create", "desk"]
    subprocess.run(command, cwd=ROOT, check=True, env=environ)
    database = Database.of(both_databases)
    with database.read() as session:
        assert names.is_indexed(session.connection())
        assert names.has_table(session) == database.is_sqlite
    database.close()


def test_of_deleted_names_no_letters_stay_in_the_index(parts: Services) -> None:
    with parts.database.write() as session:
        for number, name in enumerate(("photo.png", "KARLA-LAWSUIT.png", "keep-ZERO.png"), start=1):
            session.add(JobRow(public_id=name, task="analyse", state=JobState.DONE))
            medium = MediaRow(sha256=f"{number}" * 64, size_bytes=1, format="png", mime="image/png", kind="image")
            medium.stored_name = name
            session.add(medium)
            session.flush()
            row = DetectionRow(job_id=number, media_id=number, client_id="c", display_name=name)
            row.expires_at = utc_now() + dt.timedelta(hours=1) if number == 3 else None
            session.add(row)

    def left() -> bytes:
        with parts.database.read() as session:
            return b"".join(session.scalars(sa.text(f"SELECT block FROM {names.TABLE}_data")))

    assert b"zer" not in left()  # that name was never to be kept
    assert b"kar" in left()
    assert delete_detection(parts.database, parts.store, "KARLA-LAWSUIT.png")
    assert delete_detection(parts.database, parts.store, "keep-ZERO.png")
    assert b"kar" in left()
    clean_up(parts, utc_now())
    assert b"kar" not in left()
    with parts.database.read() as session:
        session.execute(sa.text(f"INSERT INTO {names.TABLE} ({names.TABLE}) VALUES ('integrity-check')"))
        assert session.scalars(sa.select(names.names.c.rowid).where(names.matches("photo"))).all() == [1]
        assert session.scalar(sa.text(f"SELECT count(*) FROM {names.DROPPED}")) == 0


def test_a_database_without_an_index_of_names_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "SQLITE", ("CREATE VIRTUAL TABLE detection_names USING not_there(x)",))
    database = Database.at(tmp_path / "db.sqlite3")
    migrate(database)
    with database.read() as session:
        assert not names.has_table(session)
        assert session.scalars(sa.select(DetectionRow)).all() == []
    database.close()


def _migrate_together(both: list[Settings], together: Barrier) -> None:
    for settings in both:
        database = Database.of(settings)
        together.wait(180)
        migrate(database)
        database.close()


def test_programs_that_start_together_migrate_once(tmp_path: Path) -> None:
    both = [make_settings(tmp_path / kind, on_postgres=kind == "postgres") for kind in ("sqlite", "postgres")]
    for settings in both:
        InstancePaths.of(settings).create()
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(4)
    programs = [context.Process(target=_migrate_together, args=(both, together)) for _ in range(4)]
    for program in programs:
        program.start()
    for program in programs:
        program.join(180)
    assert [program.exitcode for program in programs] == [0] * 4
    for settings in both:
        database = Database.of(settings)
        with database.read() as session:
            assert names.is_indexed(session.connection())
            assert differences(session.connection()) == []
        database.close()
    postgres.drop_database(both[1].storage.database_url)


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
        thread.join(180)
    with database.read() as session:
        assert session.scalars(sa.select(JobRow)).one().attempts == 80
    database.close()
