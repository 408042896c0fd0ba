"""The pages of cases: opened, filled from disk, history and result, noted on, reported, exported, deleted."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser.test_axe import violations_in_all_looks
from web_app.services import Services

Open = Callable[..., Any]
Give = Callable[[str], dict[str, Any]]
POLL_MS = 1500  # of cases.js


def test_a_case_from_its_opening_to_its_end(
    open_page: Open, photo: Give, clip: Give, address: str, axe: str, parts: Services, tmp_path: Path
) -> None:
    page = open_page("cases")
    page.wait_for_selector("text=There are no cases yet.")
    assert violations_in_all_looks(page, axe) == {}
    page.fill("input[name=title]", "Holiday <pictures>")
    page.fill("textarea[name=notes]", "From a stranger.")
    page.click("text=Open a case")
    page.wait_for_selector("h1:has-text('Holiday <pictures>')")
    case = page.url
    text = {"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": b"a text " * 300}
    page.set_input_files("#case-files", [photo("portrait.jpg"), text, clip("clip.webm")])
    page.wait_for_selector(".case__line >> nth=1")
    assert page.inner_text(".case__add .filename") == "notes.jpg", "it is named, and keeps no other file out"
    assert "looks like a text" in page.inner_text(".case__add .problem")
    for index in range(2):
        page.locator(".case__line").nth(index).locator(".chip[data-tone=fake], .chip[data-tone=real]").wait_for()
    page.fill("textarea[aria-label='Note on portrait.jpg']", "looks odd")
    with page.expect_response(lambda answer: answer.request.method == "PUT") as noted:
        page.press("textarea[aria-label='Note on portrait.jpg']", "Tab")
    assert noted.value.ok
    page.reload()
    page.wait_for_selector(".case__line >> nth=1")
    assert page.input_value("textarea[aria-label='Note on portrait.jpg']") == "looks odd"
    assert violations_in_all_looks(page, axe) == {}

    with page.expect_download() as saved:
        page.click("text=Export (ZIP)")
    with zipfile.ZipFile(io.BytesIO(Path(saved.value.path()).read_bytes())) as archive:
        assert "media/001-portrait.jpg" in archive.namelist()
    page.click("text=Report (to print)")
    page.wait_for_selector("text=Note: looks odd")
    assert page.locator("table tbody tr").count() == 2
    assert violations_in_all_looks(page, axe) == {}

    page.goto(case)
    page.click("button[aria-label='Take out: clip.webm']")
    page.wait_for_selector(".case__line >> nth=1", state="detached")
    page.click("text=Add from the history")
    page.click("button[aria-label='Add: clip.webm']")
    page.wait_for_selector("button[aria-label='Take out: clip.webm']")
    page.click("text=Delete case")
    page.check(".dialog input[type=checkbox]")
    page.click(".dialog .button--danger")
    page.wait_for_selector("text=There are no cases yet.")
    assert list(parts.store.files()) == []


def test_a_case_goes_on_looking_for_results_after_a_pause_and_a_failure(
    open_page: Open, photo: Give, release: threading.Event
) -> None:
    page = open_page()
    page.clock.install()
    page.goto(f"{page.url}cases")
    page.fill("input[name=title]", "Waiting")
    page.click("text=Open a case")
    page.wait_for_selector("h1:has-text('Waiting')")
    page.set_input_files("#case-files", [photo("portrait-held.jpg")])
    page.wait_for_selector(".case__line")
    asked: list[str] = []

    def refuse(route: Any) -> None:
        asked.append(route.request.url)
        route.abort()

    def go_on(times: int) -> None:
        for _ in range(times):
            page.clock.run_for(POLL_MS)
            page.wait_for_timeout(100)  # for an answer

    page.focus("textarea[name=notes]")
    go_on(2)
    page.route("**/api/cases/*", refuse, times=1)
    page.evaluate("document.activeElement.blur()")
    for _ in range(100):
        go_on(1)
        if asked:
            break
    go_on(2)
    assert len(asked) == 1
    release.set()
    page.wait_for_selector(".case__line .chip[data-tone=fake]")


def test_a_result_is_put_into_a_case(open_page: Open, photo: Give) -> None:
    page = open_page()
    page.set_input_files("#file", [photo("portrait.jpg")])
    page.wait_for_selector(".verdict")
    page.click("text=Put into a case")
    page.fill("input[name=title]", "First")
    page.click("text=Open a case")
    page.wait_for_selector(".case__line:has-text('portrait.jpg')")


def test_a_server_that_goes_away_is_told_once_and_what_is_left_can_be_sent_again(open_page: Open, photo: Give) -> None:
    page = open_page("cases")
    page.fill("input[name=title]", "Away")
    page.click("text=Open a case")
    page.wait_for_selector("#case-files", state="attached")
    page.route("**/api/detect", lambda route: route.abort(), times=1)
    page.set_input_files("#case-files", [photo("portrait.jpg"), photo("real-portrait.jpg")])
    page.wait_for_selector("text=Not in this case yet: portrait.jpg, real-portrait.jpg")
    assert page.locator(".case__add .problem").count() == 1
    page.click("button:text-is('Try again')")
    page.wait_for_selector(".case__line >> nth=1")
    assert page.locator(".case__add .problem").count() == 0
