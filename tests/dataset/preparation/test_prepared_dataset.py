"""Index, protocols and what training sees of them."""

import gzip

import h5py
import numpy as np
import pytest

from common.config import schema
from dataset.preparation.index import check_rows, index_file, load_index
from dataset.preparation.prepare import prepare
from dataset.preparation.prepared_dataset import SplitChoice, open_prepared
from dataset.preparation.selection import match_columns, select
from tests.dataset.preparation.toy import CLASSES, Toy, ToyConfig, write_toy
from utils.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = write_toy(tmp_path_factory.mktemp("toy"))
    prepare(Toy(), root)
    return root


def load(root, split="per_class", **keys):
    return open_prepared(ToyConfig(str(root), SplitChoice(split, **keys)), "toy")


def test_the_index_survives_a_round_trip(root):
    index = load_index(root, "toy")
    rows = check_rows(Toy().read(root), "toy")
    assert index.rows.keys == rows.keys and index.rows.paths == rows.paths
    assert index.rows.class_names == CLASSES and index.rows.class_sets == {"seen": ("dog", "ant")}
    np.testing.assert_array_equal(index.rows.labels, rows.labels)
    np.testing.assert_array_equal(index.rows.subsets["odd"], np.arange(24) % 2 == 1)
    assert index.image_bytes[3] == (root / "pictures" / "3.jpg").stat().st_size
    with h5py.File(index_file(root, "toy")) as file:  # readable without us
        assert file["paths"].asstr()[5] == "pictures/5.jpg"
        assert file.attrs["content"] == index.content


def test_attributes_are_matched_by_name(root):
    np.testing.assert_array_equal(load(root).attributes, [[6, 0], [6, 4], [4, 1], [4, 0]])
    dataset = load(root, "two")
    assert dataset.class_names == ("dog", "bee") and dataset.attribute_names == ("legs", "wings")
    np.testing.assert_array_equal(dataset.attributes, [[4, 0], [6, 4]])


def test_per_class(root):
    dataset = load(root)
    assert dataset.split.counts == {"train": 8, "val": 0, "query": 4, "database": 20}
    np.testing.assert_array_equal(dataset.labels[dataset.split.query].sum(0), 1)
    assert dataset.split.rule.startswith("toy/per_class of index ")
    assert not dataset.multi_label and dataset.seen_classes == ()


def test_seen_and_unseen(root):
    dataset = load(root, "unseen")
    assert dataset.seen_classes == (0, 3)
    assert set(dataset.labels[dataset.split.train].argmax(1)) == {0, 3}
    assert set(dataset.labels[dataset.split.query].argmax(1)) == {1, 2}
    assert dataset.split.counts["database"] == 14


def test_marked_rows_and_a_released_fault(root):
    assert load(root, "marked").split.database.tolist() == list(range(20))
    split = load(root, "released").split
    assert set(split.query) <= set(split.database)
    assert split.rule.endswith("; queries stand in the database")


def test_kept_rows_and_their_extras(root):
    dataset = load(root, "two")  # odd rows of dog (3, 7, …) and bee (1, 5, …)
    assert len(dataset) == 12
    np.testing.assert_array_equal(dataset.extras["number"][:, 0], np.arange(1, 24, 2))
    assert dataset.images.name(0) == str(root / "pictures" / "1.jpg")


def test_numbers_given_by_the_user(root):
    one, two = load(root, seed=7, query=2), load(root, seed=8, query=2)
    assert one.split.counts["query"] == 8 and one.split.hash != two.split.hash
    with pytest.raises(UserError, match="has only 6 rows"):
        load(root, query=7)


def test_a_split_by_its_name_alone():
    def config(split):
        return schema.build(ToyConfig, {"root": "x", "split": split}, "dataset", lambda _: "here")

    assert config("unseen").split == SplitChoice("unseen", seed=1)
    assert config({"seed": 3}).split == SplitChoice("per_class", seed=3)
    assert schema.plain(config("two"))["split"]["name"] == "two"
    with pytest.raises(UserError, match="Did you mean 'unseen'"):
        config("unsen")
    with pytest.raises(UserError, match="'dataset.split.sed' is not known"):
        config({"sed": 3})


def lists(root, folder, database=None, flip=()):
    """Write lists of rows with permuted columns; ``flip``: rows with another label."""
    folder.mkdir()
    labels = load_index(root, "toy").rows.labels[:, [2, 0, 3, 1]].copy()
    for row in flip:
        labels[row] = np.roll(labels[row], 1)
    parts = {"train.txt": range(0, 12), "test.txt.gz": range(12, 16)}
    if database is not None:
        parts["database.txt"] = database
    for name, rows in parts.items():
        text = "".join(f"deep/{r}.png {' '.join(map(str, labels[r]))}\n" for r in rows)
        data = text.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(folder)


def test_lists_are_matched_by_key_and_columns_by_content(root, tmp_path):
    dataset = load(root, "lists", lists=lists(root, tmp_path / "a"))
    assert dataset.class_names == ("cow", "ant", "dog", "bee")
    np.testing.assert_array_equal(dataset.labels[0], [0, 1, 0, 0])
    assert dataset.split.counts == {"train": 12, "val": 0, "query": 4, "database": 20}
    assert "lists train.txt, test.txt; database: every labelled row" in dataset.split.rule


def test_a_list_of_the_database_keeps_only_what_is_listed(root, tmp_path):
    dataset = load(root, "lists", lists=lists(root, tmp_path / "a", database=[20, 17, 3]))
    assert len(dataset) == 18 and dataset.split.counts["database"] == 3
    names = [dataset.images.name(row).split("/")[-1] for row in dataset.split.database]
    assert names == ["20.jpg", "17.jpg", "3.jpg"]


def test_lists_that_do_not_fit(root, tmp_path):
    with pytest.raises(UserError, match="in both query and database"):
        load(root, "lists", lists=lists(root, tmp_path / "a", database=[13, 20]))
    with pytest.raises(UserError, match="fits no class of the index"):
        load(root, "lists", lists=lists(root, tmp_path / "b", flip=range(0, 16, 3)))
    folder = lists(root, tmp_path / "c")
    (tmp_path / "c" / "train.txt").write_text("99.jpg 0 1 0 0\n")
    with pytest.raises(UserError, match="1 of 1 pictures that the index of toy does not have"):
        load(root, "lists", lists=folder)
    (tmp_path / "c" / "train.txt").write_text("1.jpg 0 1 0\n")
    with pytest.raises(UserError, match="differ in labels: train 3, query 4"):
        load(root, "lists", lists=folder)
    with pytest.raises(UserError, match="needs the published list 'train.txt'"):
        load(root, "lists", lists=str(tmp_path / "nowhere"))


def test_a_list_label_wins_over_the_annotation(root, tmp_path):
    dataset = load(root, "lists", lists=lists(root, tmp_path / "a"))
    index = load_index(root, "toy")
    selection = select(Toy(), index, Toy().protocol("lists"), root, tmp_path / "a")
    assert len(selection) == 24 and index.rows.keys[selection.rows[3]] == "3"
    np.testing.assert_array_equal(selection.labels, dataset.labels)


def test_equal_columns_keep_their_places():
    class Listed:
        labels = np.zeros((5, 3), np.uint8)

    rows = {"train": np.arange(5)}
    order = match_columns({"train": Listed()}, rows, np.zeros((5, 3), np.uint8), ["a", "b", "c"])
    assert order.tolist() == [0, 1, 2]


def test_what_is_not_prepared_or_damaged(root, tmp_path):
    with pytest.raises(UserError, match="python main.py prepare toy --root"):
        load(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="dataset.root is not set"):
        open_prepared(ToyConfig(), "toy")
    path = index_file(tmp_path, "toy")
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)
    path.write_bytes(index_file(root, "toy").read_bytes())
    with h5py.File(path, "r+") as file:
        file["labels"][0] = [0, 1, 0, 0]
    with pytest.raises(UserError, match="changed or damaged"):
        load(tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = 99
    with pytest.raises(UserError, match="in format 99"):
        load(tmp_path)
    index = load_index(root, "toy")
    with pytest.raises(UserError, match="no rows marked 'nosuch'"):
        select(Toy(), index, _with(keep="nosuch"), root)
    with pytest.raises(UserError, match="uses the class 'emu'"):
        select(Toy(), index, _with(classes=("emu",)), root)
    with pytest.raises(UserError, match="no class set 'nosuch'"):
        select(Toy(), index, _with(seen="nosuch"), root)


def _with(**changes):
    import dataclasses

    return dataclasses.replace(Toy().protocols[0], **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": ("a",) * 24}, "name the key 'a' twice"),
        ({"class_names": ("a", "b", "b", "c"), "class_sets": {}}, "name the class 'b' twice"),
        ({"labels": np.full((24, 4), 2)}, "0 and 1 in 24 rows"),
        ({"keys": ("a",)}, "24 pictures, but 1 keys"),
        ({"subsets": {"x": np.ones(3)}}, "24 pictures, but 3 subsets.x"),
        ({"class_sets": {"seen": ("emu",)}}, "names 'emu': no class"),
        ({"class_names": ("ant", "bee", "cow", "emu"), "class_sets": {}}, "no row for class 'emu'"),
    ],
)
def test_rows_that_contradict_themselves(root, change, message):
    import dataclasses

    with pytest.raises(UserError, match=message):
        check_rows(dataclasses.replace(Toy().read(root), **change), "toy")
