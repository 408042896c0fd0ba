"""Stylesheet and modules without a browser: syntax, strings, sums, and the contrast of the colours."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from web_app.texts import catalogue, text

STATIC = Path(__file__).resolve().parents[3] / "web_app" / "static"
MODULES = sorted((STATIC / "js").glob("*.js"))
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed; the syntax is then checked by a browser")
AA_TEXT, AA_GRAPHICS = 4.5, 3.0


def node(*arguments: str) -> str:
    assert NODE is not None
    done = subprocess.run([NODE, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def evaluate(module: str, names: str, expression: str) -> Any:
    """The value of a JavaScript expression over what a module exports."""
    script = f"import {{ {names} }} from {json.dumps((STATIC / 'js' / module).as_uri())};"
    return json.loads(node("--input-type=module", "-e", f"{script} console.log(JSON.stringify({expression}))"))


@needs_node
@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_module_has_no_syntax_error(module: Path) -> None:
    if module.name == "theme.js":  # the only classic script
        node("--check", str(module))
    else:
        text = module.read_text()
        assert NODE is not None
        done = subprocess.run([NODE, "--check", "--input-type=module", "-"], input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def leaves(node: Any, path: str = "") -> set[str]:
    """Dotted keys of all texts; a text with a form for one and for many is one text, and so is a list."""
    if not isinstance(node, dict) or "other" in node:
        return {path}
    return {leaf for key, child in node.items() for leaf in leaves(child, f"{path}.{key}".lstrip("."))}


def test_every_text_exists_and_is_used() -> None:
    modules = "".join(path.read_text() for path in MODULES if path.name != "strings.js")
    templates = "".join(path.read_text() for path in STATIC.with_name("templates").glob("*.html"))
    server = STATIC.parent
    files = [server / "pages.py", server / "errors.py"]
    python = "".join(path.read_text() for path in files)
    known = leaves(catalogue())
    parts = {leaf.rpartition(".")[0] for leaf in known}
    in_modules = {re.sub(r"\.(map|filter)$", "", name)[1:] for name in re.findall(r"\bT((?:\.\w+)+)", modules)}
    in_pages = set(re.findall(r"""["']([a-z_]+(?:\.[a-z_]+)+)["']""", templates + python)) & known
    begun = set(re.findall(r"""\bt(?:ext)?\(f?["']([a-z_.]+)\.(?:["'] ~|\{)""", templates + python))
    begun |= set(re.findall(r"""\bfigures\("([a-z_.]+)\"""", templates))  # a table with its columns
    indexed = set(re.findall(r"\bT((?:\.\w+)+)\[", modules)) | {f".{name}" for name in begun}  # T.job[job.state]
    assert {name for name in in_modules | in_pages | begun if name not in known | parts} == set()
    used = in_modules | in_pages | {name.lstrip(".") for name in indexed}
    assert {leaf for leaf in known if leaf not in used and leaf.rpartition(".")[0] not in used} == set()


def test_text_is_filled_and_counted() -> None:
    assert text("archive.retention", n=1) == "Analyses and their files are deleted after 1 day."
    assert text("archive.retention", n=30).endswith("30 days.")
    with pytest.raises(KeyError):
        text("archive.nothing")
    with pytest.raises(KeyError):
        text("start.faces_value")


def test_modules_hold_no_markup_and_no_sentences() -> None:
    for module in MODULES:
        text = module.read_text()
        assert "innerHTML" not in text
        assert "eval(" not in text
        assert 'setAttribute("style"' not in text
        if module.name != "strings.js":
            words = re.findall(r'\b(?:text|title|alt|"aria-label"|textContent)(?::| =) "([^"]+)"', text)
            assert words == [], f"{module.name} has words of its own: {words}"


def test_nothing_is_fetched_from_elsewhere() -> None:
    for path in [*MODULES, *STATIC.glob("*.css"), *STATIC.with_name("templates").glob("*.html")]:
        outside = re.findall(r"""(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s"']*|@import|url\(""", path.read_text())
        assert [url for url in outside if not url.startswith(("http://www.w3.org/", "url("))] == [], path.name
        if path.suffix == ".css":
            assert "url(" not in path.read_text()


@needs_node
def test_probabilities_never_claim_certainty() -> None:
    values = evaluate("dom.js", "percent", "[0, 0.004, 0.014, 0.5, 0.986, 0.9999, 1].map(percent)")
    plain = [value.replace("\u00a0", " ") for value in values]
    assert plain == ["< 1 %", "< 1 %", "1 %", "50 %", "99 %", "> 99 %", "> 99 %"]


@needs_node
def test_times_in_a_video_read_like_a_clock() -> None:
    assert evaluate("dom.js", "clock", "[clock(0), clock(3.24), clock(59.97), clock(61, 0), clock(600, 0)]") == [
        "0:00.0", "0:03.2", "1:00.0", "1:01", "10:00",
    ]  # fmt: skip


@needs_node
def test_box_follows_the_face_between_close_frames_and_hides_between_distant_ones() -> None:
    close = "[{time_s: 1, box: [0, 0, 10, 10]}, {time_s: 2, box: [10, 0, 20, 10]}]"
    assert evaluate("stage.js", "boxAt", f"boxAt({close}, 1.5)") == {"box": [5, 0, 15, 10], "exact": False}
    assert evaluate("stage.js", "boxAt", f"boxAt({close}, 1)") == {"box": [0, 0, 10, 10], "exact": True}
    assert evaluate("stage.js", "boxAt", f"boxAt({close}, 9)") is None
    distant = close.replace("time_s: 2", "time_s: 60")
    assert evaluate("stage.js", "boxAt", f"boxAt({distant}, 30)") is None
    assert evaluate("stage.js", "boxAt", f"boxAt({distant}, 59.5).box") == [10, 0, 20, 10]


def tokens(theme: int) -> dict[str, str]:
    """The colour tokens of the light (0) or the dark (1) theme."""
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", (STATIC / "style.css").read_text())
    return {name: (light, dark)[theme] for name, light, dark in pairs}


def luminance(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.2, definition of relative luminance."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_of_wcag_aa(theme: int) -> None:
    colour = tokens(theme)
    text = [(ink, ground) for ink in ("ink", "soft", "accent") for ground in ("paper", "surface", "sunken")]
    text += [(tone, f"{tone}-wash") for tone in ("red", "amber", "green", "slate")]
    text += [("surface", tone) for tone in ("red", "amber", "green", "slate")]
    text += [("ink", f"{tone}-wash") for tone in ("red", "amber", "green", "slate", "accent")]
    text += [("soft", f"{tone}-wash") for tone in ("red", "amber", "green", "slate")]
    text += [("accent-ink", "accent")]
    poor = {pair: round(contrast(*map(colour.get, pair)), 2) for pair in text}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < AA_TEXT} == {}
    graphics = [(mark, ground) for mark in ("edge", "accent", "red", "green") for ground in ("surface", "slate-wash")]
    faint = {pair: round(contrast(*map(colour.get, pair)), 2) for pair in graphics}
    assert {pair: ratio for pair, ratio in faint.items() if ratio < AA_GRAPHICS} == {}
