"""The pages in a real browser over the real server: from choosing a file to verdict, feedback, history and deletion."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.media import make_photo

Give = Callable[[str], dict[str, Any]]
Open = Callable[..., Any]
FAKE = "Substantial evidence of manipulation"


def analyse(page: Any, *files: dict[str, Any]) -> None:
    """Choose files and wait for the first result."""
    page.wait_for_load_state()  # the scripts that listen to the input are there
    page.set_input_files("#file", list(files))
    page.wait_for_selector(".verdict")


def until(page: Any, expression: str) -> None:
    """Wait for a JavaScript expression to become true; Playwright's own way needs `unsafe-eval`, which we forbid."""
    deadline = time.monotonic() + 60
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"still not true: {expression}"
        page.wait_for_timeout(50)


def sideways(page: Any) -> int:
    """By how many pixels the page is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_photo_of_two_people_from_upload_to_feedback(open_page: Open, photo: Give) -> None:
    page = open_page()
    assert "up to 1 MB" in page.inner_text("#limits")
    analyse(page, photo("portrait.jpg"))
    assert page.inner_text(".verdict__title") == FAKE
    assert page.inner_text(".verdict__number strong") == "93\u00a0%"
    assert "86 to 97" in page.inner_text(".verdict__meaning")
    assert page.locator(".verdict .reasons li").count() == 2
    assert page.inner_text("#live") == f"portrait.jpg: {FAKE}"

    assert page.inner_text(".face:visible .face__name") == "Person 1"
    assert page.locator(".face:visible .expert").count() == 4
    missing = page.locator(".face:visible .expert--missing")
    assert "BiLSTM" in missing.inner_text()
    assert "a photo has none" in missing.inner_text()
    page.focus(".box[data-face='1']")
    page.keyboard.press("Enter")
    assert page.inner_text(".face:visible .face__name") == "Person 2"
    assert page.get_attribute(".box[data-face='1']", "aria-pressed") == "true"
    page.focus("[role=tab][aria-selected=true]")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".face:visible .face__name") == "Person 1"

    page.fill("#feedback-note", "Known from the agency.")
    page.click("text=The verdict is incorrect")
    page.wait_for_selector(".feedback__thanks")
    page.click("text=Permanent link")
    page.wait_for_selector(".verdict")
    assert "You marked this verdict as incorrect." in page.inner_text(".feedback__thanks")
    assert page.title() == "portrait.jpg · Telltale"


def test_boxes_lie_on_the_faces(open_page: Open, photo: Give) -> None:
    page = open_page()
    analyse(page, photo("portrait.jpg"))
    picture = page.locator(".stage img").bounding_box()
    box = page.locator(".box[data-face='1'] .box__rect").bounding_box()
    scale = picture["width"] / 960
    assert picture["height"] == pytest.approx(512 * scale, abs=1)
    assert box["x"] - picture["x"] == pytest.approx(684 * scale, abs=4)
    assert box["y"] - picture["y"] == pytest.approx(62 * scale, abs=4)
    assert box["width"] == pytest.approx(102 * scale, abs=6)


def test_clip_with_timeline_that_jumps_and_boxes_that_follow(open_page: Open, clip: Give) -> None:
    page = open_page()
    analyse(page, clip("clip.webm"))
    until(page, "document.querySelector('.stage video').readyState >= 2")
    assert page.locator(".plot__face--selected .plot__dot").count() == 16
    dots, span = page.locator(".plot__face--selected .plot__dot"), page.locator(".plot__span").bounding_box()
    within = [i for i in range(16) if span["x"] < dots.nth(i).bounding_box()["x"] + 4 < span["x"] + span["width"]]
    assert within == [4, 5, 6, 7, 8, 9]  # of one every quarter of a second, from 1 to 2.5 s
    assert page.is_visible(".timeline__spans")
    before = page.locator(".box[data-face='0'] .box__rect").bounding_box()["x"]
    page.focus(".plot")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.get_attribute(".plot", "aria-valuenow") == "4"
    until(page, "Math.abs(document.querySelector('.stage video').currentTime - 0.875) < 0.01")
    # the box follows once the frame is there, a moment after the time is
    until(
        page, f"""document.querySelector(".box[data-face='0'] .box__rect").getBoundingClientRect().x < {before - 5}"""
    )
    area = page.locator(".plot").bounding_box()
    page.mouse.click(area["x"] + area["width"] - 12, area["y"] + 30)
    assert page.get_attribute(".plot", "aria-valuenow") == "16"
    page.click("[role=tab] >> text=Person 2")
    assert "Person 2" in page.inner_text(".plot__readout")
    assert page.locator(".plot__span").count() == 0
    assert page.is_hidden(".timeline__spans")


def test_open_verdict_asks_for_the_truth_and_no_face_asks_nothing(open_page: Open, photo: Give) -> None:
    page = open_page()
    analyse(page, photo("open.jpg"))
    assert page.inner_text(".verdict__title") == "Inconclusive"
    assert "saved several times" in page.inner_text(".verdict__lists")
    page.click("text=It is genuine")
    assert "You marked this file as genuine." in page.inner_text(".feedback__thanks")
    page.click("text=Change my answer")
    page.click("text=It is manipulated")
    assert "as manipulated" in page.inner_text(".feedback__thanks")

    page = open_page()
    analyse(page, photo("landscape.jpg"))
    assert page.inner_text(".verdict__title") == "No face found"
    assert page.locator(".feedback, .gauge, .verdict__number").count() == 0


def test_refused_files_say_which_rule_and_what_to_do(open_page: Open, broken: dict[str, Any]) -> None:
    page = open_page()
    files = [
        {"name": "notes", "mimeType": "", "buffer": b"just words"},
        {"name": "empty.png", "mimeType": "image/png", "buffer": b""},
        {"name": "huge.mp4", "mimeType": "video/mp4", "buffer": bytes(2_000_001)},
        {"name": "small.jpg", "mimeType": "image/jpeg", "buffer": make_photo((40, 20))},
        broken,
    ]
    page.set_input_files("#file", files)
    until(page, "document.querySelectorAll('.item[data-state=failed]').length === 5")
    texts = page.locator(".item").all_inner_texts()
    for text, code, words in zip(
        texts,
        ("unsupported_media", "empty", "media_too_large", "media_dimensions", "media_corrupt"),
        ("JPEG, PNG, WebP", "another copy", "at most 1.0 MB", "40 × 20", "Open it in a viewer"),
        strict=True,
    ):
        assert f"Code {code}" in text
        assert words in text
    assert page.locator(".item >> text=Try again").count() == 0  # nothing of this can change


def test_history_filters_and_deletes(open_page: Open, photo: Give, clip: Give) -> None:
    page = open_page()
    page.set_input_files("#file", [photo("portrait.jpg"), photo("landscape.jpg"), clip("clip.webm")])
    until(page, "document.querySelectorAll('.item[data-state=done]').length === 3")
    page.click("nav >> text=History")
    page.wait_for_selector(".entries tbody tr")
    assert page.locator(".entries tbody tr").count() == 3
    page.select_option("select[name=kind]", "video")
    until(page, "document.querySelectorAll('.entries tbody tr').length === 1")
    assert page.url.endswith("history?kind=video")
    page.reload()
    page.wait_for_selector(".entries tbody tr")
    assert page.locator(".entries tbody tr").count() == 1
    page.go_back()
    until(page, "document.querySelectorAll('.entries tbody tr').length === 3")

    page.click("[aria-label='Delete: portrait.jpg']")
    page.keyboard.press("Escape")
    assert page.locator(".entries tbody tr").count() == 3
    page.click("[aria-label='Delete: portrait.jpg']")
    page.click("dialog >> text=Delete >> nth=-1")
    until(page, "document.querySelectorAll('.entries tbody tr').length === 2")
    assert page.inner_text("#live") == "portrait.jpg was deleted."


def test_what_can_be_saved_and_what_deleting_leaves(
    open_page: Open, photo: Give, clip: Give, broken: dict[str, Any]
) -> None:
    page = open_page()
    analyse(page, photo("portrait.jpg"), clip("clip.webm"), broken)
    until(page, "document.querySelectorAll('.item[data-state=done]').length === 2")
    page.wait_for_selector(".item[data-state=failed]")
    table = page.request.get(str(page.locator("#queue-csv:visible").evaluate("a => a.href"))).text()
    assert ("portrait.jpg" in table, "clip.webm" in table, "broken.jpg" in table) == (True, True, False)
    page.click(".item:has-text('portrait.jpg') >> text=Show result")
    until(page, "document.querySelector('.stage img')?.naturalWidth === 960")
    page.click("text=The verdict is correct")
    page.wait_for_selector(".feedback__thanks")
    page.click("text=Permanent link")
    page.wait_for_selector(".feedback__thanks")
    assert "You marked this verdict as correct." in page.inner_text(".feedback__thanks")

    saved = {}
    for name in ("to print", "PDF", "JSON"):
        answer = page.request.get(str(page.locator(f".actions a:has-text('Report ({name})')").evaluate("a => a.href")))
        disposition = answer.headers["content-disposition"].split(";")[0]
        saved[name] = (answer.status, answer.headers["content-type"], disposition)
    assert saved == {
        "to print": (200, "text/html; charset=utf-8", "inline"),
        "PDF": (200, "application/pdf", "attachment"),
        "JSON": (200, "application/json", "attachment"),
    }

    page.click("text=Delete")
    page.click("dialog >> text=Delete >> nth=-1")
    page.wait_for_selector("text=This analysis was deleted.")
    page.reload()
    page.wait_for_selector("text=Code not_found")
    page.click("nav >> text=History")
    page.wait_for_selector(".entries tbody tr")
    assert page.locator(".entries tbody tr").count() == 2
    page.select_option("select[name=kind]", "video")
    page.wait_for_selector("#csv[href*='kind=video']")
    table = page.request.get(str(page.locator("#csv").evaluate("a => a.href"))).text()
    assert ("clip.webm" in table, "broken.jpg" in table) == (True, False)
    page.select_option("select[name=kind]", "")
    page.click("text=broken.jpg")
    page.wait_for_selector("text=Code media_corrupt")
    assert page.inner_text(".dead-end h2") == "This file could not be analysed"


def test_unknown_detection_is_told(open_page: Open) -> None:
    page = open_page("detections/missing")
    page.wait_for_selector(".problem")
    assert "Code not_found" in page.inner_text(".problem")
    assert page.inner_text(".dead-end h2") == "There is no such analysis"
    page.click("text=Go to the history")
    page.wait_for_selector(".empty")


def test_theme_follows_the_system_and_the_switch_is_remembered(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    assert page.get_attribute("#theme-switch", "aria-pressed") == "true"
    page.click("#theme-switch")
    light = page.evaluate(colour)
    assert light != dark
    page.click("nav >> text=History")
    page.wait_for_selector(".empty")
    assert page.evaluate(colour) == light
    assert page.get_attribute("#theme-switch", "aria-pressed") == "false"


def test_keyboard_alone_reaches_everything_in_order(open_page: Open, photo: Give) -> None:
    page = open_page()
    choosers: list[Any] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    seen = []
    while len(seen) < 15 and "Choose files" not in seen:
        page.keyboard.press("Tab")
        seen.append(page.evaluate("(document.activeElement.textContent.trim() || document.activeElement.id)"))
    assert seen[:3] == ["Skip to content", "Telltale", "Analyse"]
    assert "History" in seen
    assert seen[-2:] == ["theme-switch", "Choose files"]
    with page.expect_file_chooser():
        page.keyboard.press("Enter")
    choosers[0].set_files([photo("portrait.jpg")])
    page.wait_for_selector(".verdict")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == "The verdict is correct":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".feedback__thanks")


OVERLAPPING = """[...document.querySelectorAll(".entries tbody tr")].filter((row) => {
  const [one, other] = [".chip", ".entries__number"].map((part) => row.querySelector(part).getBoundingClientRect());
  return one.right > other.left && other.right > one.left && one.bottom > other.top && other.bottom > one.top;
}).length"""


@pytest.mark.parametrize("width", [320, 390])
def test_narrow_pages_do_not_scroll_sideways(open_page: Open, broken: dict[str, Any], clip: Give, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 640})
    assert sideways(page) == 0
    analyse(page, clip("clip-with-a-very-long-name-" + "x" * 80 + ".webm"), broken)
    page.wait_for_selector(".item[data-state=failed]")
    page.click("summary")
    assert sideways(page) == 0
    page.click("nav >> text=History")
    page.wait_for_selector(".entries tbody tr")
    assert sideways(page) == 0
    assert page.evaluate(OVERLAPPING) == 0
