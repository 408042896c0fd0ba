"""docs/security.md: every requirement of the list stands there, and each test it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[([\w.]+)\]\(\.\./(tests/[\w/]+\.py)\)")
ROW = re.compile(r"^\| (\d\.\d\.\d|[A-Z][^|]*?) \|.*\|$", flags=re.MULTILINE)
ASVS_V5 = (
    "5.1.1", "5.2.1", "5.2.2", "5.2.3", "5.2.4", "5.2.5", "5.2.6", "5.3.1", "5.3.2", "5.3.3", "5.4.1", "5.4.2", "5.4.3",
)  # fmt: skip


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_requirement_of_the_chapter_has_a_row() -> None:
    assert tuple(name for name in ROW.findall(PAGE) if name[0].isdigit()) == ASVS_V5


@pytest.mark.parametrize(("name", "file"), sorted(set(LINK.findall(PAGE))))
def test_the_linked_test_exists(name: str, file: str) -> None:
    assert (ROOT / file).is_file()
    assert name in names_in(ROOT / file)


def test_every_row_names_a_test_or_says_why_there_is_none() -> None:
    rows = [line for line in PAGE.splitlines() if ROW.match(line) and "---" not in line]
    heads = ("| No. |", "| Advice |", "| Protection |", "| Kind |")
    bare = [row for row in rows if not row.startswith(heads) and not LINK.search(row) and "not applicable" not in row
            and "left to the operator" not in row]  # fmt: skip
    assert bare == []
    assert len(rows) >= 15


def test_the_page_lists_every_format_and_ending() -> None:
    from utils.media.sniff import FORMATS

    names = {"image": "picture", "video": "video", "audio": "sound"}
    heads = tuple(f"| {name} |" for name in names.values())
    kinds = {row.split("|")[1].strip(): row for row in PAGE.splitlines() if row.startswith(heads)}
    for found in FORMATS.values():
        row = kinds[names[found.kind]]
        assert found.title in row
        assert [ending for ending in found.endings if f".{ending} " not in row] == []
    endings = {(found.kind, ending) for found in FORMATS.values() for ending in found.endings}
    assert sum(row.count(" .") for row in kinds.values()) == len(endings)


def test_the_protections_are_all_explained() -> None:
    from utils.media.sandbox_limits import PROTECTIONS

    assert [name for name in PROTECTIONS if f"`{name}`" not in PAGE] == []
