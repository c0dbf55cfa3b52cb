"""COCO, MIRFlickr-25K and NUS-WIDE: what their files mean, and their published lists."""

import dataclasses
import gzip
import json
import random

import numpy as np
import pytest

from common.registry import DATASETS
from dataset.preparation.index import check_rows, index_file, load_index
from dataset.preparation.lists import find_list, read_list
from dataset.preparation.prepare import prepare, splits_file
from dataset.preparation.prepared_dataset import SplitChoice, open_prepared
from dataset.sources.coco import Coco
from dataset.sources.flickr25k import CLEAR, LABELS, Flickr25k
from dataset.sources.nuswide import CONCEPTS_21, NusWide
from tests.dataset.sources.layouts import (
    ROWS,
    write_coco,
    write_flickr25k,
    write_nuswide,
)
from tests.helpers import SHARED
from utils.errors import UserError

LISTS = SHARED / "data" / "hash_splits"
CAPTIONS = SHARED / "data" / "coco_metadata" / "captions_val2017.json.gz"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="../shared/data/hash_splits is absent")


def test_coco(tmp_path):
    write_coco(tmp_path)
    rows = check_rows(Coco().read(tmp_path), "coco")
    assert rows.class_names == ("person", "car", "cat", "dog", "toothbrush")  # by category id
    assert rows.paths[0] == "train2017/000000000007.jpg" and rows.keys[0] == "7"
    assert rows.paths[-1] == f"val2017/{7 + 3 * (ROWS - 1):012d}.jpg"
    assert rows.labels.sum(1).tolist() == [0, *(1 + i % 2 for i in range(1, ROWS))]
    assert rows.texts[1][1] == "A thing of kind 1, told 3 times."  # as in the file, tidied
    draw = random.Random(1)  # over all rows, those without an instance too
    assert rows.variants["mith"] == tuple(
        (draw.choice(texts).split(".")[0],) for texts in rows.texts
    )
    assert rows.subsets["val2017"].sum() == 10


def test_coco_with_a_broken_file(tmp_path):
    write_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    del content["categories"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="not as COCO publishes it .KeyError: 'categories'"):
        Coco().read(tmp_path)
    file.write_text(json.dumps(content)[:-100])
    with pytest.raises(UserError, match="instances_val2017.json' is broken"):
        Coco().read(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match="instances_val2017.json' does not exist"):
        Coco().read(tmp_path)


@pytest.mark.skipif(not CAPTIONS.is_file(), reason="../shared/data/coco_metadata is absent")
def test_the_real_captions_of_val2017(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    captions = json.loads(gzip.decompress(CAPTIONS.read_bytes()))
    kinds = {"categories": [{"id": 1, "name": "person"}], "annotations": []}
    (folder / "captions_val2017.json").write_text(json.dumps(captions))
    (folder / "instances_val2017.json").write_text(json.dumps({**captions, **kinds}))
    for kind in ("instances", "captions"):
        (folder / f"{kind}_train2017.json").write_text(json.dumps({**kinds, "images": []}))
    rows = check_rows(Coco().read(tmp_path), "coco")
    assert len(rows) == 5000 and sum(map(len, rows.texts)) == 25_014
    assert min(map(len, rows.texts)) == 5 and all(
        "\n" not in t for texts in rows.texts for t in texts
    )


def test_flickr25k(tmp_path):
    write_flickr25k(tmp_path)
    rows = check_rows(Flickr25k().read(tmp_path), "flickr25k")
    assert len(rows) == ROWS and len(rows.class_names) == 38 and rows.class_names[24] == "baby_r1"
    assert rows.paths[9] == "mirflickr/im10.jpg" and rows.keys[9] == "10"  # by number, not by name
    assert rows.texts[0] == ("beach only1",) and rows.texts[6] == ()
    assert rows.variants["mith"][0] == ("beach",) and rows.variants["mith"][6] == ()
    assert rows.subsets["common_tags"].sum() == ROWS - ROWS // 7
    assert not rows.labels[0].any() and not (rows.labels[:, 25] & ~rows.labels[:, 2] & 1).any()


def test_flickr25k_in_other_folders(tmp_path):
    write_flickr25k(tmp_path)
    same = Flickr25k().read(tmp_path)
    folder = tmp_path / "mirflickr25k_annotations_v080"
    inner = folder / folder.name  # as unpacking by hand may leave it
    inner.mkdir()
    for file in folder.glob("*.txt"):
        file.rename(inner / file.name)
    np.testing.assert_array_equal(Flickr25k().read(tmp_path).labels, same.labels)
    (inner / "sky.txt").write_text("12\ntwelve\n")
    with pytest.raises(UserError, match="sky.txt' line 2: 'twelve' is no row number"):
        Flickr25k().read(tmp_path)
    (inner / "sky.txt").unlink()
    with pytest.raises(UserError, match="sky.txt' does not exist"):
        Flickr25k().read(tmp_path)


def test_nuswide(tmp_path):
    write_nuswide(tmp_path)
    rows = check_rows(NusWide().read(tmp_path), "nuswide")
    assert len(rows.class_names) == 81 and set(CONCEPTS_21) <= set(rows.class_names)
    assert rows.paths[1] == "Flickr/actor/0001_1000017.jpg" and rows.keys[1] == "1000017"
    assert rows.texts[1] == ("sky tag1",) and rows.texts[5] == ()
    assert rows.variants["mith"][1] == ("sky",) and rows.variants["mith"][5] == ()
    assert rows.subsets["listed_tags"].sum() == ROWS - ROWS // 6
    (tmp_path / "Flickr").rename(tmp_path / "elsewhere")
    (tmp_path / "images").mkdir()
    assert NusWide().read(tmp_path).paths[1] == "images/0001_1000017.jpg"


def test_nuswide_by_protocol(tmp_path):
    write_nuswide(tmp_path)
    prepare(NusWide(), tmp_path)
    numbers = {"query": 6, "train": 24}
    nuswide = DATASETS.get("nuswide").config
    dcmht = open_prepared(nuswide(str(tmp_path), SplitChoice("dcmht", **numbers)), "nus")
    mith = open_prepared(nuswide(str(tmp_path), SplitChoice("mith", **numbers)), "nus")
    assert dcmht.class_names == mith.class_names == CONCEPTS_21
    assert len(dcmht) == 59 and len(mith) == 49 and set(mith.texts) == {("sky",)}
    assert dcmht.texts[4] == ("123456",) and dcmht.texts[0] == ("sky tag1",)
    assert dcmht.split.hash != mith.split.hash
    order = np.random.RandomState(1814).permutation(59)  # the rule, by another way
    np.testing.assert_array_equal(dcmht.split.query, order[:6])
    np.testing.assert_array_equal(dcmht.split.train, order[6:30])
    np.testing.assert_array_equal(dcmht.split.database, order[6:])


def test_flickr25k_by_protocol(tmp_path):
    write_flickr25k(tmp_path)
    prepare(Flickr25k(), tmp_path)
    numbers = {"query": 6, "train": 24}
    flickr = DATASETS.get("flickr25k").config
    dcmht = open_prepared(flickr(str(tmp_path), SplitChoice("dcmht", **numbers)), "flickr")
    mith = open_prepared(flickr(str(tmp_path), SplitChoice("mith", **numbers)), "flickr")
    stems = [dcmht.images.name(row).rpartition("im")[2] for row in range(len(dcmht))]
    assert stems[:4] == ["10.jpg", "11.jpg", "12.jpg", "13.jpg"] and stems == sorted(
        stems, key=lambda stem: stem[:-4]
    )
    by_number = [int(mith.images.name(row).rpartition("im")[2][:-4]) for row in range(len(mith))]
    assert by_number == sorted(by_number) and "all_imgs.txt" in mith.split.rule
    assert set(mith.texts) == {("nikon",), ("beach",)}
    assert dcmht.texts[stems.index("7.jpg")] == ("",)
    row = stems.index("12.jpg")
    assert dcmht.texts[row] == ("nikon only12",) and dcmht.labels[row].sum() == sum(
        c == 12 for c in range(24)
    )


def test_an_index_from_before_the_texts_of_mith(tmp_path):
    write_flickr25k(tmp_path)
    prepare(Flickr25k(), tmp_path)
    index = load_index(tmp_path, "flickr25k")
    old = dataclasses.replace(index, rows=dataclasses.replace(index.rows, variants={}))
    old.save(index_file(tmp_path, "flickr25k"))
    flickr = DATASETS.get("flickr25k").config
    numbers = {"query": 6, "train": 24}
    assert open_prepared(flickr(str(tmp_path), SplitChoice("dcmht", **numbers)), "flickr").texts
    with pytest.raises(UserError, match="no texts called 'mith' .there: none.*prepare the dataset"):
        open_prepared(flickr(str(tmp_path), SplitChoice("mith", **numbers)), "flickr")


def test_nuswide_with_broken_files(tmp_path):
    write_nuswide(tmp_path)
    file = tmp_path / "Groundtruth" / "AllLabels" / "Labels_sky.txt"
    text = file.read_text()
    for changed, message in (
        (text + "1\n", "61 lines, but Imagelist.txt 60"),
        ("2" + text[1:], "one 0"),
    ):
        file.write_text(changed)
        with pytest.raises(UserError, match=message):
            NusWide().read(tmp_path)
    file.write_text(text.rstrip("\n"))
    assert len(NusWide().read(tmp_path)) == ROWS
    (tmp_path / "NUS_WID_Tags" / "All_Tags.txt").write_text("1 sky\n")
    with pytest.raises(UserError, match="has no tags of the pictures"):
        NusWide().read(tmp_path)


@needs_lists
@pytest.mark.parametrize(
    ("source", "stem"), [(Coco(), "coco"), (NusWide(), "nuswide_21"), (NusWide(), "nuswide_81_m")]
)
def test_published_paths_have_keys_of_their_own(source, stem):
    names = {"coco": 80, "nuswide_21": 21, "nuswide_81_m": 81}
    keys = []
    for part in ("train", "test"):
        listed = read_list(find_list([LISTS], f"{stem}_{part}.txt"))
        assert listed.labels.shape[1] == names[stem] and listed.labels.any(1).all()
        keys += map(source.list_key, listed.paths)
    assert len(set(keys)) == len(keys) and all(key.isdigit() for key in keys)


@needs_lists
def test_the_published_lists_of_mirflickr_give_the_published_counts(tmp_path):
    """All 25,000 rows: annotation files are written from the lists, whose columns are by name."""
    parts = [
        read_list(find_list([LISTS], f"mirflickr_{p}.txt")) for p in ("train", "test", "database")
    ]
    labels = np.concatenate([part.labels for part in parts])
    numbers = [int(path[2:-4]) for part in parts for path in part.paths]
    names = sorted([*LABELS, *(f"{name}_r1" for name in CLEAR)])
    folder = tmp_path / "mirflickr25k_annotations_v080"
    folder.mkdir()
    for column, name in enumerate(names):
        members = [numbers[row] for row in np.flatnonzero(labels[:, column])]
        (folder / f"{name}.txt").write_text("".join(f"{n}\n" for n in sorted(members)))
    (tmp_path / "mirflickr" / "meta" / "tags").mkdir(parents=True)
    for row in np.flatnonzero(~labels.any(1)):
        (tmp_path / "mirflickr" / f"im{numbers[row]}.jpg").touch()
    (tmp_path / "mirflickr" / "im1.jpg").touch()
    prepare(Flickr25k(), tmp_path, lists=LISTS)
    assert len(load_index(tmp_path, "flickr25k").rows) == 25_000
    splits = json.loads(splits_file(tmp_path, "flickr25k").read_text())
    for name in ("dcmht", "dcmht_first", "twdh", "lists"):
        published = Flickr25k().protocol(name).published
        counts = {part: published[part] for part in ("train", "query", "database")}
        assert splits[name]["counts"] == {**counts, "val": 0}
    config = DATASETS.get("flickr25k").config(str(tmp_path), SplitChoice("lists", lists=str(LISTS)))
    dataset = open_prepared(config, "flickr25k")
    assert dataset.class_names == tuple(names)
    assert int((~dataset.labels.any(1)).sum()) == 419
    np.testing.assert_array_equal(dataset.labels[dataset.split.query], parts[1].labels)
