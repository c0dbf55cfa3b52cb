"""Links between documents hold, and the site builds without a warning and loads nothing remote."""

from __future__ import annotations

import collections
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs.generate.facts import methods
from docs.generate.markdown import slug
from tests.helpers import ROOT

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "tests" / "golden" / "README.md",
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts),
]
REMOTE = re.compile(r"(https?:)?//", re.IGNORECASE)


def without_code(text: str) -> str:
    text = re.sub(r"^( *)(`{3,}).*?^\1\2", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


def links(text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(<?([^)\s>]+)", without_code(text)):
        if not re.match(r"[a-z]+:", target):
            yield target


@functools.cache
def anchors(file: Path) -> frozenset[str]:
    text = re.sub(r"^( *)(`{3,}).*?^\1\2", "", file.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: collections.Counter[str] = collections.Counter()
    names = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", text, flags=re.MULTILINE):
        plain = slug(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
        names.add(f"{plain}-{found[plain]}" if found[plain] else plain)
        found[plain] += 1
    return frozenset(names)


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_links_in_documents(file):
    broken = []
    for link in links(file.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (file.parent / unquote(path)).resolve() if path else file
        inside = target.is_relative_to(ROOT) and target.exists()
        if not inside or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


class Page(HTMLParser):
    """What a page of the site names, links to and loads."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link":
            self.loaded.append(given.get("href", ""))
        self.loaded += [
            given[name] for name in ("src", "srcset", "poster", "data") if name in given
        ]


def test_the_site(tmp_path):
    """One test, so that several workers do not build the site several times."""
    words = ["-b", "html", "-W", "--keep-going", "-q", "-d", tmp_path / "doctrees"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words, ROOT / "docs", tmp_path / "html"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    site = tmp_path / "html"
    pages = {file: Page(file) for file in site.rglob("*.html")}
    assert missing_pages(site, pages) == []
    assert "<h1>Contributing<" in (site / "contributing.html").read_text(encoding="utf-8")
    assert remote(site, pages) == []
    assert broken_links(site, pages) == []


def missing_pages(site: Path, pages: dict[Path, Page]) -> list[str]:
    names = [f"methods/{method.stem}" for method in methods()]
    names += [
        file.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for file in DOCUMENTS
        if file.is_relative_to(ROOT / "docs")
    ]
    return [name for name in names if site / f"{name}.html" not in pages]


def remote(site: Path, pages: dict[Path, Page]) -> list[str]:
    """Return the addresses of other hosts that pages or style sheets load something from."""
    loaded = {link for page in pages.values() for link in page.loaded}
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        for names in re.findall(r"url\(['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text):
            loaded.update(names)
    return [link for link in loaded if REMOTE.match(link)]


def broken_links(site: Path, pages: dict[Path, Page]) -> list[str]:
    broken = []
    for file, page in pages.items():
        for link in [*page.links, *page.loaded]:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (file.parent / unquote(path.split("?")[0])).resolve() if path else file
            if not target.exists() or (
                anchor and target in pages and unquote(anchor) not in pages[target].ids
            ):
                broken.append(f"{file.relative_to(site)}: {link}")
    return broken
