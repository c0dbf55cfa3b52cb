"""Which published protocol rows follow: drawn, stated, by counts; anything else has its reason."""

import dataclasses

import numpy as np
import pytest

from common.config.run_config import compose
from dataset.lists import ListsConfig
from dataset.lists import build as build_lists
from dataset.mat import MatConfig
from dataset.mat import build as build_mat
from dataset.preparation.followed import Followed, followed, stated_protocol
from dataset.sources.coco import Coco
from dataset.sources.flickr25k import Flickr25k
from dataset.splits import SplitConfig
from tests.helpers import write_mat
from utils.errors import UserError

COCO = {"query": 5000, "train": 9000, "val": 1000, "database": 117_218}


def resolved(*words):
    return compose(["method=dcmht", "backbone=pixels", *words]).resolved["dataset"]


def names(outcome):
    assert isinstance(outcome, Followed), outcome
    return outcome.dataset, outcome.protocol.name, outcome.how


def test_a_prepared_dataset_is_drawn_by_its_protocol():
    section = resolved("dataset=coco", "dataset.split.name=twdh")
    assert names(followed(section, {"rows": COCO})) == ("coco", "twdh", "drawn by it")
    fewer = {**COCO, "query": 500}
    assert followed(section, {"rows": fewer}) == "500 query rows, twdh has 5000"


def test_stated():
    section = resolved("dataset=mat", "dataset.root=x", "dataset.protocol=flickr25k/mith")
    assert section["split"]["seed"] == 1 and section["split"]["query"] == 2000
    rows = {"query": 2000, "train": 10_000, "database": 18_015}
    stated = followed(section, {"rows": rows, "classes": 24})
    assert names(stated) == ("flickr25k", "mith", "stated")
    assert followed(section, {"rows": rows, "classes": 38}) == "38 classes, mith has 24"
    skipped = {**rows, "database": 18_000}
    assert "18000 database rows" in followed(section, {"rows": skipped, "classes": 24})
    other = resolved("dataset=mat", "dataset.protocol=flickr25k/mith", "dataset.split.seed=5")
    assert "seed 5, mith has 1" in followed(other, {"rows": rows, "classes": 24})


def test_by_counts():
    section = resolved("dataset=mat")
    protocol = {"rows": COCO, "classes": 80}
    assert names(followed(section, protocol))[:2] == ("coco", "dcmht")
    assert names(followed(resolved("dataset=mat", "dataset.split.seed=1"), protocol))[:2] == (
        "coco", "mith",
    )  # fmt: skip
    for words in (["dataset.split.seed=2"], ["dataset.split.rule=per_class"]):
        assert "states no published protocol" in followed(resolved("dataset=mat", *words), protocol)
    assert "states no" in followed(section, {"rows": COCO})  # a run from before classes were kept
    assert names(followed(resolved("dataset=lists"), protocol))[:2] == ("coco", "lists")
    assert "drawn by" in followed(resolved("dataset=folder"), protocol)


def shrunk(monkeypatch, source, **published):
    small = dataclasses.replace(
        source.protocols[0], query=published["query"], train=published["train"],
        published=published, draw=source.protocols[0].draw,
    )  # fmt: skip
    monkeypatch.setattr(type(source), "protocols", (small, *source.protocols[1:]))


def test_files_are_held_to_what_they_state(tmp_path, monkeypatch):
    write_mat(tmp_path, rows=24)
    shrunk(monkeypatch, Coco(), rows=24, classes=3, train=8, query=4, database=20)
    config = MatConfig(str(tmp_path), "index.npy", protocol="coco/dcmht")
    assert build_mat(config, "mat").split.counts["query"] == 4
    config = MatConfig(
        str(tmp_path), "index.npy", protocol="coco/dcmht", split=SplitConfig(query=5)
    )
    with pytest.raises(UserError, match=r"has 4 query rows, 20 database rows, but here are 5, 19"):
        build_mat(config, "mat")
    shrunk(monkeypatch, Flickr25k(), rows=24, classes=24, train=8, query=4, database=20)
    with pytest.raises(UserError, match="flickr25k/dcmht has 24 classes, but here are 3"):
        build_mat(MatConfig(str(tmp_path), "index.npy", protocol="flickr25k/dcmht"), "mat")
    with pytest.raises(UserError, match="has 122,218 rows in all, 80 classes, but here are 24, 3"):
        build_mat(MatConfig(str(tmp_path), "index.npy", protocol="coco/mith"), "mat")


def test_lists_are_held_to_what_they_state(tmp_path):
    bits = np.eye(3, dtype=int)
    for name, rows in {"train.txt": range(6), "test.txt": range(6, 9)}.items():
        lines = [f"{i}.jpg {' '.join(map(str, bits[i % 3]))}\n" for i in rows]
        (tmp_path / name).write_text("".join(lines))
    (tmp_path / "0.jpg").touch()
    config = ListsConfig(str(tmp_path), database=None, protocol="coco/lists")
    with pytest.raises(UserError, match="coco/lists has 122,218 rows in all, 80 classes, .* 9, 3"):
        build_lists(config, "lists")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("coco", "a dataset and a protocol of its"),
        ("cocoo/dcmht", "Unknown dataset in dataset.protocol 'cocoo'. Did you mean 'coco'"),
        ("coco/dcmth", "Unknown split of coco .*Did you mean 'dcmht'"),
    ],
)
def test_unknown_names(text, message):
    with pytest.raises(UserError, match=message):
        stated_protocol(text)


def test_a_protocol_that_permutes_no_rows():
    with pytest.raises(UserError, match="coco/lists reads lists .* dataset.split.name=lists"):
        MatConfig(protocol="coco/lists")
