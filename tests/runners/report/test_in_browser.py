"""The page in a browser: no error, sorting, filters, pictures, markup inert, narrow screens."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.storage.run_folder import RunFolder
from dataset.images import FileImages
from runners.report.page import render, report_data
from runners.report.study import Study
from runners.results.leaderboard import collect, find_runs, summarize
from runners.search.collection import Collection, Hits
from runners.search.search import SearchResult, write_search_page
from tests.runners.report.conftest import ATTACK

READY = "return document.documentElement.dataset.ready === 'yes'"


@pytest.fixture(scope="session")
def page_file(study_root, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    rows = summarize(collect(find_runs(study_root)))
    data = report_data(Study(study_root, tuple(rows)), None, queries=6)
    path.write_text(render(data, "report"))
    return path


def show(browser, file: Path, width: int = 1280, dark: bool = False):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get_log("browser")  # forget what other pages said
    browser.get(file.as_uri())
    return browser


@pytest.fixture
def page(browser, page_file):
    return show(browser, page_file)


def rows(page, section: str = "leaderboard") -> list[list[str]]:
    return page.execute_script(
        "return [...document.querySelectorAll(`#${arguments[0]} table:first-of-type`)].slice(0, 1)"
        ".flatMap(t => [...t.tBodies[0].rows].map(r => [...r.cells].map(c => c.innerText.trim())))",
        section,
    )


def choose(page, name: str, value: str) -> None:
    page.execute_script(
        "const box = document.querySelector(`[name=${arguments[0]}]`); box.value = arguments[1];"
        "box.dispatchEvent(new Event(box.tagName === 'INPUT' ? 'input' : 'change'))",
        name, value,
    )  # fmt: skip


def test_no_error_and_every_section(page):
    assert page.execute_script(READY)
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    time.sleep(0.3)
    titles = page.execute_script(
        "return [...document.querySelectorAll('h2')].map(h => h.innerText)"
    )
    assert titles == [
        "Leaderboard", "Curves", "Training", "Ties", "What is retrieved", "Time and memory",
        "Protocols and splits",
    ]  # fmt: skip
    assert (
        page.execute_script("return document.querySelectorAll('figure svg path.line').length") > 9
    )
    assert page.get_log("browser") == []


def test_nothing_is_drawn_outside_numbers(page):
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    bad = (
        "return [...document.querySelectorAll('svg *')].filter(e => /NaN|undefined|Infinity/.test("
    )
    assert page.execute_script(bad + "e.outerHTML)).length") == 0


def test_sorting(page):
    by_name = "document.querySelector('#leaderboard thead button').click()"
    page.execute_script(by_name)
    first = [row[0] for row in rows(page)]
    assert first == sorted(first)
    page.execute_script(by_name)
    assert [row[0] for row in rows(page)] == first[::-1]
    sort = "return document.querySelector('#leaderboard th').getAttribute('aria-sort')"
    assert page.execute_script(sort) == "descending"


def test_filters(page):
    count = "return document.querySelectorAll('#leaderboard table').length"
    assert page.execute_script(count) == 2
    choose(page, "direction", "t2i")
    assert page.execute_script(count) == 1
    heads = "return [...document.querySelectorAll('#leaderboard th')].map(h => h.innerText.trim())"
    assert "8 bits" in str(page.execute_script(heads))
    choose(page, "bits", "16")
    assert "8 bits" not in str(page.execute_script(heads))
    choose(page, "method", "lsh")
    assert [row[0] for row in rows(page)] == ["lsh"]
    choose(page, "method", "nothing like it")
    text = page.execute_script("return document.querySelector('#leaderboard').innerText")
    assert "No run is left" in text and page.get_log("browser") == []


def test_another_measure(page):
    before = rows(page)
    choose(page, "measure", "R-precision")
    assert rows(page) != before
    caption = page.execute_script("return document.querySelector('#leaderboard caption').innerText")
    assert caption.endswith("R-precision")


def test_pictures_load_and_frames_differ_by_more_than_colour(page):
    time.sleep(0.3)
    sizes = page.execute_script(
        "const all = [...document.querySelectorAll('#gallery details[open] img')];"
        "all.forEach(i => { i.loading = 'eager' });"
        "return Promise.all(all.map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert sizes and all(size > 0 for size in sizes)
    styles = page.execute_script(
        "return ['right', 'wrong'].map(k => document.querySelector(`#gallery .hit.${k}`))"
        ".map(h => [getComputedStyle(h).borderTopStyle, h.querySelector('.sign').innerText])"
    )
    assert styles == [["solid", "✓"], ["dashed", "✗"]]


def test_markup_in_captions_and_names_is_inert(page):
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    time.sleep(0.3)
    assert page.title.startswith("Retrieval report")
    assert page.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert page.execute_script("return document.scripts.length") == 2
    shown = page.execute_script("return document.querySelector('#gallery').textContent")
    assert ATTACK[:40] in shown  # as words


def test_markup_could_not_run_even_inside_the_page(page):
    page.execute_script(
        "const d = document.createElement('div'); document.body.append(d);"
        "d.innerHTML = '<img src=x onerror=\"document.title = 1\">'"
    )
    time.sleep(0.3)
    assert page.title.startswith("Retrieval report")
    assert all("Content Security Policy" in entry["message"] for entry in page.get_log("browser"))


@pytest.mark.parametrize("width", [360, 768])
def test_narrow_screens_do_not_overflow(browser, page_file, width):
    page = show(browser, page_file, width)
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_dark(browser, page_file):
    page = show(browser, page_file, dark=True)
    colours = page.execute_script(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    assert colours == ["rgb(20, 23, 26)", "rgb(232, 234, 237)"]


def test_a_page_of_a_search(browser, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("one.png", "two.png"):
        Image.new("RGB", (300, 200), "teal").save(folder / name)
    ids = ["one.png", "two.png", ATTACK[:20]]
    images = FileImages(ids, folder)
    codes = Collection(np.zeros((3, 1), np.uint8), 8, ids, "image", images=images)
    hits = Hits([1, 0, 2], [0, 3, 4], 0.001)
    result = SearchResult(ATTACK, "text", codes, hits)
    write_search_page(result, tmp_path / "page.html")
    page = show(browser, tmp_path / "page.html", 360)
    time.sleep(0.2)
    assert page.title == "Search" and page.get_log("browser") == []
    texts = page.execute_script(
        "return [...document.querySelectorAll('.hits li')].map(l => l.innerText.trim())"
    )
    assert texts[0].startswith("1. distance 0") and "two.png" in texts[0] and len(texts) == 3
    assert ATTACK[:20] in texts[2]
    assert ATTACK in page.execute_script("return document.querySelector('.query-item').textContent")
    widths = "return [...document.querySelectorAll('.hits img')].map(i => i.naturalWidth)"
    assert page.execute_script(widths) == [224, 224]
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360


def test_opens_in_two_seconds_with_1000_runs(browser, study_root, tmp_path):
    (folder,) = study_root.glob("*-lsh-16bit-s0-*")
    original = (folder / "config.yaml").read_text()
    for number in range(1000):
        copy = tmp_path / "runs" / str(number)
        copy.mkdir(parents=True)
        config = original.replace("method: lsh", f"method: m{number % 167}")
        (copy / "config.yaml").write_text(config.replace("seed: 0", f"seed: {number // 167}", 1))
        metrics = (folder / "metrics.json").read_text()
        metrics = metrics.replace('"method": "lsh"', f'"method": "m{number % 167}"')
        (copy / "metrics.json").write_text(
            metrics.replace('"seed": 0', f'"seed": {number // 167}', 1)
        )
        shutil.copy(folder / "codes.h5", copy / "codes.h5")
        RunFolder(copy).set_done()
    rows = summarize(collect(find_runs(tmp_path / "runs")))
    data = report_data(Study(tmp_path, tuple(rows)), None, queries=6)
    (tmp_path / "many.html").write_text(render(data, "report"))
    assert (tmp_path / "many.html").stat().st_size < 20_000_000
    page = show(browser, tmp_path / "many.html")
    assert page.execute_script(READY)
    assert page.get_log("browser") == []
