"""A Chromium over the real application and its worker; only the networks are replaced, by what `reports` says.

Without browser or Playwright these tests are skipped and say why.
"""

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

from tests.browser.media import make_clip, make_photo
from tests.browser.reports import FOUND, make_closeup, make_report
from tests.web_app.conftest import _impatient_database, make_app, quick_start, template_database
from tests.web_app.helpers import listening, make_settings, running_worker
from utils.config import Settings
from utils.media import decode_media, start_fork_server
from utils.media.fork_server import ForkServer
from utils.types import MediaKind, Report
from web_app.db.models import COPY, EXPLAIN
from web_app.jobs.derived import CleanCopies, keep_looks, keep_previews, whole_looks
from web_app.jobs.detections import find_detection
from web_app.jobs.queue import Claim
from web_app.jobs.runner import Progress, WorkerTasks
from web_app.services import EXTENSION, Services

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["_impatient_database", "make_app", "quick_start", "template_database"]

HELD = b"|held|"
DEFAULTS = {MediaKind.IMAGE: "portrait", MediaKind.VIDEO: "clip", MediaKind.AUDIO: "spoken"}
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


@pytest.fixture(scope="session")
def decoders() -> Iterator[ForkServer | None]:
    """Where the confined children come from that decode and copy."""
    prepared = start_fork_server()
    yield prepared
    if prepared is not None:
        prepared.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of the application; a test module may have its own."""
    return make_settings(tmp_path)


@pytest.fixture
def release() -> threading.Event:
    """Until it is set, analyses of files with `held` in their name do not end."""
    return threading.Event()


@pytest.fixture
def app(
    make_app: Callable[..., Flask], settings: Settings, release: threading.Event, decoders: ForkServer | None
) -> Iterator[Flask]:
    """The server with a worker, fresh for each test."""
    built = make_app(settings)
    copies = CleanCopies(built.extensions[EXTENSION], lambda: decoders)

    def analyse(path: Path, progress: Progress) -> Report:
        for index, stage in enumerate(("decode", "detect", "experts", "decide")):
            progress(stage, index / 4)
        media = decode_media(path, settings.media, settings.sandbox, decoders)
        keep_previews(path, media)
        content = path.read_bytes()
        while HELD in content and not release.wait(0.02):
            progress("experts", 0.6)
        scenario = next((name for name in FOUND if f"|{name}|".encode() in content), None)
        report = make_report(content, scenario or DEFAULTS[media.info.kind], media.notices)
        copies.keep(path, report)
        keep_looks(built.extensions[EXTENSION], path, whole_looks(media))
        return report

    def look_closer(claim: Claim, progress: Progress) -> dict[str, Any]:
        progress("explain", 0.5)
        with built.extensions[EXTENSION].database.read() as session:
            row = find_detection(session, claim.payload["detection"])
            assert row is not None
            return make_closeup(row.report or {}, claim.payload["face"])

    with running_worker(settings, analyse, tasks=WorkerTasks(foreground={COPY: copies.handle, EXPLAIN: look_closer})):
        yield built


@pytest.fixture
def parts(app: Flask) -> Services:
    found = app.extensions[EXTENSION]
    assert isinstance(found, Services)
    return found


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    """Where the application is served, below a prefix."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with listening(DispatcherMiddleware(NotFound(), {PREFIX: app})) as port:
        yield f"http://127.0.0.1:{port}{PREFIX}/"


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
    """A function that gives the photo under a name; its words, behind the picture's end, decide what is found on it."""
    content = make_photo()

    def build(name: str) -> dict[str, Any]:
        words = "".join(f"|{word}|" for word in name.rpartition(".")[0].split("-"))
        return {"name": name, "mimeType": "image/jpeg", "buffer": content + words.encode()}

    return build


@pytest.fixture(scope="session")
def clip() -> Callable[[str], dict[str, Any]]:
    content = make_clip()
    return lambda name: {"name": name, "mimeType": "video/webm", "buffer": content}


@pytest.fixture(scope="session")
def broken() -> dict[str, Any]:
    """A file that begins like a JPEG and goes on like none."""
    return {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff\xe0 nothing follows"}


@pytest.fixture(scope="session")
def axe() -> str:
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("the package axe-playwright-python is not installed")
    return Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")
