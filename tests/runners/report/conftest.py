"""A study of toy runs with all that a report shows, and a browser to look at its page."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import PIXELS, QUICK, picture, run

ATTACK = (
    "<img src=x onerror=\"document.title='attacked'\">"
    "</script><script>document.title='attacked'</script>"
)


def write_hostile(root: Path, rows: int = 48) -> Path:
    """Write pictures whose captions and class names hold markup."""
    rng = np.random.default_rng(1)
    root.mkdir(parents=True)
    names = ("ant", "bee", f"cow {ATTACK}")
    with open(root / "list.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "label", "caption"])
        for i in range(rows):
            Image.fromarray(picture(rng, [i % 3])).save(root / f"{i}.png")
            table.writerow(
                [f"{i}.png", names[i % 3], f"{ATTACK} a {names[i % 3][:3]} number {i % 7}"]
            )
    return root


@pytest.fixture(scope="session")
def study_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with runs of two methods, two code lengths and two seeds."""
    root = tmp_path_factory.mktemp("study")
    data = write_hostile(root / "data")
    previous = os.environ.get("HASHING_CACHE")
    os.environ["HASHING_CACHE"] = str(root / "cache")
    words = [
        "dataset=folder", f"dataset.root={data}", "dataset.csv=list.csv", *PIXELS,
        f"output={root / 'runs'}", "eval.val_size=6",
    ]  # fmt: skip
    try:
        for bits in (8, 16):
            for seed in (0, 1):
                run("method=lsh", *words, f"bits={bits}", f"seed={seed}")
        run("method=dcmht", *words, *QUICK, "runner.tensorboard=true", "bits=16")
    finally:
        if previous is None:
            del os.environ["HASHING_CACHE"]
        else:
            os.environ["HASHING_CACHE"] = previous
    return root / "runs"


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Return a headless Chromium driven by Selenium, or skip with what is missing."""
    driver = shutil.which("chromedriver")
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if not (driver and chromium):
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install it")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()
