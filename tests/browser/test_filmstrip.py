"""A video that no browser plays: its analysed frames under the same timeline, and a way to have the video."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.media import make_clip, two_people
from tests.browser.test_axe import violations_in_all_looks
from tests.browser.test_flow import until
from tests.utils.media.heics import heic
from web_app.services import Services


@pytest.fixture(scope="module")
def old_clip() -> bytes:
    return make_clip("avi")


def analyse(page: Any, content: bytes) -> None:
    page.set_input_files("#file", [{"name": "holiday.avi", "mimeType": "video/x-msvideo", "buffer": content}])
    page.wait_for_selector(".verdict")
    page.wait_for_selector(".strip__frame")


def test_frames_stand_for_a_video_that_is_not_played(open_page: Callable[..., Any], old_clip: bytes, axe: str) -> None:
    page = open_page()
    analyse(page, old_clip)
    assert page.locator(".strip__frame").count() == 16
    assert "The player of a browser cannot play" in page.inner_text(".stage__note")
    until(page, "document.querySelector('.stage__frame > img').naturalWidth === 480")
    before = page.locator(".box[data-face='0'] .box__rect").bounding_box()["x"]

    page.focus(".plot")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.get_attribute(".plot", "aria-valuenow") == "4"
    assert page.get_attribute(".strip__frame >> nth=3", "aria-pressed") == "true"
    assert page.locator(".box[data-face='0'] .box__rect").bounding_box()["x"] < before - 5

    page.focus(".strip__frame[aria-pressed=true]")
    page.keyboard.press("End")
    assert page.get_attribute(".plot", "aria-valuenow") == "16"
    assert page.evaluate("document.activeElement === document.querySelector('.strip__frame:last-child')")
    page.click(".strip__frame >> nth=0")
    assert page.get_attribute(".plot", "aria-valuenow") == "1"

    assert violations_in_all_looks(page, axe) == {}
    with page.expect_download() as saved:
        page.click("text=Download the video")
    assert saved.value.suggested_filename.endswith(".avi")


def test_a_damaged_video_shows_its_frames_and_no_download(open_page: Callable[..., Any], old_clip: bytes) -> None:
    page = open_page()
    analyse(page, old_clip[:-6000])
    assert "damaged" in page.inner_text(".stage__note")
    assert page.locator("text=Download the video").count() == 0


def test_a_copy_that_cannot_be_made_now_is_no_damage(
    open_page: Callable[..., Any], photo: Any, old_clip: bytes
) -> None:
    page, other = open_page(), open_page()
    for each in (page, other):
        each.wait_for_load_state()
        each.route("**/media", lambda route: route.fulfill(status=507))
    other.set_input_files("#file", [photo("photo.jpg")])
    other.wait_for_selector(".stage__failure:has-text('This file cannot be shown at the moment')")
    analyse(page, old_clip)
    assert "This video cannot be shown" in page.inner_text(".stage__note")
    assert "damaged" not in page.inner_text(".stage__note")


def test_a_copy_that_is_missing_is_waited_for(parts: Services, open_page: Callable[..., Any], photo: Any) -> None:
    page = open_page()
    page.set_input_files("#file", [photo("photo.jpg")])
    page.wait_for_selector(".stage img")
    for copy in parts.store.derived():
        copy.unlink()
    page.click("text=Permanent link")
    until(page, "document.querySelector('.stage img')?.naturalWidth === 960")


def test_a_picture_that_the_browser_does_not_know_is_shown_small_beside_its_copy(open_page: Callable[..., Any]) -> None:
    page = open_page()
    content = heic(two_people()[:320, :480].copy())
    page.set_input_files("#file", [{"name": "IMG_0001", "mimeType": "", "buffer": content}])  # the server decides
    page.wait_for_selector(".stage .fine")
    assert "HEIC" in page.inner_text(".stage .fine")
    assert page.inner_text(".stage__note a") == "Download the photo"
    until(page, "document.querySelector('.stage img')?.naturalWidth === 480")
    link = page.locator(".stage__note a")
    answer = page.request.get(link.evaluate("link => link.href"))
    assert (answer.status, answer.headers["content-type"]) == (200, "image/heic")
    assert len(answer.body()) == len(content)
