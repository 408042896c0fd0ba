"""The browser extension, loaded into Chromium, against the real application and a page of test media.

A context menu cannot be opened from outside, so what it calls is called. That the click gives access to its tab
(`activeTab`) is stood for by a permission for the host of the page, in a copy of the extension.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response, request

from tests.browser.conftest import ARGUMENTS, NAMES, TIMEOUT_MS
from tests.browser.test_axe import violations
from tests.web_app.helpers import listening, make_settings
from utils.config import SecuritySettings, Settings
from web_app.auth.keys import create_key
from web_app.paths import ROOT
from web_app.services import Services

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

EXTENSION = ROOT / "extension"
PAGE_HOST, MEDIA_HOST = "page.test", "media.test"
Give = Callable[[str], dict[str, Any]]


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    return dataclasses.replace(make_settings(tmp_path), security=getattr(request, "param", SecuritySettings()))


class Media:
    """A web site of test media; `asked` are the headers that came for each."""

    def __init__(self, photo: bytes, clip: bytes) -> None:
        self.files = {
            "photo.jpg": (photo, "image/jpeg"), "open.jpg": (photo, "image/jpeg"), "clip.webm": (clip, "video/webm"),
            "large.png": (b"\x89PNG\r\n\x1a\n" + bytes(1_200_000), "image/png"),
        }  # fmt: skip
        self.asked: list[dict[str, str]] = []
        self.app = Flask("media")
        self.app.add_url_rule("/", "page", lambda: "<!doctype html><title>Media</title><h1>Media</h1>")
        self.app.add_url_rule("/<name>", "file", self.file)

    def file(self, name: str) -> Response:
        self.asked.append(dict(request.headers))
        if name not in self.files:
            return Response("none", 404)
        content, mime = self.files[name]
        headers = {"Access-Control-Allow-Origin": "*"} if name == "open.jpg" else {}
        return Response(content, mimetype=mime, headers=headers)


@pytest.fixture
def media(photo: Give, clip: Give) -> Media:
    return Media(photo("photo.jpg")["buffer"], clip("clip.webm")["buffer"])


@pytest.fixture
def media_port(media: Media) -> Iterator[int]:
    with listening(media.app) as port:
        yield port


@pytest.fixture(scope="module")
def extended(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """A browser with the extension, which may look into pages of one more host."""
    folder = tmp_path_factory.mktemp("browser")
    copy = Path(shutil.copytree(EXTENSION, folder / "extension"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["host_permissions"].append(f"http://{PAGE_HOST}/*")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    path = os.environ.get("TELLTALE_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with browser.browser_type.launch_persistent_context(
        str(folder / "profile"),
        executable_path=path,
        ignore_default_args=["--disable-extensions"],
        args=[
            *ARGUMENTS, f"--disable-extensions-except={copy}", f"--load-extension={copy}",
            f"--host-resolver-rules=MAP {PAGE_HOST} 127.0.0.1, MAP {MEDIA_HOST} 127.0.0.1",
        ],
    ) as opened:  # fmt: skip
        opened.set_default_timeout(TIMEOUT_MS)
        yield opened


@pytest.fixture
def context(extended: BrowserContext, address: str) -> Iterator[BrowserContext]:
    """The browser with the extension, which knows the server's address and nothing of other tests."""
    configure(extended, server=address.rstrip("/"))
    yield extended
    for page in extended.pages[1:]:
        page.close()
    extended.pages[0].goto("about:blank")
    extended.clear_cookies()
    worker(extended).evaluate("() => chrome.storage.local.clear()")


def worker(context: BrowserContext) -> Any:
    return context.service_workers[0] if context.service_workers else context.wait_for_event("serviceworker")


def configure(context: BrowserContext, **values: str) -> None:
    worker(context).evaluate("values => chrome.storage.local.set(values)", values)


def check(context: BrowserContext, page: Page, src: str) -> Page:
    """The panel after a click on a medium of a page."""
    page.bring_to_front()
    with context.expect_page() as opened:
        worker(context).evaluate(
            """async src => {
                const [tab] = await chrome.tabs.query({ active: true, windowType: "normal" });
                await check(src, tab.id, 0);
            }""",
            src,
        )
    return opened.value


def why(panel: Page) -> str:
    panel.wait_for_selector(".why")
    return panel.inner_text(".why")


@pytest.fixture
def page(context: BrowserContext, media_port: int) -> Page:
    shown = context.pages[0]
    shown.goto(f"http://{PAGE_HOST}:{media_port}/")
    return shown


def test_a_picture_and_a_clip_are_checked_and_lead_to_their_results(
    context: BrowserContext, page: Page, media: Media, media_port: int, address: str, axe: str
) -> None:
    panel = check(context, page, f"http://127.0.0.1:{media_port}/photo.jpg")
    panel.wait_for_selector(".verdict h1")
    assert "95 % interval" in panel.inner_text(".verdict")
    assert "The file itself states that it was generated by ImageModel" in panel.inner_text(".verdict")
    people = panel.locator(".faces li").all_inner_texts()
    assert [text.split(":")[0] for text in people] == ["Person 1 (93 %)", "Person 2 (8 %)"]
    assert panel.locator("img").evaluate("image => image.naturalWidth") == 960
    for scheme in ("light", "dark"):
        panel.emulate_media(color_scheme=scheme)
        assert violations(panel, axe) == []
    with context.expect_page() as opened:
        panel.click("text=Open the whole result")
    opened.value.wait_for_selector(".verdict")
    assert opened.value.url.startswith(f"{address}detections/")
    assert opened.value.inner_text(".filename") == "photo.jpg"

    clip = check(context, page, f"http://127.0.0.1:{media_port}/clip.webm")
    clip.wait_for_selector(".faces li")
    assert clip.locator("img").count() == 0


AS_DATA = """await new Promise(done => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(blob);
})"""


def test_media_that_only_the_page_can_read_come_through_it(
    context: BrowserContext, page: Page, media_port: int
) -> None:
    """Of another host that allows it, made by the page's script, and written into the page."""
    sources = [f"http://{MEDIA_HOST}:{media_port}/open.jpg"]
    for how in ("URL.createObjectURL(blob)", AS_DATA):
        read = "const blob = await (await fetch('photo.jpg')).blob();"
        sources.append(page.evaluate(f"async () => {{ {read} return {how}; }}"))
    assert [source.split(":")[0] for source in sources] == ["http", "blob", "data"]
    for source in sources:
        panel = check(context, page, source)
        panel.wait_for_selector(".verdict h1")
        assert panel.inner_text("#status") == "Done.", panel.inner_text("main")
        panel.close()


def test_a_bare_percent_sign_belongs_to_the_name(
    context: BrowserContext, page: Page, media: Media, media_port: int
) -> None:
    media.files["100%.jpg"] = media.files["photo.jpg"]
    panel = check(context, page, f"http://127.0.0.1:{media_port}/100%.jpg")
    with context.expect_page() as opened:
        panel.click("text=Open the whole result")
    opened.value.wait_for_selector(".verdict")
    assert opened.value.inner_text(".filename") == "100%.jpg"


@pytest.mark.parametrize("settings", [SecuritySettings(trusted_proxies="192.0.2.1")], indirect=True)
def test_a_server_on_another_machine_knows_the_browser_again(
    context: BrowserContext, page: Page, media_port: int
) -> None:
    """With proxies, who asks from this machine has no more rights than who asks from elsewhere."""
    panel = check(context, page, f"http://127.0.0.1:{media_port}/photo.jpg")
    panel.wait_for_selector(".verdict h1")
    assert panel.inner_text("#status") == "Done.", panel.inner_text("main")
    with context.expect_page() as opened:
        panel.click("text=Open the whole result")
    opened.value.wait_for_selector(".verdict")


def test_what_cannot_be_read_is_told_in_plain_words(context: BrowserContext, page: Page, media_port: int) -> None:
    panel = check(context, page, f"http://{MEDIA_HOST}:{media_port}/photo.jpg")
    assert "does not give this file to other pages" in why(panel)
    assert panel.inner_text("button >> nth=0") == f"Allow {MEDIA_HOST}:{media_port}"
    assert "so there is no file to send" in why(check(context, page, f"blob:http://{PAGE_HOST}:{media_port}/gone"))
    assert "answered 404" in why(check(context, page, f"http://{PAGE_HOST}:{media_port}/gone.jpg"))
    assert "file: addresses" in why(check(context, page, "file:///etc/passwd"))
    assert "no bytes to send" in why(check(context, page, ""))


def test_what_the_server_refuses_is_told_in_plain_words(
    context: BrowserContext, page: Page, media: Media, media_port: int
) -> None:
    media.files["text.jpg"] = (b"no picture at all", "image/jpeg")
    assert "larger than the server takes" in why(check(context, page, f"http://127.0.0.1:{media_port}/large.png"))
    assert "JPEG" in why(check(context, page, f"http://127.0.0.1:{media_port}/text.jpg"))
    configure(context, server="http://127.0.0.1:9")
    panel = check(context, page, f"http://127.0.0.1:{media_port}/photo.jpg")
    assert "No Telltale server answers at http://127.0.0.1:9" in why(panel)
    configure(context, server=f"http://127.0.0.1:{media_port}")
    panel.click("text=Try again")
    panel.wait_for_selector("text=Is it Telltale?")
    configure(context, server="https://elsewhere.test")
    panel.click("text=Try again")
    panel.wait_for_selector("button:has-text('Allow elsewhere.test')")


@pytest.mark.parametrize("settings", [SecuritySettings(keys="on", uploads_per_minute=1)], indirect=True)
def test_the_key_goes_to_the_server_alone(
    context: BrowserContext, page: Page, media: Media, media_port: int, parts: Services, address: str
) -> None:
    picture = f"http://127.0.0.1:{media_port}/photo.jpg"
    assert "asks for an API key" in why(check(context, page, picture))
    configure(context, key="tt_wrong")
    assert "does not know this API key" in why(check(context, page, picture))

    options = context.new_page()
    options.goto(worker(context).url.replace("background.js", "options.html"))
    assert options.input_value("[name=server]") == address.rstrip("/")
    options.fill("[name=server]", "ftp://here")
    options.click("button")
    options.wait_for_selector("text=begins with http")
    options.fill("[name=server]", address)
    options.fill("[name=key]", create_key(parts.database, "browser", ["analyse"]))
    options.click("button")
    options.wait_for_selector("text=Saved. The server answers.")

    check(context, page, picture).wait_for_selector(".faces li")
    assert re.search(r"Try again in \d+ seconds", why(check(context, page, picture)))
    assert len(media.asked) >= 4
    assert not [headers for headers in media.asked if "Authorization" in headers]


def test_the_options_can_be_used_by_everybody(context: BrowserContext, axe: str) -> None:
    options = context.new_page()
    options.goto(worker(context).url.replace("background.js", "options.html"))
    assert violations(options, axe) == []


def test_the_manifest_is_small_and_fits_both_browsers() -> None:
    manifest = json.loads((EXTENSION / "manifest.json").read_text())
    assert manifest["manifest_version"] == 3
    assert sorted(manifest["permissions"]) == ["activeTab", "contextMenus", "scripting", "storage"]
    assert manifest["host_permissions"] == ["http://localhost/*", "http://127.0.0.1/*"]  # Firefox takes no ports
    assert manifest["background"]["service_worker"] == manifest["background"]["scripts"][0]  # Chromium's and Firefox's
    gecko = manifest["browser_specific_settings"]["gecko"]
    assert re.fullmatch(r"[\w.-]+@[\w.-]+", gecko["id"])
    assert int(gecko["strict_min_version"].split(".")[0]) >= 128  # optional_host_permissions
    assert gecko["data_collection_permissions"] == {"required": ["websiteContent"]}
    assert "content_security_policy" not in manifest  # that of the browsers: own scripts only
    for file in EXTENSION.glob("*.html"):
        text = file.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|https?://(?!localhost:5000)", text), file.name
        for name in re.findall(r'(?:src|href)="([^"]+)"', text):
            assert (EXTENSION / name).is_file()
    for file in EXTENSION.glob("*.js"):
        assert not re.search(r"\beval\(|innerHTML|new Function|importScripts", file.read_text()), file.name
