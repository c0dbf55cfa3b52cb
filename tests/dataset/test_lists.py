"""Pictures named by list files, and the published lists as a dataset."""

import numpy as np
import pytest

import main
from dataset.lists import ListsConfig, build
from tests.dataset.sources.layouts import write_image
from tests.helpers import PIXELS, QUICK, SHARED
from utils.errors import UserError

LISTS = SHARED / "data" / "hash_splits"


@pytest.fixture
def root(tmp_path):
    for i in range(40):
        write_image(tmp_path / "pictures" / f"{i}.jpg", i)
    write(tmp_path, "train.txt", range(10, 30))
    write(tmp_path, "test.txt", range(10))
    write(tmp_path, "database.txt", range(15, 40))
    return tmp_path


def write(root, name, rows, width=3):
    lines = [
        f"pictures/{i}.jpg {' '.join(str(int(i % width == c)) for c in range(width))}\n"
        for i in rows
    ]
    (root / name).write_text("".join(lines))


def load(root, **keys):
    return build(ListsConfig(root=str(root), **keys), "lists")


def test_parts_share_rows_by_picture(root):
    dataset = load(root)
    assert len(dataset) == 40 and not dataset.multi_label
    assert dataset.split.counts == {"train": 20, "val": 0, "query": 10, "database": 25}
    assert len(np.intersect1d(dataset.split.train, dataset.split.database)) == 15
    names = [dataset.images.name(row).split("/")[-1] for row in dataset.split.database]
    assert names == [f"{i}.jpg" for i in range(15, 40)]
    np.testing.assert_array_equal(
        dataset.labels[dataset.split.database].argmax(1), np.arange(15, 40) % 3
    )
    assert dataset.split.rule.startswith("lists train.txt ")
    (root / "names.txt").write_text("ant\nbee\ncow\n")
    assert load(root, class_names_file="names.txt").class_names == ("ant", "bee", "cow")


def test_class_numbers_of_all_lists_are_columns(root):
    bits = load(root)
    for name, rows in (("train", range(10, 30)), ("test", range(10)), ("database", range(15, 40))):
        numbers = [f"./pictures/{i}.jpg {i % 3}\n" for i in rows]
        (root / f"{name}.txt").write_text("".join(numbers))
    numbered = load(root)
    np.testing.assert_array_equal(numbered.labels, bits.labels)
    assert numbered.images.names == bits.images.names and not numbered.multi_label
    (root / "test.txt").write_text("pictures/0.jpg 7\n")  # a class that only a query has
    assert load(root, unseen="none").labels.shape == (31, 8)
    write(root, "test.txt", range(10))
    with pytest.raises(
        UserError, match="differ in kind: 'train.txt' has class numbers, 'test.txt'"
    ):
        load(root)


def test_without_a_list_of_the_database(root):
    split = load(root, database=None).split
    assert split.counts["database"] == 20 and set(split.database) == set(split.train)


def test_slips(root):
    write(root, "other.txt", range(9, 40))
    with pytest.raises(UserError, match="1 rows in both query and database"):
        load(root, database="other.txt")
    write(root, "other.txt", range(10, 40), width=4)
    with pytest.raises(UserError, match="other.txt has 4"):
        load(root, database="other.txt")
    text = (
        (root / "database.txt")
        .read_text()
        .replace("pictures/15.jpg 1 0 0", "pictures/15.jpg 0 1 0")
    )
    (root / "other.txt").write_text(text)
    with pytest.raises(UserError, match="gives 'pictures/15.jpg' other labels .*1 such"):
        load(root, database="other.txt")
    with pytest.raises(
        UserError, match="nosuch.txt' does not exist .dataset.database.; database=null"
    ):
        load(root, database="nosuch.txt")
    with pytest.raises(UserError, match="set dataset.image_root"):
        load(root, image_root="elsewhere")
    (root / "names.txt").write_text("ant\n")
    with pytest.raises(UserError, match="names 1 classes, but the lists have 3"):
        load(root, class_names_file="names.txt")
    with pytest.raises(
        UserError, match="voc2012/lists has 20 classes, 4,000 train .* here are 3, 20"
    ):
        load(root, protocol="voc2012/lists")
    with pytest.raises(UserError, match="Unknown dataset in dataset.protocol 'voc2021'.*'voc2012'"):
        load(root, protocol="voc2021/lists")
    with pytest.raises(UserError, match="dataset.root is not set"):
        build(ListsConfig(), "lists")


def test_verify_and_train(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    assert main.main(["verify", "lists", "--root", str(root)]) == 0
    words = ["method=csq", "dataset=lists", f"dataset.root={root}", f"output={tmp_path / 'runs'}"]
    assert main.main(["train", *words, *PIXELS, *QUICK, "runner.epochs=1"]) == 0


@pytest.mark.skipif(not LISTS.is_dir(), reason="../shared/data/hash_splits is not there")
@pytest.mark.parametrize(
    ("stem", "counts", "unlabelled"),
    [("mirflickr", (4000, 1000, 20_000), 419), ("voc2012", (4000, 1000, 6540), 0),
     ("coco", (10_000, 5000, None), 0), ("nuswide_21", (10_500, 2100, None), 0),
     ("nuswide_81_m", (10_000, 5000, None), 0)],
)  # fmt: skip
def test_published_lists(stem, counts, unlabelled, monkeypatch):
    monkeypatch.setattr("dataset.lists.Path.is_file", lambda _: True)  # the pictures are not here
    names = {"train": f"{stem}_train.txt.gz", "query": f"{stem}_test.txt.gz"}
    database = f"{stem}_database.txt.gz" if counts[2] else None
    protocol = "voc2012/lists" if stem == "voc2012" else None
    config = ListsConfig(root=str(LISTS), database=database, protocol=protocol, **names)
    dataset = build(config, stem)
    listed = dataset.split.counts
    assert (listed["train"], listed["query"]) == counts[:2]
    assert listed["database"] == (counts[2] or counts[0])
    assert int((dataset.labels.sum(1) == 0).sum()) == unlabelled
