r"""Take the pictures of ``docs/screenshots/`` again.

    python main.py report runs/quickstart --html report.html
    python main.py search RUN --query "two green creatures next to a ball in a forest" \
        --top 12 --html search.html
    make docs
    python docs/screenshots.py report.html --height 1590
    python docs/screenshots.py search.html --height 820
    python docs/screenshots.py docs/_build/methods/dsph.html --name method --height 1000

Each page gives ``docs/screenshots/<its name>.png`` (``--out`` for another folder), 1280 px wide.
Needs Chromium and its driver (``apt-get install chromium chromium-driver``).
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image


def start_browser() -> Any:
    """Return a headless Chromium driven by Selenium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    driver = shutil.which("chromedriver")
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if driver is None or chromium is None:
        sys.exit("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service(driver))


def take(browser: Any, page: Path, width: int, height: int, scheme: str, at: str = "") -> bytes:
    """Return a PNG of the page at ``width``; ``at`` is scrolled to, if it is given."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    browser.get(page.resolve().as_uri())
    time.sleep(1)
    if at:
        browser.execute_script("document.querySelector(arguments[0]).scrollIntoView()", at)
        time.sleep(0.3)
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    return base64.b64decode(taken["data"])


def smaller(png: bytes) -> bytes:
    """Return the picture with 256 colours, a third of the size and hardly to be told apart."""
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def main() -> None:
    """Read the command line and write one picture a page."""
    parser = argparse.ArgumentParser(description="screenshots of pages")
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "screenshots")
    parser.add_argument("--name", help="of the picture; that of the page if left out")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--at", default="", help="CSS selector to scroll to")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    browser = start_browser()
    try:
        for page in options.pages:
            png = take(browser, page, options.width, options.height, options.scheme, options.at)
            file = options.out / f"{options.name or page.stem}.png"
            file.write_bytes(smaller(png))
            print(f"{file}: {file.stat().st_size // 1000} kB")
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
