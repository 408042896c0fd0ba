"""Applications for the tests of the server: each has an instance folder of its own."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from tests.web_app.db import postgres
from tests.web_app.helpers import accept_weights, make_settings, running_worker
from utils.config import Settings
from web_app.app import create_app
from web_app.db.migrations import migrate
from web_app.db.session import Database
from web_app.paths import InstancePaths
from web_app.services import EXTENSION, Services
from web_app.storage.files import MediaStore


@pytest.fixture
def durable() -> None:
    """For tests of what a commit brings to the disk; in the others none is waited for."""


@pytest.fixture(autouse=True)
def _impatient_database(request: pytest.FixtureRequest) -> Iterator[None]:
    def do_not_wait(connection: Any, *_: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    if "durable" in request.fixturenames:
        yield
        return
    sa.event.listen(sa.Pool, "checkout", do_not_wait)
    yield
    sa.event.remove(sa.Pool, "checkout", do_not_wait)


@pytest.fixture(scope="session")
def template_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows."""
    path = tmp_path_factory.mktemp("template") / "telltale.sqlite3"
    database = Database.at(path)
    migrate(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def quick_start() -> Iterator[None]:
    """A server of the tests starts without what takes half of its time and is the same each time.

    Addresses of rules are compiled once for all servers, and the folder of an upload is made when the first one comes.
    """
    compiled: dict[tuple[object, ...], Callable[..., Any]] = {}
    build = Rule._compile_builder

    def build_once(rule: Rule, append_unknown: bool = True) -> Callable[..., Any]:
        key = (rule.rule, str(rule.defaults), *rule._trace, append_unknown)
        if key not in compiled:
            compiled[key] = build(rule, append_unknown)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", build_once)
        patch.setattr(MediaStore, "prepare", lambda store: None)
        yield


@pytest.fixture
def make_app(tmp_path: Path, template_database: Path, quick_start: None) -> Iterator[Callable[..., Flask]]:
    """A function that builds applications over settings; their connections are given back after the test."""
    apps: list[Flask] = []

    def build(settings: Settings | None = None) -> Flask:
        settings = settings or make_settings(tmp_path)
        paths = InstancePaths.of(settings)
        if not settings.storage.database_url and not paths.database.exists():
            paths.create()
            shutil.copy(template_database, paths.database)
        apps.append(create_app(settings, verify=accept_weights))
        return apps[-1]

    yield build
    for app in apps:
        app.extensions[EXTENSION].close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def both_databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings for each database in turn; a file of tests takes them by a fixture `settings` of its own."""
    made = make_settings(tmp_path, on_postgres=request.param == "postgres")
    yield made
    if made.storage.database_url:
        postgres.drop_database(made.storage.database_url)


@pytest.fixture
def app(make_app: Callable[..., Flask], settings: Settings) -> Flask:
    return make_app(settings)


@pytest.fixture
def parts(app: Flask) -> Services:
    found = app.extensions[EXTENSION]
    assert isinstance(found, Services)
    return found


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client without a worker behind the server: what it uploads stays queued."""
    return app.test_client()


@pytest.fixture
def served(app: Flask, settings: Settings) -> Iterator[FlaskClient]:
    """A client with a worker behind the server."""
    with running_worker(settings, model_version="v-test", sandbox=["seccomp"]):
        yield app.test_client()
