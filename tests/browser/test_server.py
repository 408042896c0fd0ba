"""The pages over the real server with its queue and database; only the networks are replaced by canned reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.browser.canned_reports import REPORTS
from tests.web_app.helpers import accept_weights, make_settings, running_worker
from utils.errors import MediaCorruptError
from utils.media import decode_media, prepared_decoders
from utils.media.sniff import sniff
from utils.types import MediaKind, Report
from web_app.app import create_app
from web_app.db.models import COPY
from web_app.jobs.clean_copies import CleanCopies
from web_app.jobs.previews import keep_previews
from web_app.jobs.runner import Duties, Progress
from web_app.services import EXTENSION

Give = Callable[[str], dict[str, Any]]
DAMAGED = b"\xff\xd8\xff\xe0 nothing follows"


def canned_analyse(path: Path, progress: Progress) -> Report:
    """The canned report for a photo or a clip, after the stages that the real pipeline has."""
    content = path.read_bytes()
    for index, stage in enumerate(("decode", "detect", "experts", "decide")):
        progress(stage, index / 4)
    if content == DAMAGED:
        raise MediaCorruptError("No frame of the file could be decoded.")
    return REPORTS["clip" if sniff(content).kind is MediaKind.VIDEO else "portrait"]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    settings = make_settings(tmp_path)
    built = create_app(settings, verify=accept_weights)
    decoders = prepared_decoders()
    copies = CleanCopies(settings, lambda: decoders)

    def analyse(path: Path, progress: Progress) -> Report:
        report = canned_analyse(path, progress)
        keep_previews(path, decode_media(path, settings.media, settings.sandbox, decoders))
        copies.keep(path, report)
        return report

    with running_worker(settings, analyse, duties=Duties(in_turn={COPY: copies.handle})):
        yield built
    built.extensions[EXTENSION].close()
    if decoders is not None:
        decoders.close()


def test_flow_over_the_real_server(open_page: Callable[..., Any], photo: Give, clip: Give) -> None:
    page = open_page()
    damaged = {"name": "damaged.jpg", "mimeType": "image/jpeg", "buffer": DAMAGED}
    page.set_input_files("#file", [photo("photo.jpg"), clip("clip.webm"), damaged])
    page.wait_for_selector(".verdict")
    page.wait_for_selector(".item:has-text('clip.webm')[data-state=done]")
    page.wait_for_selector(".item:has-text('damaged.jpg')[data-state=failed]")
    assert "Code media_corrupt" in page.inner_text(".item[data-state=failed]")
    table = page.request.get(str(page.locator("#queue-csv:visible").evaluate("a => a.href"))).text()
    assert ("photo.jpg" in table, "clip.webm" in table, "damaged.jpg" in table) == (True, True, False)
    page.click(".item:has-text('clip.webm') >> text=Show result")
    page.wait_for_selector(".stage video")
    page.locator(".plot").press("End")
    assert page.get_attribute(".plot", "aria-valuenow") == "16"
    page.click(".item:has-text('photo.jpg') >> text=Show result")
    page.wait_for_selector(".stage img")
    page.wait_for_timeout(200)
    assert page.evaluate("document.querySelector('.stage img').naturalWidth") == 960

    page.click("text=The verdict is correct")
    page.wait_for_selector(".feedback__thanks")
    page.click("text=Permanent link")
    page.wait_for_selector(".feedback__thanks")
    assert "You marked this verdict as correct." in page.inner_text(".feedback__thanks")

    saved = {}
    for name in ("to print", "PDF", "JSON"):
        answer = page.request.get(str(page.locator(f".actions a:has-text('Report ({name})')").evaluate("a => a.href")))
        saved[name] = (
            answer.status,
            answer.headers["content-type"],
            answer.headers["content-disposition"].split(";")[0],
        )
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
    assert ("clip.webm" in table, "damaged.jpg" in table) == (True, False)
    page.select_option("select[name=kind]", "")
    page.wait_for_selector("text=damaged.jpg")
    assert page.request.get(str(page.locator("footer >> text=API").evaluate("a => a.href"))).ok
    page.click("text=damaged.jpg")
    page.wait_for_selector("text=Code media_corrupt")
    assert page.inner_text(".dead-end h2") == "This file could not be analysed"
