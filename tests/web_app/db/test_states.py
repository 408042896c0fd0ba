"""A database that cannot be used is told in one sentence with a remedy, by each of our programs; odd names work."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.web_app.helpers import make_settings, media_bytes, upload
from utils.errors import ConfigError
from web_app import __main__, worker
from web_app.db.migrations import migrate
from web_app.db.session import Database
from web_app.paths import InstancePaths

ADVICE = "Correct config.ini"


def _execute(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return change


def _foreign(path: Path) -> None:
    path.unlink()
    _execute("CREATE TABLE bookmarks (id INTEGER)")(path)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwrite(start: int, end: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(start)
            file.write(b"\xa5" * (end - start))

    return change


STATES = {
    "older": (_execute("UPDATE alembic_version SET version_num = 'r0003'"), "early state (r0003)", "9952103"),
    "later": (_execute("UPDATE alembic_version SET version_num = 'r9999'"), "later version", "version that wrote it"),
    "of another program": (
        _execute("UPDATE alembic_version SET version_num = 'ae1027a6acf'"), "something else", "new one",
    ),
    "foreign": (_foreign, "something else", "new one"),
    "text": (lambda path: path.write_text("not a database, but a letter\n" * 200), "no SQLite database", "backup"),
    "head lost": (_overwrite(0, 100), "no SQLite database", "backup"),
    "cut": (_cut, "damaged", "backup"),
    "a page lost": (_overwrite(2 * 4096, 3 * 4096), "damaged", "backup"),
    "a table lost": (_execute("DROP TABLE api_keys"), "damaged: the table api_keys", "backup"),
    "a column lost": (_execute("ALTER TABLE jobs DROP COLUMN payload"), "damaged: the table jobs", "backup"),
}  # fmt: skip


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstancePaths:
    """An instance folder with a database, which the programs use."""
    monkeypatch.setattr(worker, "stop_on_signals", threading.Event)
    monkeypatch.setattr(__main__, "configure_logging", lambda *_: None)
    monkeypatch.setenv("TELLTALE_STORAGE__INSTANCE_DIR", str(tmp_path / "instance"))
    paths = InstancePaths(tmp_path / "instance")
    paths.create()
    database = Database.at(paths.database)
    migrate(database)
    database.close()
    return paths


@pytest.mark.parametrize("state", STATES)
def test_a_database_that_cannot_be_used_is_told(
    state: str, instance: InstancePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    change, sentence, remedy = STATES[state]
    change(instance.database)
    before = instance.database.read_bytes()[100:]
    for command in (["serve", "--no-worker", "--port", "1"], ["worker"], ["keys", "list"], ["rebuild"]):
        assert __main__.main(command) == __main__.EXIT_CONFIG, command
        told = capsys.readouterr().err
        assert told.startswith("[config] ")
        assert told.count("\n") == 1
        assert sentence in told
        assert remedy in told
        assert ADVICE not in told  # config.ini is not at fault
    assert instance.database.read_bytes()[100:] == before  # but for the header, which tells how it is journalled


@pytest.mark.parametrize("name", ["what?", "a%2Fb", "100%", "ä ö#1", "C:\\x", "%(here)s"])
def test_odd_names_of_folders(name: str, tmp_path: Path, make_app: Callable) -> None:  # type: ignore[type-arg]
    settings = make_settings(tmp_path / name)
    database = Database.at(InstancePaths.of(settings).database)
    InstancePaths.of(settings).create()
    migrate(database)
    database.close()
    assert upload(make_app(settings).test_client(), media_bytes("mp4")).status_code == 202
    assert sorted(each.name for each in tmp_path.iterdir()) == [name]


def test_a_question_mark_in_an_address_is_not_lost(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    object.__setattr__(settings.storage, "database_url", f"sqlite:///{tmp_path}/a?b/db.sqlite3")
    with pytest.raises(ConfigError, match="%3F"):
        Database.of(settings)
