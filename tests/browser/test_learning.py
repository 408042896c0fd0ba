"""The pages of the learning over a real server: a word is given, reviewed, learned, and the version rolled back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.browser.test_axe import violations_in_all_looks
from tests.web_app.feedback.hand_in import hand_in_worker, say, wait_for_state
from tests.web_app.helpers import accept_weights, make_settings
from utils.config import LearningSettings, WeightsSettings
from utils.weights import publish_version, set_current
from web_app.app import create_app
from web_app.services import EXTENSION


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    root = tmp_path / "weights"
    documents: dict[str, dict[str, Any]] = {"calibration": {}, "card": {"made": "2026-01-02"}}
    for name in ("v0", "v1"):
        publish_version(root, name, {"gate": {}}, documents)
    set_current(root, "v1")
    settings = dataclasses.replace(
        make_settings(tmp_path), weights=WeightsSettings(dir=str(root)), learning=LearningSettings(enough="moderator")
    )
    built = create_app(settings, verify=accept_weights)
    with hand_in_worker(settings):
        built.config["WAITING"] = say(built.test_client(), "fake", "real")[0]
        yield built
    built.extensions[EXTENSION].close()


def test_review_train_and_roll_back(app: Flask, open_page: Callable[..., Any], axe: str) -> None:
    page = open_page("review")
    page.wait_for_selector(".case")
    assert "User 1 says: genuine" in page.inner_text(".case")
    assert violations_in_all_looks(page, axe) == {}
    page.click("text=Accept: genuine")
    page.wait_for_selector("text=Nothing is here.")
    wait_for_state(app.test_client(), app.config["WAITING"], "accepted")
    page.select_option("select[name=state]", "accepted")
    page.wait_for_selector("text=A moderator accepted: genuine.")

    page.goto(page.url.split("review")[0] + "learning")
    assert page.inner_text("h1") == "Model learning progress"
    assert page.inner_text("#count-accepted") == "1"
    page.route("**/api/rl/retrain/*", _with_voices)
    page.click("#train")
    promoted = "Version cand-1 passed the test and is used from now on. because"
    rejected = "Version s1-r0001 did not pass the test and is kept for inspection only. too few"
    page.wait_for_selector(f"text={promoted} {rejected}")
    assert page.inner_text("#count-trainings") == "1"
    assert page.locator(".golden circle").count() == 6
    assert violations_in_all_looks(page, axe) == {}
    page.click("#train")
    page.wait_for_selector("text=Code nothing_new")
    page.click("text=Serve this version")
    page.wait_for_selector("text=Version v0 answers now.")
    assert json.loads(page.evaluate("fetch('api/rl/versions').then((r) => r.text())"))["items"][0]["current"] is True
    page.click("text=Go back to the version of faces before")
    page.wait_for_selector("text=Version v1 answers now.")


def _with_voices(route: Any) -> None:
    """As a training answers that had voices to learn from, too."""
    answer = route.fetch()
    job = answer.json()
    if job["result"]:
        job["result"]["speech"] = {"promoted": False, "version": "s1-r0001", "reason": "too few"}
    route.fulfill(response=answer, json=job)


def test_a_reader_without_the_right_sees_no_review(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/review").status_code == 200
    assert client.get("/review", environ_base={"REMOTE_ADDR": "203.0.113.7"}).status_code == 403
    page = client.get("/learning", environ_base={"REMOTE_ADDR": "203.0.113.7"}).get_data(as_text=True)
    assert 'id="train"' not in page
    assert "/review" not in page
