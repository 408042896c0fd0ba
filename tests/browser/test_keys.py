"""The pages of a server that asks for keys: signing in, what a key does not allow, signing out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_axe import violations_in_all_looks
from tests.web_app.helpers import make_settings
from utils.config import SecuritySettings, Settings
from web_app.auth.keys import create_key
from web_app.services import Services

Open = Callable[..., Any]
Give = Callable[[str], dict[str, Any]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(keys="on"))


def open_signed_in(open_page: Open, parts: Services, *scopes: str) -> Any:
    """A page of somebody with a key of these scopes."""
    page = open_page("login")
    sign_in(page, create_key(parts.database, "test", scopes))
    page.wait_for_selector("#file", state="attached")
    page.wait_for_load_state("load")  # its module listens from then on
    return page


def sign_in(page: Any, key: str) -> None:
    page.fill("input[name=key]", key)
    page.press("input[name=key]", "Enter")


def test_signing_in_analysing_and_signing_out(
    open_page: Open, parts: Services, photo: Give, address: str, axe: str
) -> None:
    key = create_key(parts.database, "desk", ["analyse", "feedback"])
    page = open_page("history")
    assert page.url == f"{address}login?next=/history"
    assert violations_in_all_looks(page, axe) == {}
    sign_in(page, "tt_wrong")
    page.wait_for_selector("[role=alert]")
    assert "This key is not valid" in page.inner_text("[role=alert]")
    sign_in(page, key)
    page.wait_for_selector(".empty")
    assert page.url == f"{address}history"

    page.click("nav >> text=Analyse")
    page.wait_for_url(address)
    page.wait_for_load_state("load")  # its module listens from then on
    page.set_input_files("#file", [photo("photo.jpg")])
    page.wait_for_selector(".verdict")
    page.click("text=The verdict is correct")
    page.wait_for_selector(".feedback__thanks")
    assert re.search(r"waits for \d more users? who says? the same, or for a moderator", page.inner_text(".feedback"))
    page.click("text=Permanent link")
    page.wait_for_selector(".feedback__thanks")
    result = page.url

    page.click("text=Sign out")
    page.wait_for_selector("input[name=key]")
    page.goto(result)
    sign_in(page, key)
    page.wait_for_selector(".feedback__thanks")
    assert page.url == result


def test_another_key_sees_nothing_of_it(open_page: Open, parts: Services, photo: Give) -> None:
    page = open_signed_in(open_page, parts, "analyse")
    page.set_input_files("#file", [photo("photo.jpg")])
    page.wait_for_selector(".verdict")
    page.click("text=Permanent link")
    page.wait_for_selector(".verdict")

    other = open_signed_in(open_page, parts, "analyse")
    other.goto(page.url)
    other.wait_for_selector("text=There is no page here")
    other.click("nav >> text=History")
    other.wait_for_selector(".empty")


def test_what_a_key_does_not_allow_is_refused_and_told(
    open_page: Open, parts: Services, photo: Give, address: str
) -> None:
    page = open_signed_in(open_page, parts, "feedback")
    assert page.locator("nav >> text=Review").count() == 0
    page.set_input_files("#file", [photo("photo.jpg")])
    page.wait_for_selector("text=Ask whoever runs this server for a key with this scope.")
    page.goto(f"{address}cases")
    page.wait_for_selector("text=Code forbidden")
    assert page.inner_text("h1") == "Cases"
    answers = [page.request.get(f"{address}{path}").status for path in ("review", "api/rl/review", "metrics")]
    assert answers == [403, 403, 403]

    moderator = open_signed_in(open_page, parts, "analyse", "moderate")
    moderator.click("nav >> text=Review")
    moderator.wait_for_selector("h1:has-text('Review')")
    assert moderator.request.get(f"{address}api/rl/review").status == 200
