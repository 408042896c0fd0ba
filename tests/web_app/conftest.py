"""Applications for the tests of the server: each has an instance folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import accept_weights, make_settings, running_worker
from utils.config import Settings
from web_app.app import create_app
from web_app.services import EXTENSION, Services


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    """A function that builds applications over settings; their connections are given back after the test."""
    apps: list[Flask] = []

    def build(settings: Settings | None = None) -> Flask:
        apps.append(create_app(settings or make_settings(tmp_path), verify=accept_weights))
        return apps[-1]

    yield build
    for app in apps:
        app.extensions[EXTENSION].close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


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
