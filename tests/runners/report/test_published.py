"""Published numbers: beside a run of the same recipe, near one of another."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config.run_config import RunConfig, compose
from common.storage.run_folder import RunFolder
from runners.recipes.papers import paper_runs
from runners.report.files import all_tables
from runners.report.published import Comparison, compare, read_published
from runners.report.study import Study
from runners.results.leaderboard import collect, find_runs, summarize
from runners.results.renderers import as_latex, as_markdown
from tests.helpers import ROOT
from utils.errors import UserError

HEAD = "method,paper_or_repo,dataset,bits,direction,metric,value,source"
TABLE = "DCMHT,DCMHT (MM 2022) Table 1,MIRFlickr25K,16,i2t,mAP,0.8263,table 1"
ROWS = {"train": 10240, "val": 0, "query": 5120, "database": 19461}


@pytest.fixture
def dcmht() -> RunConfig:
    """Return the run of papers/dcmht on MIRFlickr-25K at 16 bits."""
    runs = paper_runs("papers/dcmht")
    return next(r.config for r in runs if (r.name, r.config.bits) == ("dcmht.flickr25k", 16))


@pytest.fixture
def fake(study_root: Path, tmp_path: Path):
    """Return a function that gives a run's folder another configuration and other rows."""

    def make(config: RunConfig, rows: dict[str, int] = ROWS, **compat: float) -> Study:
        root = tmp_path / "runs"
        folder = root / "run"
        shutil.copytree(next(study_root.glob("*-dcmht-16bit-*")), folder)
        (folder / "config.yaml").write_text(yaml.safe_dump(dict(config.resolved)))
        metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
        metrics["run"] |= {k: config.resolved[k] for k in ("method", "bits", "seed")}
        metrics["run"]["dataset"] = config.dataset_name
        metrics["protocol"]["rows"] = rows
        if compat:
            metrics["directions"]["i2t"]["compat"] = compat
        (folder / "metrics.json").write_text(json.dumps(metrics))
        RunFolder(folder).set_done()
        return Study(root, tuple(summarize(collect(find_runs(root)))))

    return make


def published(tmp_path: Path, *rows: str, head: str = HEAD):
    (tmp_path / "published.csv").write_text("\n".join([head, *rows]) + "\n")
    return read_published(tmp_path / "published.csv")


def compared(study: Study, tmp_path: Path, *rows: str, head: str = HEAD) -> Comparison:
    return compare(study, published(tmp_path, *rows, head=head))


def test_a_run_of_the_papers_sweep_is_set_beside_the_paper(fake, dcmht, tmp_path):
    comparison = compared(fake(dcmht, **{"dchmt@all": 0.8123}), tmp_path, TABLE)
    (match,) = comparison.matches
    assert (match.ours, match.measure, match.recipe) == (0.8123, "dchmt@all", "dcmht.flickr25k")
    assert not comparison.near and not match.differs


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["backbone=clip_mini"], "encoder: "),
        (["data.eval_image=null"], None),
        (
            ["data.train_image=[squash 224 bicubic]"],
            "train_image: squash 224 bicubic, there resize",
        ),
        (["optim.groups.head.lr=1e-3"], "optim.head.lr: 0.001, there 0.0001"),
        (["runner.epochs=99"], "epochs: 99, there 100"),
        (["loss.vartheta=0.5"], "loss.vartheta: 0.5, there 0.75"),
        (["eval.select=val"], "selection.on: "),
        (["eval.measure=[mith@all]"], "evaluation.empty_query: "),
    ],
)
def test_another_recipe_is_near_and_what_differs_is_told(fake, dcmht, tmp_path, words, told):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({**dcmht.resolved}))
    study = fake(compose(words, file), **{"dchmt@all": 0.8, "mith@all": 0.8})
    comparison = compared(study, tmp_path, TABLE)
    if told is None:  # the same operations, by default
        assert comparison.matches
        return
    (near,) = comparison.near
    assert not comparison.matches
    assert any(difference.startswith(told) for difference in near.differs), near.differs


def test_nine_tenths_of_the_rows_are_another_recipe(fake, dcmht, tmp_path):
    fewer = {part: count * 9 // 10 for part, count in ROWS.items()}
    comparison = compared(fake(dcmht, fewer, **{"dchmt@all": 0.8}), tmp_path, TABLE)
    (near,) = comparison.near
    assert "rows.database: 17,514, there 19,461" in near.differs
    assert not comparison.matches


def test_the_other_head_of_a_method_is_near(fake, tmp_path):
    run = next(r for r in paper_runs("papers/dcmht_toolkit") if r.config.bits == 16)
    comparison = compared(fake(run.config), tmp_path, TABLE)
    (near,) = comparison.near
    assert "model.head: attention, there select" in near.differs


def test_numbers_without_a_recorded_recipe_are_near(fake, dcmht, tmp_path):
    row = "DCMHT,somebody,MIRFlickr25K,16,i2t,mAP,0.8,s"
    comparison = compared(fake(dcmht), tmp_path, row)
    assert comparison.near[0].differs == ("its recipe is not recorded",)
    head = f"{HEAD},recipe"
    study = Study(tmp_path, tuple(summarize(collect(find_runs(tmp_path / "runs")))))
    again = compared(study, tmp_path, f"{row},dcmht.flickr25k", head=head)
    assert again.near[0].differs == ("dchmt@all was not measured (main.py evaluate RUN)",)


def test_other_measures_and_other_data_are_not_compared(fake, dcmht, tmp_path):
    comparison = compared(
        fake(dcmht), tmp_path,
        "DCMHT,DCMHT (MM 2022) Table 1,MIRFlickr25K,16,i2t,improvement claimed,0.1,no mAP",
        "DCMHT,DCMHT (MM 2022) Table 1,NUS-WIDE,16,i2t,mAP,0.6,another dataset",
        "DCMHT,DCMHT (MM 2022) Table 1,MIRFlickr25K,32,i2t,mAP,0.83,another length",
    )  # fmt: skip
    assert not comparison.matches and not comparison.near
    assert list(comparison.left_out.values()) == [1]


def test_notes_and_differences_survive_into_files(fake, dcmht, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({**dcmht.resolved}))
    study = fake(compose(["runner.epochs=99"], file), **{"dchmt@all": 0.8})
    tables = all_tables(study, compared(study, tmp_path, TABLE))
    for text in (as_markdown(tables), as_latex(tables)):
        assert "epochs: 99, there 100" in text


def test_every_collected_number_of_a_papers_sweep_finds_its_run():
    """The names in docs/published.csv and those of the sweeps meet."""
    from runners.recipes.papers import paper_tables
    from runners.report.published import paper_run

    with open(ROOT / "docs" / "published.csv", newline="", encoding="utf-8") as stream:
        names = {(row["paper_or_repo"], row["method"]) for row in csv.DictReader(stream)}
    rows = read_published(ROOT / "docs" / "published.csv")
    for source, (_, table) in paper_tables().items():
        assert set(table.published[source]) <= {m for s, m in names if s == source}, source
        mine = [
            r for r in rows if r.paper_or_repo == source and r.method in table.published[source]
        ]
        lost = [r for r in mine if paper_run(r) is None and "(" not in r.dataset]
        assert mine and not lost, lost


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method,value\n", "lacks the column paper_or_repo"),
        (f"{HEAD}\na,b,c,16,i2t,mAP,high,s\n", "line 2: value is 'high'"),
        ("\0\xff", "lacks the column|cannot be read as CSV"),
    ],
)
def test_files_that_are_no_published_numbers(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_published(tmp_path / "p.csv")


def test_a_published_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be read as CSV"):
        read_published(tmp_path / "gone.csv")


DEEPHASH = "CSQ,DeepHash-pytorch (AlexNet),{},64,i2i,{},0.5,s"


def of_paper(name: str, bits: int = 64) -> RunConfig:
    runs = paper_runs("papers/deephash")
    return next(r.config for r in runs if (r.name, r.config.bits) == (name, bits))


def by_other_words(config: RunConfig, tmp_path: Path, dataset: dict[str, Any]) -> RunConfig:
    """Return the run with its rows from another layout."""
    file = tmp_path / "c.yaml"
    named = {"config": dataset["name"], **dataset}
    file.write_text(yaml.safe_dump({**config.resolved, "dataset": named}))
    return compose([], file)


def with_protocol(study: Study, tmp_path: Path, classes: int, compat: dict[str, float]) -> Study:
    """Return the study whose run states its classes, and has one direction."""
    (file,) = (tmp_path / "runs").glob("*/metrics.json")
    metrics = json.loads(file.read_text())
    metrics["protocol"]["classes"] = classes
    direction = {**metrics["directions"]["i2t"], "compat": compat}
    metrics["directions"] = {"i2i": direction}
    file.write_text(json.dumps(metrics))
    RunFolder(file.parent).record_again(file.name)
    return Study(study.root, tuple(summarize(collect(find_runs(study.root)))))


IMAGENET_ROWS = {"train": 13_000, "val": 0, "query": 5000, "database": 128_503}


@pytest.mark.parametrize(
    "dataset",
    [
        None,
        {"name": "lists", "root": "x", "protocol": "imagenet100/lists"},
        {"name": "mat", "root": "x", "split": {"rule": "file", "file": "s.npz"},
         "protocol": "imagenet100/lists"},
        {"name": "features", "root": "x.h5", "protocol": "imagenet100/lists"},
    ],
    ids=["imagenet100", "lists", "mat", "features"],
)  # fmt: skip
def test_rows_by_published_lists_meet_the_paper_in_every_layout(fake, tmp_path, dataset):
    config = of_paper("deephash_csq.imagenet")
    if dataset is not None:
        config = by_other_words(config, tmp_path, dataset)
    compat = {"deephash@1000": 0.7}
    study = with_protocol(fake(config, IMAGENET_ROWS), tmp_path, 100, compat)
    row = DEEPHASH.format("ImageNet-100", "mAP@1000")
    comparison = compared(study, tmp_path, row)
    assert not comparison.near, comparison.near[0].differs
    (match,) = comparison.matches
    assert (match.ours, match.recipe) == (0.7, "deephash_csq.imagenet")


def test_a_run_on_features_of_no_stated_encoder_is_near(fake, tmp_path):
    stated = {"name": "features", "root": "x.h5", "protocol": "imagenet100/lists"}
    resolved = dict(of_paper("deephash_csq.imagenet").resolved)
    file = tmp_path / "f.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                **resolved,
                "dataset": {"config": "features", **stated},
                "backbone": {"name": "features"},
            }
        )
    )
    compat = {"deephash@1000": 0.7}
    study = with_protocol(fake(compose([], file), IMAGENET_ROWS), tmp_path, 100, compat)
    (near,) = compared(study, tmp_path, DEEPHASH.format("ImageNet-100", "mAP@1000")).near
    assert any(d.startswith("encoder: features, there torchvision") for d in near.differs)


@pytest.mark.parametrize("layout", ["mat", "features"])
def test_cross_modal_rows_that_state_a_protocol_meet_the_paper(fake, dcmht, tmp_path, layout):
    split = dcmht.resolved["dataset"]["split"]["name"]
    rule = {"split": {"rule": "permutation"}} if layout == "mat" else {}
    section = {"name": layout, "root": "x", "protocol": f"flickr25k/{split}", **rule}
    config = by_other_words(dcmht, tmp_path, section)
    fake(config, **{"dchmt@all": 0.8})
    (file,) = (tmp_path / "runs").glob("*/metrics.json")
    metrics = json.loads(file.read_text())
    metrics["protocol"]["classes"] = 24
    file.write_text(json.dumps(metrics))
    RunFolder(file.parent).record_again(file.name)
    study = Study(tmp_path, tuple(summarize(collect(find_runs(tmp_path / "runs")))))
    comparison = compared(study, tmp_path, TABLE)
    assert not comparison.near, comparison.near[0].differs
    (match,) = comparison.matches
    assert match.recipe == "dcmht.flickr25k"
