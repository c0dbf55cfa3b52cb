"""From the docstring at the top of a module to Markdown.

Understood are the forms in use there: paragraphs, literal blocks after ``::``, lists with ``*`` and
with numbers, terms with what they mean indented below or two blanks behind, headings (a line alone
above an indented list) and the roles ``:mod:``, ``:func:`` and their like.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import textwrap
from collections.abc import Callable

LinkTo = Callable[[str], str | None]
"""Module name (``models.losses.pair_terms``) → where its page or file is, seen from the page; None:
nowhere."""

_CODE = re.compile(r"``(.+?)``|:(\w+):`~?([^`]+)`")
_ITEM = re.compile(r"(\*|\d+\.) +")
_TERM = re.compile(r"(``[^`]+``(?: \([^)]*\))?)(?:  +(\S.*))?$")
_INLINE_DEVIATIONS = re.compile(r"(Deviations?\b[^:.]*): (?=\S)")
# *emphasis* stays; what would be a tag, or emphasis by chance, is escaped (not _ inside a word)
_MARKUP = re.compile(r"(\*\w[^*]*\*)|[*<\\$]|(?<!\w)_|_(?!\w)")
_IDENTIFIER = re.compile(r"(doi:10\.\d{4,}/[^\s;,)]*[^\s;,.)]|arXiv:\d{4}\.\d{4,5})")


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading (empty for what stands before the first) and the Markdown blocks below it."""

    title: str
    blocks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Docstring:
    """A module's docstring.

    Attributes:
        title: its first sentence, without the full stop.
        citation: who published it where, as Markdown; empty where that is not said.
        sections: the rest.
    """

    title: str
    citation: str
    sections: tuple[Section, ...]


def parse(text: str, link: LinkTo) -> Docstring:
    """Return a docstring (dedented, as ``ast.get_docstring`` gives it) in its parts."""
    first, _, rest = text.partition("\n")
    title, *behind = re.split(r"(?<=\w\w)\. ", first, maxsplit=1)  # not at a name's initial
    lines = behind + rest.split("\n")
    sections = _sections(lines, link)
    citation = ""
    if sections and sections[0].blocks and not sections[0].title:
        candidate = sections[0].blocks[0]
        if re.search(r"\b(19|20)\d\d\b", candidate) and "```" not in candidate:
            citation = candidate
            sections[0] = Section("", sections[0].blocks[1:])
    return Docstring(inline(title.rstrip("."), link), citation, tuple(sections))


def attributes(text: str) -> dict[str, str]:
    r"""Return name → meaning of what a class's docstring (dedented) lists under ``Attributes``.

    >>> attributes("A class.\n\nAttributes:\n    a, b: two of\n        them.\n    c: one.")
    {'a': 'two of them', 'b': 'two of them', 'c': 'one'}
    """
    _, _, rest = text.partition("\nAttributes:\n")
    lines = itertools.takewhile(lambda line: line[0] in " \n", rest.splitlines(keepends=True))
    listed = textwrap.dedent("".join(lines))
    found: dict[str, str] = {}
    for names, meaning in re.findall(r"^(\w+(?:, \w+)*): (.*(?:\n(?: .*)?)*)", listed, re.M):
        found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()).removesuffix("."))
    return found


def inline(text: str, link: LinkTo) -> str:
    """Return running text as Markdown: code, roles, identifiers as links, the rest escaped.

    >>> inline("``a_b``, see :func:`models.x.f`", lambda module: None)
    '`a_b`, see `f`'
    """
    parts, end = [], 0
    for found in _CODE.finditer(text):
        parts += [_plain(text[end : found.start()]), _code(found, link)]
        end = found.end()
    return "".join([*parts, _plain(text[end:])])


def _code(found: re.Match[str], link: LinkTo) -> str:
    literal, role, target = found.groups()
    if literal is not None:
        return f"`{literal}`"
    if role != "mod":
        return f"`{target.rsplit('.', 1)[-1]}`"
    file, where = target.replace(".", "/") + ".py", link(target)
    return f"`{file}`" if where is None else f"[{file}]({where})"


def _plain(text: str) -> str:
    parts = _IDENTIFIER.split(text)
    for place in range(0, len(parts), 2):
        parts[place] = _MARKUP.sub(lambda found: found[1] or f"\\{found[0]}", parts[place])
    for place in range(1, len(parts), 2):
        kind, _, number = parts[place].partition(":")
        host = {"doi": "https://doi.org/", "arXiv": "https://arxiv.org/abs/"}[kind]
        parts[place] = f"[{parts[place]}]({host}{number})"
    return "".join(parts)


def _sections(lines: list[str], link: LinkTo) -> list[Section]:
    sections: list[Section] = []
    title = ""
    blocks: list[str] = []
    for heading, block in _blocks(lines, link):
        if heading:
            sections.append(Section(title, tuple(blocks)))
            title, blocks = heading, []
        if block:
            blocks.append(block)
    sections.append(Section(title, tuple(blocks)))
    return [section for section in sections if section.blocks]


def _blocks(lines: list[str], link: LinkTo) -> list[tuple[str, str]]:
    """Return (heading, "") or ("", Markdown) for every block of dedented lines."""
    blocks: list[tuple[str, str]] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
        elif lines[at][0] == " ":
            body, at = _indented(lines, at)
            blocks += _blocks(body, link)  # a list below the line that opens it
        elif _ITEM.match(lines[at]) or _TERM.match(lines[at]):
            item, at = _item(lines, at, link)
            blocks.append(("", item))
        else:
            found, at = _paragraph(lines, at, link)
            blocks += found
    return _join_items(blocks)


def _paragraph(lines: list[str], at: int, link: LinkTo) -> tuple[list[tuple[str, str]], int]:
    end = at
    while end < len(lines) and lines[end].strip() and lines[end][0] != " ":
        if end > at and _TERM.match(lines[end]):
            break
        end += 1
    text = " ".join(line.strip() for line in lines[at:end])
    if end == at + 1 and end < len(lines) and _opens_list(lines[end]) and text[-1] not in ".:":
        return [(inline(text, link), "")], end
    named = _INLINE_DEVIATIONS.match(text)
    blocks: list[tuple[str, str]] = []
    if named:
        text = text[named.end() :]
        text = text[0].upper() + text[1:]
        blocks.append((inline(named[1], link), ""))
    if not text.endswith("::"):
        return [*blocks, ("", inline(text, link))], end
    text = text[:-2].rstrip()
    blocks.append(("", inline(text if text[-1] in ".,;" else f"{text}:", link)))
    while end < len(lines) and not lines[end].strip():
        end += 1
    body, end = _indented(lines, end)
    blocks.append(("", "\n".join(["```text", *body, "```"])))
    return blocks, end


def _opens_list(line: str) -> bool:
    return line.startswith(" ") and _ITEM.match(line.strip()) is not None


def _indented(lines: list[str], at: int) -> tuple[list[str], int]:
    """Return the indented lines from ``at``, dedented, and where they end."""
    end = at
    while end < len(lines) and (not lines[end].strip() or lines[end][0] == " "):
        end += 1
    body = lines[at:end]
    while body and not body[-1].strip():
        body.pop()
    width = min((len(line) - len(line.lstrip()) for line in body if line.strip()), default=0)
    return [line[width:] for line in body], end


def _item(lines: list[str], at: int, link: LinkTo) -> tuple[str, int]:
    """Return an item of a list, or a term with its meaning, as Markdown."""
    marker = _ITEM.match(lines[at])
    rest, end = _indented(lines, at + 1)
    if marker:
        sign = "-" if marker[1] == "*" else marker[1]
        head = ""
        body = [lines[at][marker.end() :], *rest]
    else:
        term = _TERM.match(lines[at])
        assert term is not None
        sign, head = "-", f"{inline(term[1], link)}: "
        body = ([term[2]] if term[2] else []) + rest
    inner = "\n\n".join(block for _, block in _blocks(body, link))
    width = len(sign) + 1
    shifted = "\n".join(f"{' ' * width}{line}" if line else "" for line in inner.split("\n"))
    return f"{sign} {head}{shifted.lstrip()}", end


def _join_items(blocks: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Put items that follow each other into one block, so that a list is tight."""
    joined: list[tuple[str, str]] = []
    for heading, block in blocks:
        is_item = re.match(r"(-|\d+\.) ", block)
        if is_item and joined and re.match(r"(-|\d+\.) ", joined[-1][1]):
            joined[-1] = ("", f"{joined[-1][1]}\n{block}")
        else:
            joined.append((heading, block))
    return joined
