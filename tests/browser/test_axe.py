"""axe-core over every page and state, in both themes and at 320 pixels: no violation of WCAG 2.2 A and AA, and no page
that is wider than its window.

axe-core (MPL-2.0) comes inside the package `axe-playwright-python`; only its script is used.
"""

from __future__ import annotations

from typing import Any

from tests.browser.test_closeup import look_closer
from tests.browser.test_flow import Give, Open, analyse, sideways

LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": {"width": 320, "height": 640}},
    "phone-dark": {"color_scheme": "dark", "viewport": {"width": 320, "height": 640}},
}
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


COLOURS = ["color-contrast", "link-in-text-block"]
"""Rules that may say otherwise where nothing but the colours changes."""
RUN = """async how => {
  const found = await axe.run(document, how);
  const lines = found.violations.map((each) => `${each.id}: ${each.help} ${each.nodes[0].html}`);
  return { passes: found.passes.length, violations: lines };
}"""


def violations(page: Any, axe: str, rules: list[str] | None = None) -> list[str]:
    """What axe finds on a page as it is now, one line per kind with the first element; and whether it is too wide.

    Args:
        rules: that are asked; None asks all.
    """
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(axe)
    result = page.evaluate(RUN, {"runOnly": rules or TAGS, "resultTypes": ["violations"]})
    assert result["passes"] > (0 if rules else 10), "axe has looked at the page"
    found: list[str] = result["violations"]
    width = sideways(page)
    return [*found, f"the page is {width} pixels too wide"] if width > 0 else found


def violations_in_all_looks(page: Any, axe: str) -> dict[str, list[str]]:
    """`violations` per look, the page back at the desk afterwards; only looks that have some."""
    found = {}
    options: dict[str, Any]
    for look, options in reversed(LOOKS.items()):
        page.emulate_media(color_scheme=options["color_scheme"])
        page.set_viewport_size(options.get("viewport", {"width": 1280, "height": 900}))
        found[look] = violations(page, axe, COLOURS if "dark" in look else None)
    return {look: lines for look, lines in found.items() if lines}


def test_axe_sees_what_it_should(open_page: Open, axe: str) -> None:
    page = open_page("history?kind=image")
    page.wait_for_selector(".empty")
    page.evaluate(
        "document.querySelector('input[name=text]').closest('label').replaceWith(document.createElement('input'))"
    )
    assert [found.split(":")[0] for found in violations(page, axe)] == ["label"]


def test_pages_without_a_result(open_page: Open, axe: str) -> None:
    page = open_page()
    found = {"start": violations_in_all_looks(page, axe)}
    for path, ready in (("history", ".empty"), ("model", ".figures"), ("detections/missing", ".eyebrow")):
        page.goto(page.url.split("/desk/")[0] + f"/desk/{path}")
        page.wait_for_selector(ready)
        found[path] = violations_in_all_looks(page, axe)
    assert found == {key: {} for key in found}


def test_pages_with_results(open_page: Open, axe: str, photo: Give, broken: dict[str, Any], clip: Give) -> None:
    page = open_page()
    look_closer(page, photo("portrait.jpg"), broken)
    page.wait_for_selector(".item[data-state=failed]")
    page.check(".face:visible .choice:has-text('ViT') input")
    page.click(".details summary")
    found = {"photo": violations_in_all_looks(page, axe)}
    page.click("text=The verdict is incorrect")
    page.wait_for_selector(".feedback__thanks")
    found["feedback"] = violations_in_all_looks(page, axe)
    page.click("nav >> text=History")
    page.wait_for_selector(".entries tbody tr")
    page.click("[aria-label^='Compare versions'] >> nth=-1")
    page.wait_for_selector(".versions")
    found["history"] = violations_in_all_looks(page, axe)
    page.click("[aria-label^='Delete: '] >> nth=0")
    found["dialog"] = violations_in_all_looks(page, axe)
    page.keyboard.press("Escape")
    page.click("nav >> text=Analyse")
    analyse(page, clip("clip.webm"))
    found["video"] = violations_in_all_looks(page, axe)
    assert found == {key: {} for key in found}
