"""Near copies below a result: which, how they are alike, and what was said of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.browser.test_axe import violations_in_all_looks

Open = Callable[..., Any]
Give = Callable[[str], dict[str, Any]]


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
