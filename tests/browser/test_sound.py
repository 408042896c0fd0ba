"""A recording on the page: player, form of the sound with its windows, feedback; and a video with a voice."""

from __future__ import annotations

from typing import Any

from tests.browser.media import make_clip
from tests.browser.reports import VOICED
from tests.browser.test_axe import violations_in_all_looks
from tests.browser.test_flow import Open, until
from tests.hostile.attacks import seeds


def upload(page: Any, file: dict[str, Any]) -> None:
    page.set_input_files("#file", [file])
    page.wait_for_selector(".verdict")


def test_a_recording_is_played_answered_and_found_in_the_history(open_page: Open, axe: str) -> None:
    page = open_page()
    sound = seeds.recording("mp3", seeds.chord(44100, 4.0))
    upload(page, {"name": "memo.mp3", "mimeType": "audio/mpeg", "buffer": sound})
    until(page, "(document.querySelector('.wave__form')?.getAttribute('d') || '').length > 1000")
    assert "voice in this recording" in page.inner_text(".eyebrow").lower()
    until(page, "document.querySelector('.sound audio').duration > 3.9")
    assert page.locator(".wave__score[data-tone='fake']").count() == 3
    assert page.locator(".wave__window").count() == 1, "windows that overlap are one stretch"
    assert "0:00.0 to 0:04.0" in page.inner_text(".voice")
    assert page.locator(".faces, .stage").count() == 0

    page.focus(".plot")
    page.keyboard.press("ArrowRight")
    until(page, "Math.abs(document.querySelector('.sound audio').currentTime - 2) < 0.1")
    assert page.get_attribute(".plot", "aria-valuenow") == "2"
    assert violations_in_all_looks(page, axe) == {}

    assert "teach the next version" in page.inner_text(".feedback")
    page.click("text=The verdict is incorrect")
    page.wait_for_selector(".feedback__thanks")
    page.goto(page.url.split("/desk/")[0] + "/desk/history?kind=audio")
    page.wait_for_selector(".entries__preview img")
    until(page, "document.querySelector('.entries__preview img').naturalWidth > 100")
    assert page.locator(".entries tbody tr").count() == 1
    page.goto(page.url.replace("history?kind=audio", "review?state=all"))
    page.wait_for_selector(".case__media audio")
    until(page, "document.querySelector('.case__media audio').duration > 3.9")


def test_lists_say_what_faces_and_voice_say_together_and_no_number_of_the_faces_beside_it(open_page: Open) -> None:
    page = open_page()
    clip = make_clip() + VOICED + b"|bystander|"
    upload(page, {"name": "clip.webm", "mimeType": "video/webm", "buffer": clip})
    assert page.get_attribute(".verdict", "data-tone") == "real"
    assert page.get_attribute(".queue__list .chip", "data-tone") == "fake"
    page.goto(page.url.split("/desk/")[0] + "/desk/history")
    page.wait_for_selector(".entries .chip[data-tone=fake]")
    assert page.inner_text(".entries__number") == "–"
    page.click(".entries tbody button[aria-expanded=false]")
    assert page.locator(".versions .chip").get_attribute("data-tone") == "fake"


def test_a_video_shows_faces_and_voice_and_one_line_for_both(open_page: Open, axe: str) -> None:
    page = open_page()
    clip = make_clip() + VOICED
    upload(page, {"name": "clip.webm", "mimeType": "video/webm", "buffer": clip})
    assert page.get_attribute(".overall", "data-tone") == "fake"
    assert "the voice sounds recorded" in page.inner_text(".overall__line")
    assert "faces in this video" in page.inner_text(".verdict .eyebrow").lower()
    assert page.locator(".side .faces").count() == page.locator(".side .voice").count() == 1
    assert page.locator(".voice .chip").get_attribute("data-tone") == "real"
    assert "about the faces" in page.inner_text(".feedback")
    voice = page.locator("section[aria-labelledby=voice-feedback-title]")
    assert "about the voice" in voice.inner_text()
    assert violations_in_all_looks(page, axe) == {}
    voice.locator("text=The verdict is incorrect").click()
    voice.locator(".feedback__thanks").wait_for()
    page.click("text=Permanent link")
    voice.locator(".feedback__thanks").wait_for()
    assert page.locator(".feedback__thanks").count() == 1
    voice.locator("text=Undo").click()
    voice.locator("text=The verdict is incorrect").wait_for()
