"""The shells of the pages: the policy, what they refer to, and what they say about limits."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest
from flask.testing import FlaskClient

from tests.web_app.helpers import make_settings, media_bytes, upload
from utils.config import MediaSettings, Settings
from utils.media.sniff import SUFFIXES, titles
from utils.types import MediaKind
from web_app.pages import format_duration

STATIC = Path(__file__).resolve().parents[3] / "web_app" / "static"
PAGES = ("/", "/history", "/model", "/detections/{}", "/cases", "/cases/{}")
CASE = {"title": "One"}
URL_ATTRIBUTES = {"src", "href", "action", "poster", "data-base", "data-icons"}


class Page(HTMLParser):
    """The tags of a page with their attributes, and the text inside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.inline: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in {"script", "style"} and data.strip():
            self.inline.append(data)

    def urls(self) -> set[str]:
        return {value for _, attrs in self.tags for name, value in attrs.items() if name in URL_ATTRIBUTES}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    media = MediaSettings(max_file_mb=77, max_megapixels=12.5, max_duration_s=90.0)
    return dataclasses.replace(make_settings(tmp_path), media=media)


@pytest.fixture(params=PAGES)
def path(request: pytest.FixtureRequest, client: FlaskClient) -> str:
    """Of each page; an analysis and a case are there."""
    made = {"/detections/{}": upload(client, media_bytes("mp4")), "/cases/{}": client.post("/api/cases", json=CASE)}
    return request.param.format(made[request.param].get_json()["id"] if request.param in made else "")


@pytest.mark.parametrize("path", ["/detections/{}", "/cases/{}"], indirect=True)
@pytest.mark.parametrize("accept", ["text/html", "*/*"])
def test_what_is_not_there_or_not_ones_own_has_no_page(client: FlaskClient, path: str, accept: str) -> None:
    made_up, another = f"{path.rpartition('/')[0]}/0123456789abcdef", {"REMOTE_ADDR": "10.0.0.9"}
    assert client.get(path).status_code == 200
    for where, whose in ((path, another), (made_up, {}), (made_up, another)):
        answer = client.get(where, headers={"Accept": accept}, environ_base=whose)
        assert answer.status_code == 404
        assert ("There is no page here" in answer.text) == (accept == "text/html")


def test_page_obeys_a_policy_without_anything_inline(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    policy = response.headers["Content-Security-Policy"]
    assert response.status_code == 200
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    page = Page(response.text)
    assert page.inline == []
    for tag, attrs in page.tags:
        assert tag != "style"
        assert "style" not in attrs, f"{tag} has a style attribute"
        assert not [name for name in attrs if name.startswith("on")], f"{tag} has an inline handler"


@pytest.mark.parametrize("prefix", ["", "/desk/telltale"])
def test_everything_a_page_refers_to_is_ours_and_exists(client: FlaskClient, path: str, prefix: str) -> None:
    page = Page(client.get(path, environ_overrides={"SCRIPT_NAME": prefix}).text)
    urls = {url for url in page.urls() if not url.startswith("#")}
    assert f"{prefix}/static/style.css" in urls
    for url in urls:
        assert url.startswith(f"{prefix}/"), f"{url} leaves the prefix"
        bare = url.removeprefix(prefix).partition("#")[0].partition("?")[0]
        if not bare.startswith("/static/"):
            assert client.application.url_map.bind("localhost").test(bare), f"{url} leads nowhere"
            continue
        with client.get(bare) as response:
            assert response.status_code == 200, f"{url} is missing"


def test_modules_import_only_what_exists() -> None:
    for module in sorted((STATIC / "js").glob("*.js")):
        for target in re.findall(r'^(?:import|export)\b[^;]*?from "([^"]+)"', module.read_text(), flags=re.M):
            assert (STATIC / urljoin(f"js/{module.name}", target)).is_file(), f"{module.name} imports {target}"


def test_every_icon_that_is_named_is_in_the_sprite() -> None:
    sprite = set(re.findall(r'<symbol id="(\w+)"', (STATIC / "icons.svg").read_text()))
    modules = "".join(path.read_text() for path in (STATIC / "js").glob("*.js"))
    templates = "".join(path.read_text() for path in STATIC.with_name("templates").glob("*.html"))
    in_modules = r'\bicon\("(\w+)"\)|\bicon: "(\w+)"|\bbutton\([^,()]+, "(\w+)"'
    named = {name for found in re.findall(in_modules, modules) for name in found if name}
    named |= set(re.findall(r"icons\.svg'\) }}#(\w+)", templates))
    assert {"close", "trash", "drop", "sun"} <= named
    assert named <= sprite
    assert {"fake", "real", "inconclusive", "no_face", "image", "video"} <= sprite  # named by outcome and kind


def test_labels_and_buttons_have_names(client: FlaskClient, path: str) -> None:
    page = Page(client.get(path).text)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        if tag == "img":
            assert "alt" in attrs
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert attrs.get(name, ids[0]) in ids


def test_limits_on_the_page_are_those_of_the_settings(client: FlaskClient) -> None:
    text = client.get("/").text
    assert "up to 77 MB, 12.5 megapixels, 90 seconds" in text
    attributes = next(attrs for _, attrs in Page(text).tags if attrs.get("id") == "upload")
    assert attributes["data-max-bytes"] == "77000000"
    assert attributes["data-max-seconds"] == "90.0"
    for kind in MediaKind:
        assert f">{', '.join(titles(kind))}<" in text
    accepted = next(attrs for _, attrs in Page(text).tags if attrs.get("id") == "file")["accept"].split(",")
    assert accepted == ["image/*", "video/*", "audio/*", *sorted(frozenset().union(*SUFFIXES.values()))]


@pytest.mark.parametrize("untrusted_id", ["%22%3E%3Cscript%3Ealert(1)%3C", "%3Cscript%3E1%2F"])
def test_hostile_id_stays_text(client: FlaskClient, untrusted_id: str) -> None:
    answer = client.get(f"/detections/{untrusted_id}", headers={"Accept": "text/html"})
    assert (answer.status_code, Page(answer.text).inline) == (404, [])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(600.0, "10 minutes"), (60.0, "1 minute"), (90.0, "90 seconds"), (1.0, "1 second"), (7200.0, "120 minutes")],
)
def test_format_duration(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words
