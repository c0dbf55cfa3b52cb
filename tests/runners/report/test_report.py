"""What a report says of runs, as data, Markdown and LaTeX."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import main
from common.code_files.run_codes import read_codes
from common.storage.run_folder import RunFolder
from runners.report import gallery as gallery_module
from runners.report.curves import POINTS, training_curves
from runners.report.files import all_tables
from runners.report.gallery import Thumbnails, gallery
from runners.report.page import render, report_data
from runners.report.study import Study
from runners.results.leaderboard import collect, find_runs, summarize
from runners.results.renderers import as_latex, as_markdown
from runners.training.history import EpochRecord, read_history, write_history


def study(root: Path) -> Study:
    return Study(root, tuple(summarize(collect(find_runs(root)))))


@pytest.fixture(scope="session")
def data(study_root: Path) -> dict:
    return report_data(study(study_root), None, queries=4)


def test_lines_are_means_over_seeds(data, study_root):
    line = next(x for x in data["lines"] if (x["method"], x["bits"]) == ("lsh", 8))
    reports = [
        json.loads(file.read_text())["directions"][line["direction"]]
        for file in sorted(study_root.glob("*-lsh-8bit-*/metrics.json"))
    ]
    assert line["seeds"] == len(reports) == 2
    for name, path in (("mAP@all", ("map", "all", "expected")), ("NDCG@all", ("ndcg", "all"))):
        values = []
        for report in reports:
            for key in path:
                report = report[key]
            values.append(report)
        assert line["measures"][name] == [
            pytest.approx(np.mean(values)),
            pytest.approx(np.std(values, ddof=1)),
        ]
    precision = np.mean([r["pr_radius"]["precision"] for r in reports], axis=0)
    assert line["pr_radius"]["precision"] == pytest.approx(precision.tolist(), rel=1e-4)
    assert line["costs"]["codes"] == reports[0]["database"] * 1


def test_training_curves_are_those_of_the_run(data, study_root):
    (run,) = study_root.glob("*-dcmht-16bit-*")
    curves = training_curves(run)
    assert curves["loss"][0] == curves["val"][0] == [1, 2, 3]
    records = read_history(run)
    assert curves["loss"][1] == [record.loss["total"] for record in records]
    assert curves["val"][1] == [record.measured.score for record in records]
    line = next(x for x in data["lines"] if x["method"] == "dcmht")
    assert line["epochs"]["loss"][1] == pytest.approx(curves["loss"][1], rel=1e-4)


def test_a_run_without_history_has_no_curve(study_root, tmp_path):
    (run,) = study_root.glob("*-dcmht-16bit-*")
    shutil.copytree(run, tmp_path / "old", ignore=shutil.ignore_patterns("history.jsonl"))
    assert training_curves(tmp_path / "old") == {}


def test_a_long_curve_is_subsampled(tmp_path):
    write_history(tmp_path, [EpochRecord(e, {"total": e / 2}, {}, 1.0) for e in range(1, 302)])
    epochs, values = training_curves(tmp_path)["loss"]
    assert len(epochs) == POINTS and (epochs[0], epochs[-1]) == (1, 301)
    assert values == [epoch / 2 for epoch in epochs]


def test_the_gallery_shows_the_nearest_rows(data, study_root):
    entry = next(x for x in data["gallery"] if x["direction"] == "t2i")
    (run,) = study_root.glob("*-lsh-16bit-s0-*")
    query, database, _ = read_codes(run / "codes.h5")
    assert entry["bits"] == 16 and len(entry["queries"]) == min(4, len(query.rows))
    for one in entry["queries"]:
        assert "text" in one["query"]
        top = next(m["top"] for m in one["methods"] if m["method"] == "lsh")
        q = int(np.flatnonzero(query.rows == one["query"]["row"])[0])
        distances = (database.codes["image"] != query.codes["text"][q]).sum(1)
        assert [hit["distance"] for hit in top] == sorted(distances)[:10]
        for hit in top:
            d = int(np.flatnonzero(database.rows == hit["row"])[0])
            assert hit["distance"] == distances[d]
            assert hit["right"] == bool((database.labels[d] & query.labels[q]).any())
            assert data["pictures"][hit["picture"]].startswith("data:image/jpeg;base64,")


def test_the_best_method_has_other_rows_than_the_rest(study_root, tmp_path, monkeypatch):
    """Those that share their rows are shown, with the dataset that they were measured on."""
    shutil.copytree(study_root, tmp_path / "runs")
    (run,) = (tmp_path / "runs").glob("*-lsh-16bit-s0-*")
    shutil.copytree(run, run.with_name("third"))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["run"]["method"] = "third"
    (run.with_name("third") / "metrics.json").write_text(json.dumps(metrics))
    RunFolder(run.with_name("third")).set_done()
    runs = study(tmp_path / "runs")
    best = max((row for row in runs.rows if row.bits == 16), key=lambda row: row.mean)

    def other_rows(path):
        query, database, split = read_codes(path)
        if path.parent == best.results[0].folder:
            query = dataclasses.replace(query, rows=query.rows[::-1])
        return query, database, split

    monkeypatch.setattr(gallery_module, "read_codes", other_rows)
    entry = next(e for e in gallery(runs, 2, Thumbnails(10**6)) if e["direction"] == best.direction)
    shown = {method["method"] for query in entry["queries"] for method in query["methods"]}
    assert best.name not in shown and len(shown) == 2


def test_thumbnails_stay_within_their_budget(study_root):
    runs, thumbnails = study(study_root), Thumbnails(limit=3000)
    entries = gallery(runs, 6, thumbnails)
    assert 0 < sum(map(len, thumbnails.uris)) < 3000 + 2000
    shown = [m for entry in entries for q in entry["queries"] for m in q["methods"]]
    assert any("picture" not in hit for method in shown for hit in method["top"])


def test_no_pictures_where_the_dataset_is_gone(study_root, tmp_path):
    shutil.copytree(study_root, tmp_path / "runs")
    for file in (tmp_path / "runs").glob("*/config.yaml"):
        config = yaml.safe_load(file.read_text())
        config["dataset"]["root"] = str(tmp_path / "gone")
        file.write_text(yaml.safe_dump(config))
    data = report_data(study(tmp_path / "runs"), None, queries=4)
    assert all("not at hand" in entry["note"] for entry in data["gallery"]) and not data["pictures"]


def test_a_dataset_that_has_changed_is_not_shown(study_root, tmp_path):
    shutil.copytree(study_root, tmp_path / "runs")
    shutil.copytree(study_root.parent / "data", tmp_path / "data")
    lines = (tmp_path / "data" / "list.csv").read_text().splitlines()
    (tmp_path / "data" / "list.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    for file in (tmp_path / "runs").glob("*/config.yaml"):
        config = yaml.safe_load(file.read_text())
        config["dataset"]["root"] = str(tmp_path / "data")
        file.write_text(yaml.safe_dump(config))
    data = report_data(study(tmp_path / "runs"), None, queries=4)
    assert all("has changed" in entry["note"] for entry in data["gallery"])


def test_plugins_of_runs_are_not_executed(study_root, tmp_path):
    shutil.copytree(study_root, tmp_path / "runs")
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for file in (tmp_path / "runs").glob("*/config.yaml"):
        file.write_text(file.read_text().replace("plugins: []", f"plugins: [{plugin}]"))
    report_data(study(tmp_path / "runs"), None, queries=1)
    assert not (tmp_path / "ran").exists()


def test_nothing_leaves_the_data_element(data):
    page = render({**data, "root": "</script><script>alert(1)</script><!--"}, "report")
    opened = re.findall(r"<script[^>]*>", page)
    assert opened == ['<script type="application/json" id="data">', "<script>"]
    content = page.split('id="data">')[1].split("</script>")[0]
    assert json.loads(content)["root"] == "</script><script>alert(1)</script><!--"
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert "@DATA@" not in page and "@POLICY@" not in page


# ---- tables


def test_tables_escape_what_they_hold(study_root):
    tables = all_tables(study(study_root))
    markdown, latex = as_markdown(tables), as_latex(tables)
    assert "### folder, i2t, mAP@all" in markdown and "| method |" in markdown
    assert latex.count("\\begin{tabular}") == len(tables) == 3
    assert "**" in markdown and "\\textbf{" in latex and "$\\pm$" in latex
    odd = tables[0].__class__("a_b & <i>", ("x|y", "50 %"), (), ("~",))
    assert "### a\\_b &amp; &lt;i&gt;" in as_markdown([odd]) and "x\\|y" in as_markdown([odd])
    assert r"a\_b \& \textless{}i\textgreater{}" in as_latex([odd]) and r"50 \%" in as_latex([odd])


def test_zero_shot_measures_are_a_table_of_their_own(study_root):
    plain = study(study_root)
    row = plain.tasks["folder", "i2t"][0]
    row = dataclasses.replace(row, all_classes=0.5, all_classes_std=0.1, harmonic=0.25)
    data = dataclasses.replace(plain, rows=(row,))
    markdown = as_markdown(all_tables(data))
    assert "### folder, i2t, zero-shot mAP@all" in markdown
    line = next(line for line in markdown.splitlines() if "0.5000 ± 0.1000" in line)
    assert line.endswith("| 0.5000 ± 0.1000 | – | 0.2500 |")


def test_the_command_writes_all_files(study_root, tmp_path, capsys):
    names = {kind: tmp_path / "deep" / f"r.{kind}" for kind in ("html", "markdown", "latex")}
    words = [f"--{kind}={path}" for kind, path in names.items()]
    assert main.main(["report", str(study_root), *words, "--queries", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:] == [str(path) for path in names.values()]
    assert all(path.stat().st_size > 500 for path in names.values())
