"""Small pieces of Markdown: tables, slugs, tables that stand in other pages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

MARK = "<!-- Made by `make docs` from {}; change these, not this page. -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table without the columns that are empty in all rows.

    ``|`` in cells is escaped, line breaks become blanks.
    """
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    head, rows = [head[i] for i in kept], [[row[i] for i in kept] for row in rows]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def slug(heading: str) -> str:
    """Return the anchor of a heading, as Git hosts and MyST make it.

    >>> slug("Accuracy on Flickr8k, frozen encoder")
    'accuracy-on-flickr8k-frozen-encoder'
    """
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def tables_below(text: str, heading: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield (head, rows) of the tables below a heading of a page.

    Raises:
        KeyError: the page has no such heading.
    """
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.M | re.S)
    if found is None:
        raise KeyError(f"no heading '{heading}'")
    for block in re.findall(r"(?:^\|.*\n?)+", found[1], flags=re.MULTILINE):
        head, _, *rows = [_cells(line) for line in block.strip().split("\n")]
        yield head, rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def replace_block(text: str, name: str, content: str) -> str:
    """Return ``text`` with what stands between ``<!-- generated: name -->`` marks replaced.

    Raises:
        KeyError: the marks are not there.
    """
    start, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
    if start not in text or end not in text:
        raise KeyError(f"the marks {start} and {end} are missing")
    before, rest = text.split(start, 1)
    return f"{before}{start}\n{content}\n{end}{rest.split(end, 1)[1]}"
