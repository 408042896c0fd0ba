"""What the pages point at is there: files, headings, paths of code and make targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "data" / "README.md"])
PAGES.remove(ROOT / "CHANGELOG.md")  # it also names what has gone
LINK = re.compile(r"\[[^\]]*\]\((?!https?://)([^)#]*)#?([^)]*)\)")
CODE = re.compile(r"`((?:utils|models|web_app|benchmarks|tests|docs|clients|extension)/[\w/.-]+)`")
TARGET = re.compile(r"\bmake ([a-z]+(?:-[a-z]+)*)(?=[` ]|$)", flags=re.M)
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_at_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path, heading in LINK.findall(text):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not heading or heading in headings(target), f"{path}#{heading}"
    assert [path for path in CODE.findall(text) if not (ROOT / path).exists()] == []
    asked = {name for block in re.findall(r"`+[^`]+`+", text) for name in TARGET.findall(block)}
    assert asked <= TARGETS
