"""The numbers of docs/metrics.md are what the code gives, block by block in one session."""

from __future__ import annotations

import doctest
import sys

import pytest

from tests.docs.test_guides import PAGES, blocks

WITH_EXAMPLES = [page for page in PAGES if "```pycon" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_give_what_is_printed(page, tmp_path, monkeypatch, capsys):
    found = blocks(page.read_text(encoding="utf-8"))
    for block in found:
        if block.file is not None:
            file = tmp_path / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.content, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "example", raising=False)
    session = "\n".join(block.content for block in found if block.language == "pycon")
    test = doctest.DocTestParser().get_doctest(session, {}, page.stem, str(page), 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    monkeypatch.delitem(sys.modules, "example", raising=False)
    assert result.attempted > 0
    assert result.failed == 0, capsys.readouterr().out


def test_the_metrics_are_worked_out():
    assert "metrics" in {page.stem for page in WITH_EXAMPLES}
