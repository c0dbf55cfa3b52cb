"""One list of columns for the terminal, Markdown, LaTeX and the page."""

from __future__ import annotations

import pytest

from runners.report import page
from runners.report.files import all_tables
from runners.report.study import Study
from runners.results import tables
from runners.results.leaderboard import collect, find_runs, summarize
from runners.results.renderers import as_latex, as_markdown, print_tables
from tests.runners.results.test_leaderboard import measured, write_run


@pytest.fixture
def study(tmp_path) -> Study:
    for bits, score in ((16, 0.5), (32, 0.75)):
        write_run(tmp_path, score, bits=bits)
    return Study(tmp_path, tuple(summarize(collect(find_runs(tmp_path)))))


def test_a_column_is_added_in_one_place(study, monkeypatch, capsys):
    column = tables.Column(
        "epoch", "last epoch", lambda row: row.bits + row.results[0].seed + 3, over="max"
    )
    for module in (tables, page):
        monkeypatch.setattr(module, "LEADERBOARD", (*tables.LEADERBOARD, column))
    print_tables(study.rows)
    printed = capsys.readouterr().out
    markdown, latex = (render(all_tables(study)) for render in (as_markdown, as_latex))
    for text in (printed, markdown, latex):
        assert "last epoch" in text and " 35 " in text and " 19 " not in text
    data = page.report_data(study, None, queries=0)
    heading = data["columns"]["leaderboard"][-1]
    assert heading == {"key": "epoch", "heading": "last epoch", "digits": 0, "over": "max"}
    assert [line["leaderboard"]["epoch"] for line in data["lines"]] == [19, 35]


def test_columns_are_shown_where_they_should_be(study, capsys):
    print_tables(study.rows)
    markdown = as_markdown(all_tables(study))
    assert "train s" in capsys.readouterr().out and "train s" not in markdown
    assert "training s" in markdown and "trained weights" not in markdown
    columns = page.report_data(study, None, queries=0)["columns"]
    headings = {name: [column["heading"] for column in columns[name]] for name in columns}
    assert headings["leaderboard"][-1] == "training, s" and "trained weights" in headings["costs"]


def test_a_time_that_a_run_did_not_measure_is_no_number(study):
    assert tables.COSTS[0].text(study.rows) == "–" and tables.COSTS[1].text(study.rows) == "2.0"


def test_a_zero_shot_measure_that_no_run_has_is_no_number(tmp_path, capsys):
    write_run(tmp_path, 0.25, zero_shot=measured(0.25))
    print_tables(summarize(collect(find_runs(tmp_path))))
    cells = next(x for x in capsys.readouterr().out.splitlines() if "│   16 │" in x).split("│")
    assert [cell.strip() for cell in cells[1:-1]] == ["16", "csq", "0.2500", "–", "–"]


def test_each_code_length_has_a_best_of_its_own(tmp_path):
    scores = {("csq", 16): 0.5, ("itq", 16): 0.6, ("csq", 32): 0.8, ("itq", 32): 0.7}
    for (method, bits), score in scores.items():
        write_run(tmp_path, score, method=method, bits=bits, compat={"mith@all": score / 2})
    table = tables.leaderboard(summarize(collect(find_runs(tmp_path))), tables.FILE)
    assert table.head[1:5] == ("16 bits", "32 bits", "16 bits, mith@all", "32 bits, mith@all")
    best = {row[0].text: [cell.best for cell in row[1:5]] for row in table.rows}
    assert best == {"csq": [False, True] * 2, "itq": [True, False] * 2}
    assert [row[0].text for row in table.rows] == ["csq", "itq"]  # the best first
