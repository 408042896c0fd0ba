"""The API's page, the printed report and the live camera in a browser, over the real server."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.browser.conftest import ARGUMENTS, NAMES, TIMEOUT_MS
from tests.browser.test_axe import violations_in_all_looks
from tests.hostile.attacks import seeds

Give = Callable[[str], dict[str, Any]]


def test_the_api_can_be_read_by_everybody(open_page: Callable[..., Any], axe: str) -> None:
    page = open_page()
    page.click("text=For programs: API")
    page.wait_for_selector("h1:has-text('The API')")
    page.click("#detect_image summary")
    text = page.inner_text("#detect_image")
    assert "Idempotency-Key" in text
    assert '"fake_probability"' in text
    assert "media_too_large" in text
    assert page.locator(".api details").count() == sum(
        len(methods) for methods in page.request.get(f"{page.url}/../openapi.json").json()["paths"].values()
    )
    assert violations_in_all_looks(page, axe) == {}


def test_the_report_shows_the_picture_and_prints_well(open_page: Callable[..., Any], photo: Give, axe: str) -> None:
    page = open_page()
    made = page.request.post(f"{page.url}api/detect/image", multipart={"file": photo("me.jpg")})
    page.goto(f"{page.url}api/detections/{made.json()['id']}/report?format=html")
    assert page.inner_text("h1") == "me.jpg"
    assert page.locator("svg.picture rect").count() >= 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 320, "height": 600})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations_in_all_looks(page, axe) == {}
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF-")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") <= 4


@pytest.fixture
def camera_page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """A page in a browser with Chromium's own test camera and a microphone that hears a file, started like the other
    one.
    """
    path = os.environ.get("TELLTALE_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    (tmp_path / "said.wav").write_bytes(seeds.recording("wav", seeds.chord(22050, 4.0)))
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    camera.append(f"--use-file-for-fake-audio-capture={tmp_path / 'said.wav'}")
    launched = browser.browser_type.launch(executable_path=path, args=[*ARGUMENTS, *camera])
    page = launched.new_page()
    page.set_default_timeout(3 * TIMEOUT_MS)
    yield page
    launched.close()


def test_camera_and_microphone_show_running_scores_and_keep_nothing(camera_page: Any, address: str) -> None:
    complaints: list[str] = []
    camera_page.on("pageerror", lambda error: complaints.append(str(error)))
    camera_page.goto(f"{address}live")
    camera_page.wait_for_selector("#state:has-text('off')")
    camera_page.click("#start")
    camera_page.wait_for_selector("#score:has-text('mean of 2')")
    assert camera_page.locator("#boxes rect").count() >= 1
    late: list[Any] = []
    camera_page.route("**/api/detect/image?keep=0", lambda route: late.append(route))
    while not late:
        camera_page.wait_for_timeout(20)
    camera_page.click("#stop")
    with camera_page.expect_response("**/api/detect/image?keep=0"):
        late.pop().continue_()  # an answer that comes after the camera was stopped says nothing any more
    camera_page.wait_for_timeout(200)
    assert "off" in camera_page.inner_text("#state")
    assert camera_page.evaluate("document.getElementById('camera').srcObject") is None
    camera_page.unroute("**/api/detect/image?keep=0")

    camera_page.clock.install()
    camera_page.reload()
    camera_page.wait_for_selector("#sound-state:has-text('off')")
    camera_page.click("#start")
    camera_page.click("#listen")
    for _ in range(600):
        camera_page.wait_for_timeout(100)
        camera_page.clock.run_for(500)  # of the four seconds that are heard at a time
        if re.search("mean of [2-8]", camera_page.inner_text("#sound-score")):
            break
    else:
        pytest.fail("the microphone was not judged twice")
    assert "Substantial evidence" in camera_page.inner_text("#sound-now")
    assert "mean of" in camera_page.inner_text("#score")
    camera_page.click("#deafen")
    camera_page.wait_for_selector("#sound-state:has-text('off')")
    assert "camera is on" in camera_page.inner_text("#state"), "each is stopped by itself"
    camera_page.click("#stop")
    assert camera_page.request.get(f"{address}api/history").json()["total"] == 0
    assert complaints == []


def test_the_live_page_is_accessible_and_tells_of_a_refused_microphone(open_page: Callable[..., Any], axe: str) -> None:
    page = open_page("live")
    page.wait_for_selector("#state")
    assert violations_in_all_looks(page, axe) == {}
    page.click("#listen")
    page.wait_for_selector("#sound-state:has-text('found no microphone')")
    assert page.is_enabled("#listen")


def test_the_page_of_a_wrong_address_is_accessible_and_leads_on(
    open_page: Callable[..., Any], address: str, axe: str
) -> None:
    page = open_page("nothing/here")
    for path in ("cases/missing", "nothing/here", "detections/missing"):
        page.goto(address + path)
        assert page.inner_text("h1") == "There is no page here"
    assert violations_in_all_looks(page, axe) == {}
    page.click("text=Go to the history")
    page.wait_for_selector(".empty")


def test_only_the_live_page_may_use_the_camera(app: Flask) -> None:
    client = app.test_client()
    assert "camera=(self)" in client.get("/live").headers["Permissions-Policy"]
    assert "microphone=(self)" in client.get("/live").headers["Permissions-Policy"]
    for path in ("/", "/history", "/api/docs"):
        assert "microphone=()" in client.get(path).headers["Permissions-Policy"]
        assert "camera=()" in client.get(path).headers["Permissions-Policy"]
