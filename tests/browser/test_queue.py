"""Several files at once: waiting, cancelling, trying again, what a busy or refusing server says, and near copies."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import sqlalchemy as sa

from tests.browser.test_axe import violations_in_all_looks
from tests.browser.test_flow import FAKE, Give, Open, analyse, until
from tests.web_app.helpers import wait_until
from web_app.db.models import JobRow, JobState
from web_app.services import Services


def test_several_files_one_is_cancelled_and_events_fall_back_to_polling(open_page: Open, photo: Give) -> None:
    page = open_page()
    page.wait_for_load_state()
    page.route("**/events", lambda route: route.fulfill(status=404))  # a proxy swallows the events
    page.set_input_files("#file", [photo("held.jpg")])
    page.wait_for_selector(".item[data-state=active]:has-text('held') >> text=The networks examine the faces, 60")
    for name in ("open.jpg", "landscape.jpg"):  # of the same person in another window
        assert page.request.post(f"{page.url}api/detect?wait=0", multipart={"file": photo(name)}).status == 202
    page.set_input_files("#file", [photo("late.jpg"), photo("portrait.jpg")])
    late = page.locator(".item", has_text="late.jpg")
    late.locator("text=2 files ahead in the queue").wait_for()
    late.locator("text=Cancel").click()
    page.wait_for_selector(".item[data-state=cancelled]:has-text('late')")
    page.click(".item:has-text('held') >> text=Cancel")
    page.wait_for_selector(".item[data-state=done]:has-text('portrait')")
    assert page.inner_text(".verdict__title") == FAKE


def test_a_file_that_was_sent_before_is_answered_at_once(open_page: Open, photo: Give) -> None:
    page = open_page()
    analyse(page, photo("portrait.jpg"), photo("landscape.jpg"))
    until(page, "document.querySelectorAll('.item[data-state=done]').length === 2")
    shown = page.inner_text(".verdict__title")
    with page.expect_response("**/api/detect") as answer:
        page.set_input_files("#file", [photo("landscape.jpg")])
    assert (answer.value.status, answer.value.headers["idempotency-replayed"]) == (200, "true")
    until(page, "document.querySelectorAll('.item[data-state=done]').length === 3")
    assert page.inner_text(".verdict__title") == shown  # a result stays until another one is asked for
    page.locator(".item >> nth=-1").locator("text=Show result").click()
    assert page.inner_text(".verdict__title") == "No face found"
    assert page.evaluate("document.activeElement.className") == "verdict__title"


def test_upload_and_running_analysis_are_cancelled(open_page: Open, photo: Give) -> None:
    page = open_page()
    page.wait_for_load_state()
    held: list[Any] = []
    page.route("**/api/detect", lambda route: held.append(route))  # the upload never ends
    page.set_input_files("#file", [photo("portrait.jpg")])
    page.wait_for_selector(".item[data-state=active]")
    while not held:
        page.wait_for_timeout(20)
    page.click("text=Cancel")
    page.wait_for_selector(".item[data-state=cancelled]")
    page.unroute("**/api/detect")
    page.click("text=Try again")
    page.wait_for_selector(".verdict")

    page.set_input_files("#file", [photo("held.jpg")])
    running = page.locator(".item", has_text="held.jpg")
    running.locator("text=The networks examine the faces, 60").wait_for()
    assert running.locator(".progress").get_attribute("aria-valuenow") == "60"
    running.locator("text=Cancel").click()
    page.wait_for_selector(".item[data-state=cancelled]:has-text('held')")
    known = page.request.get(f"{page.url}api/history").json()["items"]
    assert {entry["name"]: entry["state"] for entry in known} == {"held.jpg": "cancelled", "portrait.jpg": "done"}


def test_analysis_that_ends_before_it_is_cancelled_is_shown(
    parts: Services, release: threading.Event, open_page: Open, photo: Give
) -> None:
    page = open_page()
    page.wait_for_load_state()
    refused: list[int] = []

    def end_first(route: Any) -> None:
        if route.request.method == "DELETE":
            release.set()
            wait_until(lambda: _states(parts) == [JobState.DONE])
        route.continue_()

    page.route("**/api/jobs/*", end_first)
    page.on("response", lambda answer: refused.append(answer.status) if answer.request.method == "DELETE" else None)
    page.set_input_files("#file", [photo("held.jpg")])
    page.click(".item:has-text('The networks examine') >> text=Cancel")
    page.wait_for_selector(".verdict")
    assert refused == [409]


def _states(parts: Services) -> list[str]:
    with parts.database.read() as session:
        return list(session.scalars(sa.select(JobRow.state)))


def test_a_refusal_by_length_in_the_words_of_a_server_is_understood(open_page: Open, photo: Give) -> None:
    page = open_page()
    page.wait_for_load_state()
    refusal = {"status": 413, "content_type": "text/plain", "body": "Request Entity Too Large"}
    page.route("**/api/detect", lambda route: route.fulfill(**refusal))
    page.set_input_files("#file", [photo("portrait.jpg")])
    page.wait_for_selector(".item[data-state=failed] >> text=The server does not take a file of this size.")


def test_busy_server_is_asked_again_when_it_says(
    parts: Services, release: threading.Event, open_page: Open, photo: Give
) -> None:
    page = open_page()
    analyse(page, photo("open.jpg"))  # how long it took is what the server tells others to wait
    parts.queue.settings = dataclasses.replace(parts.queue.settings, max_waiting=1)
    page.set_input_files("#file", [photo("held.jpg")])
    page.wait_for_selector(".item:has-text('held') >> text=The networks examine the faces, 60")
    assert page.request.post(f"{page.url}api/detect?wait=0", multipart={"file": photo("landscape.jpg")}).status == 202
    page.set_input_files("#file", [photo("portrait.jpg")])
    page.wait_for_selector("text=The server is busy; trying again in 1 second")
    release.set()
    until(page, "document.querySelectorAll('.item[data-state=done]').length === 3")


def test_dropped_and_pasted_pictures_are_taken(open_page: Open) -> None:
    page = open_page()
    carry = """(kind) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(9)], `${kind}.exe`));
        const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(carry, kind)
        page.wait_for_selector(f".item:has-text('{kind}.exe')")


def test_the_page_asks_before_waiting_files_are_lost(open_page: Open, photo: Give) -> None:
    page = open_page()
    page.wait_for_load_state()
    asks = """() => { const leave = new Event("beforeunload", { cancelable: true });
                      window.dispatchEvent(leave); return leave.defaultPrevented; }"""
    assert not page.evaluate(asks)
    page.set_input_files("#file", [photo("held.jpg")])  # alone, or another one may come first
    page.wait_for_selector(".item:has-text('held') >> text=The networks examine the faces, 60")
    page.set_input_files("#file", [photo("open.jpg"), photo("portrait.jpg")])
    page.wait_for_selector(".item:has-text('open') >> text=in the queue")
    assert page.evaluate(asks)  # these two have their jobs, the third waits
    page.locator(".item", has_text="portrait").get_by_role("button").click()
    until(page, "document.querySelectorAll('.item').length === 2")
    assert not page.evaluate(asks)


def test_a_near_copy_is_named_below_the_result(open_page: Open, photo: Give, axe: str) -> None:
    page = open_page()
    page.set_input_files("#file", [photo("portrait.jpg")])
    page.wait_for_selector(".verdict")
    page.click("text=The verdict is incorrect")
    page.wait_for_selector(".feedback__thanks")
    page.click("text=Permanent link")
    page.wait_for_selector(".verdict")
    assert page.locator(".seen:visible").count() == 0
    copy = {**photo("portrait.jpg"), "name": "copy.jpg"}
    page.click("nav >> text=Analyse")
    page.wait_for_selector("#file", state="attached")
    page.wait_for_load_state("load")  # its module listens from then on
    page.set_input_files("#file", [{**copy, "buffer": copy["buffer"] + b"another end"}])
    page.wait_for_selector(".seen:visible")
    told = page.inner_text(".seen")
    assert "portrait.jpg" in told
    assert "The whole looks the same" in told
    assert "You said it is genuine" in told
    assert violations_in_all_looks(page, axe) == {}
    page.click(".seen a")
    page.wait_for_selector(".seen:visible:has-text('copy.jpg')")
