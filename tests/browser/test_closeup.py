"""A closer look at a face: asked for, followed, shown over the picture, and greyed out where a map means nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from tests.browser.test_flow import Give, Open, analyse, until
from web_app.db.models import DetectionRow
from web_app.services import Services

HEAT = "document.querySelector('.heat')"


def look_closer(page: Any, *files: dict[str, Any]) -> None:
    """Analyse and ask for the closer look at the deciding face."""
    analyse(page, *files)
    page.click(".face:visible .closeup >> text=Look closer")
    page.wait_for_selector(".face:visible .closeup__maps")


def test_heatmap_with_its_worth_and_what_flips_the_verdict(open_page: Open, photo: Give) -> None:
    page = open_page()
    look_closer(page, photo("portrait.jpg"))
    assert page.inner_text("#live") == "The closer look is ready."
    assert page.evaluate(f"{HEAT}.hasAttribute('hidden')")
    assert page.is_disabled(".face:visible input[type=range]")

    page.check(".face:visible .choice:has-text('ViT') input")
    until(page, f"!{HEAT}.hasAttribute('hidden')")
    assert "(9 of 9 tries)" in page.inner_text(".face:visible .closeup__worth")
    picture = page.locator(".stage img").bounding_box()
    heat = page.locator(".heat__colour").bounding_box()
    scale = picture["width"] / 960
    assert abs(heat["x"] - picture["x"] - 174 * scale) < 2
    assert abs(heat["width"] - 102 * scale) < 2
    page.locator(".face:visible input[type=range]").press("End")
    assert page.evaluate("document.querySelector('.heat__colour').style.opacity") == "1"

    page.check(".face:visible .choice:has-text('ResNeXt') input")
    assert "hardly more than hiding random places does (4 of 9" in page.inner_text(".face:visible .closeup__worth")
    assert page.is_disabled(".face:visible input[type=range]")
    assert page.evaluate(f"{HEAT}.hasAttribute('hidden')")
    page.check(".face:visible .choice:has-text('CNN') input")
    assert "no map" in page.inner_text(".face:visible .closeup__worth")

    rows = page.locator(".face:visible .closeup__stability tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == [
        "As it is",
        "Saved again as JPEG of quality 50",
        "Scaled to half its size",
    ]
    assert "Inconclusive" in rows[1]
    assert "The verdict changes under one" in page.inner_text(".face:visible .closeup__stability")
    assert page.locator(".closeup__lips").count() == 0, "a picture has no sound"

    page.click("text=Permanent link")  # it survives a reload, and belongs to one face
    page.wait_for_selector(".face:visible .closeup__maps")
    page.click("[role=tab] >> text=Person 2")
    page.wait_for_selector(".face:visible .closeup >> text=Look closer")


def test_map_of_a_clip_is_shown_at_its_frame_only(open_page: Open, clip: Give) -> None:
    page = open_page()
    look_closer(page, clip("clip.webm"))
    until(page, "document.querySelector('.stage video').readyState >= 2")
    page.check(".face:visible .choice:has-text('ViT') input")
    until(page, f"!{HEAT}.hasAttribute('hidden')")
    until(page, "Math.abs(document.querySelector('.stage video').currentTime - 2.125) < 0.06")
    page.locator(".plot").press("Home")
    until(page, f"{HEAT}.hasAttribute('hidden')")
    told = page.inner_text(".face:visible .closeup__lips")
    assert "The mouth does not move with the voice" in told
    assert "0.04, compared at 0.0 to 3.0 s, 7.0 to 10.0 s" in told


def test_feedback_is_taken_back_and_says_what_becomes_of_it(open_page: Open, photo: Callable[[str], Any]) -> None:
    page = open_page()
    analyse(page, photo("portrait.jpg"))
    page.fill("#feedback-note", "Known from the agency.")
    page.click("text=Say more about each person")
    page.select_option("select[name=face-1]", "real")
    page.click("text=The verdict is correct")
    page.wait_for_selector(".feedback__thanks")
    assert "It will be learned from at the next training." in page.inner_text(".feedback")
    page.click("text=Permanent link")
    page.wait_for_selector(".feedback__thanks")
    assert "Your note: Known from the agency." in page.inner_text(".feedback")
    page.click(".feedback >> text=Undo")
    page.wait_for_selector("text=The verdict is incorrect")
    assert page.inner_text("#live") == "Your answer was taken back."
    page.reload()
    page.wait_for_selector("text=The verdict is incorrect")
    assert page.locator(".feedback__thanks").count() == 0


def test_history_finds_compares_deletes_and_clears(parts: Services, open_page: Open, photo: Give, clip: Give) -> None:
    page = open_page()
    before = {**photo("portrait.jpg"), "name": "before.jpg"}
    assert page.request.post(f"{page.url}api/detect?wait=1", multipart={"file": before}).ok
    with parts.database.write() as session:  # as if by the networks of an earlier version
        session.execute(sa.update(DetectionRow).values(model_version="v-older", reuse_key=None))
    page.set_input_files("#file", [photo("portrait.jpg"), photo("landscape.jpg"), clip("clip.webm")])
    until(page, "document.querySelectorAll('.item[data-state=done]').length === 3")
    page.click("nav >> text=History")
    page.wait_for_selector(".entries tbody tr")
    assert "kept until you delete them" in page.inner_text(".retention")
    until(page, "[...document.querySelectorAll('.entries__preview img')].filter((i) => i.naturalWidth).length === 4")
    page.select_option("select[name=kind]", "video")
    until(page, "document.querySelectorAll('.entries tbody tr').length === 1")
    assert page.url.endswith("history?kind=video")
    page.reload()
    page.wait_for_selector(".entries tbody tr")
    assert page.locator(".entries tbody tr").count() == 1
    page.go_back()
    until(page, "document.querySelectorAll('.entries tbody tr').length === 4")
    page.fill("input[name=text]", "PORT")
    until(page, "document.querySelectorAll('.entries tbody tr').length === 1")
    assert page.url.endswith("history?text=PORT")
    page.click("[aria-label='Compare versions: portrait.jpg']")
    page.wait_for_selector(".versions li")
    assert "v-older" in page.inner_text(".versions")
    assert page.get_attribute("[aria-label='Compare versions: portrait.jpg']", "aria-expanded") == "true"
    page.fill("input[name=text]", "")
    until(page, "document.querySelectorAll('.entries tbody tr').length === 4")
    page.fill("input[name=since]", "2998-01-01")
    page.wait_for_selector(".empty")
    page.fill("input[name=since]", "")
    page.wait_for_selector(".entries tbody tr")
    page.click("[aria-label='Delete: portrait.jpg']")
    page.keyboard.press("Escape")
    assert page.locator(".entries tbody tr").count() == 4
    page.click("[aria-label='Delete: portrait.jpg']")
    page.click("dialog >> text=Delete >> nth=-1")
    until(page, "document.querySelectorAll('.entries tbody tr').length === 3")
    assert page.inner_text("#live") == "portrait.jpg was deleted."
    page.click("#clear")
    page.click("dialog >> text=Keep it")
    assert page.locator(".entries tbody tr").count() == 3
    page.click("#clear")
    page.click("dialog >> text=Delete everything")
    page.wait_for_selector(".empty")
    assert page.inner_text("#live") == "3 analyses were deleted."


def test_phone_offers_its_camera(open_page: Open, photo: Give) -> None:
    page = open_page(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 700})
    with page.expect_file_chooser() as chosen:
        page.click("text=Take a photo")
    assert page.get_attribute("#camera-photo", "capture") == "user"
    chosen.value.set_files([photo("portrait.jpg")])
    page.wait_for_selector(".verdict")


def test_model_page_tells_training_and_false_alarms(open_page: Open) -> None:
    page = open_page("model")
    assert page.inner_text("h1") == "The model"
    assert page.locator("h2").all_inner_texts()[:2] == ["Scorecard", "False alarms per real source"]
    assert page.locator(".expert-cards li").count() == 4
