"""Generated pages are up to date, and say what the code says."""

from __future__ import annotations

import dataclasses
import doctest
import fnmatch
from typing import Literal

import pytest

from common import registry
from common.config.layers import config_names
from docs.generate import docstrings, facts, markdown
from docs.generate.docstrings import Section, parse
from docs.generate.pages import method_page, pages
from runners.report.published import read_published
from tests.golden.harness import NUMBERS, case_name, find_files
from tests.helpers import ROOT


@pytest.fixture(scope="module")
def generated():
    return pages()


def test_nothing_is_stale(generated):
    stale = [
        file.relative_to(ROOT).as_posix()
        for file, text in generated.items()
        if not file.exists() or file.read_text(encoding="utf-8") != text
    ]
    assert not stale, f"older than what they are made from: {', '.join(stale)}; run `make docs`"


def test_no_page_of_a_method_that_is_gone(generated):
    files = set((ROOT / "docs" / "methods").glob("*.md"))
    assert files == {file for file in generated if file.parent.name == "methods"}


def test_every_configuration_is_on_one_page():
    named = [config.name for method in facts.methods() for config in method.configs]
    assert sorted(named) == sorted(config_names("method"))


def test_every_recorded_file_is_claimed():
    patterns = [*facts.notes()["shared"]]
    patterns += [pattern for method in facts.methods() for pattern in method.recorded]
    cases = {case_name(file) for file in find_files(NUMBERS)}
    unclaimed = [c for c in sorted(cases) if not any(fnmatch.fnmatchcase(c, p) for p in patterns)]
    assert not unclaimed, f"name {unclaimed} in docs/methods.yaml: recorded or shared"
    assert [p for p in patterns if not fnmatch.filter(cases, p)] == []


def test_pages_hold_what_was_promised():
    for method in facts.methods():
        page = method_page(method)
        for heading in (
            "Run it", "Idea and equations", "Configuration", "Options", "Recorded numbers",
            "Figures of ours", "Published figures",
        ):  # fmt: skip
            assert f"\n## {heading}\n" in page, f"{method.stem}: {heading}"
        assert "::" not in page.split("## Configuration")[0].replace("```", ""), method.stem
        assert "``" not in page.replace("```", ""), method.stem
        assert str(ROOT) not in page


def test_published_figures_name_method_and_conditions():
    names = {name for method in facts.methods() for name in (method.name, *method.also)}
    conditions = facts.notes()["conditions"]
    rows = read_published(ROOT / "docs" / "published.csv")
    assert {row.method for row in rows} <= names
    assert {row.paper_or_repo for row in rows} == set(conditions)
    assert all(row.bits and row.cut or "seen@all" in row.metric for row in rows)


DOCSTRING = """XYZ: A Method of *Three* Letters. A. Uthor. CONF 2031, doi:10.1234/a_b.

Codes u follow x_i < y * z, see :mod:`models.losses.pair_terms` and
:func:`models.losses.pair_terms.cosine`::

    L = Σ_{i<j} [1 - cos]₊

        and more

where L is the loss. Two kinds:

``first``   the one
            that is usual
``second`` (ours)
    The other::

        b = 2

1. one
2. two
   lines

Deviations from the code
    * A point on
      two lines.
    * Another.

Deviation: something else.
"""


def test_docstrings_become_markdown():
    link = {"models.losses.pair_terms": "pairs.md"}.get
    found = parse(DOCSTRING, link)
    assert found.title == "XYZ: A Method of *Three* Letters"
    assert found.citation == "A. Uthor. CONF 2031, [doi:10.1234/a_b](https://doi.org/10.1234/a_b)."
    idea, deviations, deviation = found.sections
    assert idea == Section("", (
        r"Codes u follow x_i \< y \* z, see [models/losses/pair_terms.py](pairs.md) and `cosine`:",
        "```text\nL = Σ_{i<j} [1 - cos]₊\n\n    and more\n```",
        "where L is the loss. Two kinds:",
        "- `first`: the one that is usual\n- `second` (ours): The other:\n\n"
        "  ```text\n  b = 2\n  ```\n1. one\n2. two lines",
    ))  # fmt: skip
    assert deviations == Section(
        "Deviations from the code", ("- A point on two lines.\n- Another.",)
    )
    assert deviation == Section("Deviation", ("Something else.",))


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 3  # of the middle


@dataclasses.dataclass(frozen=True)
class Outer:
    """Keys.

    Attributes:
        needed: in
            words.
    """

    needed: float
    kind: Literal["a", "b"] = "a"  # which
    several: tuple[int, ...] = (1, 2)
    absent: str | None = None  # None: "nothing # at all"
    # where both
    # are equal
    above: int = 1
    inner: Inner = Inner(5)
    short: Inner | str = Inner(7)  # a word for it, or the whole


def test_a_title_does_not_end_at_an_initial():
    assert parse("Mixtures: J. Doe, 2024.\n\nText.", {}.get).title == "Mixtures: J. Doe, 2024"


REGISTRIES = [found for found in vars(registry).values() if isinstance(found, registry.Registry)]


@pytest.mark.parametrize("components", REGISTRIES, ids=lambda components: components.kind)
def test_every_option_says_what_it_is(components):
    for name in components.names():
        schema = components.get(name).config
        silent = [option.key for option in facts.options(schema) if not option.meaning]
        assert not silent, f"{components.kind} {name}: what {silent} is stands nowhere"


def test_options_are_the_fields():
    assert [dataclasses.astuple(option) for option in facts.options(Outer)] == [
        ("needed", "float", "to be given", "in words"),
        ("kind", "`a`, `b`", "`a`", "which"),
        ("several", "list of int", "`[1, 2]`", ""),
        ("absent", "text or `null`", "`null`", 'None: "nothing # at all"'),
        ("above", "int", "`1`", "where both are equal"),
        ("inner.width", "int", "`5`", "of the middle"),
        ("short", "text or keys as below", "", "a word for it, or the whole"),
        ("short.width", "int", "`7`", "of the middle"),
    ]


def test_marks_and_headings_that_are_missing_are_errors():
    with pytest.raises(KeyError, match="generated: x"):
        markdown.replace_block("text", "x", "table")
    with pytest.raises(KeyError, match="no heading 'There'"):
        list(markdown.tables_below("# Here\n\n| a |\n|---|\n", "There"))


@pytest.mark.parametrize("module", [docstrings, markdown], ids=lambda module: module.__name__)
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
