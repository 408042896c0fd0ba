"""The pictures of the page in docs/images, taken from a real server with the real networks: `make screenshots`.

The server runs on a free port over a temporary instance folder; the media are the self-test's portrait and a clip.
Look at each picture before you commit it.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.bench.media import PORTRAIT, write_clip
from benchmarks.bench.serving import server_settings
from benchmarks.reliability.common import Server
from utils.config import load_settings
from web_app.jobs.supervisor import WORKER
from web_app.paths import ROOT

STEP_MS = 600_000  # a busy machine is slow
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
DESK, PHONE = {"width": 1180, "height": 860}, {"width": 390, "height": 800}
WEBP_QUALITY = 70


def main() -> int:
    """Entry point of the command; 1 where there is no browser."""
    parser = argparse.ArgumentParser(description="Take the pictures of the page.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder for the WebP files")
    given = parser.parse_args()
    browser = os.environ.get("TELLTALE_TEST_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        print("There is no Chromium on this machine (Debian: apt-get install chromium).", file=sys.stderr)
        return 1
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "clip.mp4", seconds=3.0)
        with Server(server_settings(Path(folder), load_settings()), WORKER) as server:
            server.wait_ready()
            take_all(f"http://127.0.0.1:{server.settings.server.port}/", clip, browser, given.out)
    return 0


def take_all(base: str, clip: Path, browser: str, out: Path) -> None:
    """Analyse portrait and clip once, look closer at the portrait, and take the pictures."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = opened(chromium, DESK)
        photo = analyse(page, base, PORTRAIT)
        page.goto(analyse(page, base, clip))
        page.wait_for_selector(".plot__dot")
        page.locator(".plot").press("End")
        shoot(page, out / "page-video.webp")
        page.goto(photo)
        page.click("text=Look closer")
        state = page.context.storage_state()  # the cookie that owns the analyses
        for name, scheme in (("page-photo", "light"), ("page-photo-dark", "dark")):
            page = opened(chromium, DESK, state, color_scheme=scheme)
            page.goto(photo)
            page.wait_for_selector(".closeup__maps")
            page.locator(".choice:not([data-off]) >> nth=-1").click()
            shoot(page, out / f"{name}.webp")
        page = opened(chromium, PHONE, state, is_mobile=True, has_touch=True)
        page.goto(f"{base}history")
        page.wait_for_selector(".entries tbody tr")
        shoot(page, out / "page-history-phone.webp")
        chromium.close()


def opened(chromium: Any, viewport: dict[str, int], state: Any = None, **how: Any) -> Any:
    """A page in a context of its own."""
    context = chromium.new_context(viewport=viewport, storage_state=state, reduced_motion="reduce", **how)
    page = context.new_page()
    page.set_default_timeout(STEP_MS)
    return page


def analyse(page: Any, base: str, path: Path) -> str:
    """Upload a file, and give the address of its result."""
    page.goto(base)
    page.set_input_files("#file", [path])
    page.wait_for_selector(".verdict")
    return base.rstrip("/") + str(page.locator("a:has-text('Permanent link')").get_attribute("href"))


def shoot(page: Any, path: Path) -> None:
    """The whole page as WebP."""
    page.wait_for_timeout(700)
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as picture:
        picture.convert("RGB").save(path, "WEBP", quality=WEBP_QUALITY, method=6)


if __name__ == "__main__":
    sys.exit(main())
