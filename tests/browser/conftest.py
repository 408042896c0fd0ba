"""A Chromium over the pages with canned answers; without browser or Playwright these tests are skipped and say why."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from tests.browser.canned_api import create_canned_app
from tests.browser.media import make_clip, make_photo

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PREFIX = "/desk"  # everything runs below a path prefix, as behind a proxy
TIMEOUT_MS = 60_000  # a condition that is waited for; a loaded machine is slow
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    path = os.environ.get("TELLTALE_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def app() -> Flask:
    """What is served: the pages with canned answers, fresh for each test; a test module may serve another one."""
    return create_canned_app()


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    """Where the application is served, below a prefix."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, DispatcherMiddleware(NotFound(), {PREFIX: app}), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}{PREFIX}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """A function that opens a page in a context of its own; no page may log an error or call another host."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def build(path: str = "", **options: Any) -> Page:
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
        )
        contexts.append(context)
        page: Page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: _note(message, complaints))
        page.on("request", lambda request: _expect_ours(request.url, address, complaints))
        page.goto(address + path)
        return page

    yield build
    for context in contexts:
        context.close()
    assert complaints == []


def _note(message: Any, complaints: list[str]) -> None:
    if message.type == "error" and "Failed to load resource" not in message.text:  # a refusal under test
        complaints.append(message.text)


def _expect_ours(url: str, address: str, complaints: list[str]) -> None:
    if not url.startswith((address, "blob:", "data:")):
        complaints.append(f"asked for {url}")


@pytest.fixture(scope="session")
def photo() -> Callable[[str], dict[str, Any]]:
    """A function that gives the photo under a name, which decides the canned answer."""
    content = make_photo()
    return lambda name: {"name": name, "mimeType": "image/jpeg", "buffer": content}


@pytest.fixture(scope="session")
def clip() -> Callable[[str], dict[str, Any]]:
    content = make_clip()
    return lambda name: {"name": name, "mimeType": "video/webm", "buffer": content}


@pytest.fixture(scope="session")
def axe() -> str:
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("the package axe-playwright-python is not installed")
    return Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")
