"""Pictures of every page, light, dark and on a phone, taken from a real server with the real networks.

    python -m benchmarks.screenshots [--out docs/images] [--only light dark phone]

The server runs on a free port over a temporary instance folder; the media are the self-test's portrait and a clip.
The pictures are WebP files, of 150 kB at most where a page is not too long for that. Look at each before you commit it.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench.media import PORTRAIT, write_clip
from benchmarks.bench.serving import server_settings
from benchmarks.reliability.common import Server
from utils.config import load_settings
from web_app.jobs.supervisor import worker_command
from web_app.paths import ROOT

STEP_MS = 600_000  # a busy machine is slow
QUALITIES = (90, 80, 70, 60, 50)
MOST_BYTES = 150_000
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Look:
    """One way to look at the pages: window size in pixels, the preferred colours, and whether it is a phone."""

    name: str
    width: int
    height: int
    scheme: str
    phone: bool = False


LOOKS = (
    Look("light", 1180, 860, "light"), Look("dark", 1180, 860, "dark"), Look("phone", 390, 800, "light", phone=True),
)  # fmt: skip


def main() -> int:
    """Entry point of the command; 1 where there is no browser."""
    parser = argparse.ArgumentParser(description="Take pictures of every page.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder for the WebP files")
    parser.add_argument("--only", nargs="+", choices=[look.name for look in LOOKS], help="these looks only")
    given = parser.parse_args()
    browser = os.environ.get("TELLTALE_TEST_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        print("There is no Chromium on this machine (Debian: apt-get install chromium).", file=sys.stderr)
        return 1
    looks = [look for look in LOOKS if not given.only or look.name in given.only]
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        media = [PORTRAIT, write_clip(Path(folder) / "clip.mp4", seconds=3.0)]
        with Server(server_settings(Path(folder), load_settings()), worker_command()) as server:
            server.wait_ready()
            base = f"http://127.0.0.1:{server.settings.server.port}/"
            take_all(base, media, browser, looks, lambda name: given.out / f"page-{name}.webp")
    return 0


def take_all(base: str, media: list[Path], browser: str, looks: list[Look], target: Callable[[str], Path]) -> None:
    """Analyse the media once, then visit every page in every look."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        first = chromium.new_context(viewport={"width": 1180, "height": 860})
        page = first.new_page()
        page.set_default_timeout(STEP_MS)
        addresses = analyse(page, base, media)
        state = first.storage_state()  # the cookie that owns the analyses
        for look in looks:
            context = chromium.new_context(
                viewport={"width": look.width, "height": look.height}, color_scheme=look.scheme,
                reduced_motion="reduce", storage_state=state, is_mobile=look.phone, has_touch=look.phone,
            )  # fmt: skip
            page = context.new_page()
            page.set_default_timeout(STEP_MS)
            visit(page, base, addresses, lambda name, look=look: target(f"{name}-{look.name}"))
            context.close()
        chromium.close()


def analyse(page: Any, base: str, media: list[Path]) -> dict[str, str]:
    """Upload the media, look closer at the photo, and give the permalinks."""
    addresses = {}
    for path in media:
        page.goto(base)
        page.set_input_files("#file", [path])
        page.wait_for_selector(".verdict")
        addresses[path.suffix] = page.locator("a:has-text('Permanent link')").get_attribute("href")
        if path == PORTRAIT:
            page.click("text=Look closer")
            page.wait_for_selector(".closeup__maps")
    return addresses


def visit(page: Any, base: str, addresses: dict[str, str], target: Callable[[str], Path]) -> None:
    """One picture per page, the whole page each."""

    def shoot(name: str) -> None:
        page.wait_for_timeout(700)
        save(page.screenshot(full_page=True), target(name))

    page.goto(base)
    shoot("start")
    page.goto(base.rstrip("/") + addresses[".png"])
    page.wait_for_selector(".closeup__maps")
    faithful = page.locator(".choice:not([data-off]) >> nth=-1")
    faithful.click()
    shoot("photo")
    page.goto(base.rstrip("/") + addresses[".mp4"])
    page.wait_for_selector(".plot__dot")
    page.locator(".plot").press("End")
    shoot("video")
    page.goto(f"{base}history")
    page.wait_for_selector(".entries tbody tr")
    shoot("history")
    for name in ("model", "learning", "live", "reference"):
        page.goto(f"{base}{name}")
        shoot(name)


def save(png: bytes, path: Path) -> None:
    """Write a screenshot as WebP, in the best of `QUALITIES` that keeps it below `MOST_BYTES`, or the last."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        whole = picture.convert("RGB")
    for quality in QUALITIES:
        whole.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size <= MOST_BYTES:
            break
    print(f"{path} {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
