"""Every planted fault is reported, and nothing else."""

import dataclasses
import shutil

import h5py
import numpy as np
import pytest

import main
from common.config.run_config import compose
from dataset.base import ArrayImages, HashDataset
from dataset.preparation.checks import count_findings
from dataset.preparation.index import index_file
from dataset.preparation.prepare import prepare, splits_file
from dataset.preparation.prepared_dataset import SplitChoice
from dataset.preparation.protocol import Protocol
from dataset.preparation.verify import verify_prepared
from dataset.splits import SplitManifest
from runners.commands.verify import verify
from tests.dataset.preparation.toy import Toy, ToyConfig, write_toy
from tests.helpers import write_captioned, write_mat


@pytest.fixture
def root(tmp_path):
    root = write_toy(tmp_path)
    prepare(Toy(), root)
    return root


def wrong(root, split="per_class", quick=False, **keys):
    """Return check → value, of all that differs."""
    findings = verify_prepared(ToyConfig(str(root), SplitChoice(split, **keys)), quick)
    return {finding.check: finding.value for finding in findings if finding.ok is False}


def replace(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("split", ["per_class", "unseen", "marked"])
@pytest.mark.parametrize("quick", [False, True])
def test_nothing_is_wrong_with_what_is_right(root, split, quick):
    assert wrong(root, split, quick) == {}


def test_a_missing_picture(root):
    (root / "pictures" / "5.jpg").unlink()
    faults = wrong(root)
    assert set(faults) == {"missing pictures", "files that are not there"}
    assert "5.jpg" in faults["missing pictures"] and "does not exist" in faults["missing pictures"]
    assert set(wrong(root, quick=True)) == {"files that are not there"}


def test_a_broken_jpeg(root):
    path = root / "pictures" / "6.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    faults = wrong(root)
    assert set(faults) == {
        "broken pictures", "pictures changed since prepare", "files of another size",
    }  # fmt: skip
    assert "1 (" in faults["broken pictures"] and "6.jpg" in faults["broken pictures"]
    prepare(Toy(), root)  # prepared with the broken picture in it
    assert set(wrong(root)) == {"broken pictures"}


def test_a_changed_picture_of_the_same_size(root):
    path = root / "pictures" / "6.jpg"
    data = bytearray(path.read_bytes())
    data[-40] ^= 0x11
    path.write_bytes(data)
    assert "6.jpg" in wrong(root)["pictures changed since prepare"]


def test_a_query_whose_picture_is_in_the_database(root):
    split = ToyConfig(str(root), SplitChoice("marked"))
    assert split.protocol().name == "marked"
    shutil.copy(root / "pictures" / "21.jpg", root / "pictures" / "3.jpg")  # query = 20 to 23
    duplicates = wrong(root, "marked")["queries whose picture is also in the database"]
    assert "21.jpg" in duplicates and "3.jpg" in duplicates and duplicates.startswith("1 (")
    prepare(Toy(), root)
    assert set(wrong(root, "marked")) == {"queries whose picture is also in the database"}
    assert set(wrong(root, "marked", quick=True)) == set(wrong(root, "marked"))
    shutil.copy(root / "pictures" / "22.jpg", root / "pictures" / "21.jpg")  # both queries
    prepare(Toy(), root)
    assert wrong(root, "marked") == {}


def test_a_query_in_the_database(root, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for name, rows in {"train": range(8), "test": range(8, 12), "database": range(11, 24)}.items():
        lines = [
            f"{r}.jpg {' '.join('1' if c == r % 4 else '0' for c in range(4))}\n" for r in rows
        ]
        (folder / f"{name}.txt").write_text("".join(lines))
    faults = wrong(root, "lists", lists=str(folder))
    assert "1 rows in both query and database" in faults["split"]
    assert wrong(root, "released") == {}  # a fault that the split states
    findings = verify_prepared(ToyConfig(str(root), SplitChoice("released")))
    line = next(f for f in findings if f.check == "queries among the database rows")
    assert line.value.startswith("4 (") and "as released" in line.expected


def test_a_wrong_count(root):
    replace(root / "meta" / "rows.txt", "23.jpg\tdog\n", "")
    prepare(Toy(), root)
    faults = wrong(root)
    assert faults["rows in all"] == "23" and faults["database rows"] == "19"
    assert faults["database rows per class"].endswith("dog has 4")
    assert not {"split hash", "official files"} & set(faults)


def test_rows_that_the_files_state_otherwise_than_the_index(root):
    replace(root / "meta" / "rows.txt", "17.jpg\tbee", "17.jpg\tcow")
    assert "labels of rows 1 (pictures/17.jpg)" in wrong(root)["official files"]
    replace(root / "meta" / "rows.txt", "17.jpg\tcow", "17.jpg\temu")
    assert set(wrong(root)) >= {"official files"}


def test_an_unlabelled_row(root, monkeypatch):
    replace(root / "meta" / "rows.txt", "17.jpg\tbee", "17.jpg\t")
    assert "labels of rows 1 (pictures/17.jpg)" in wrong(root)["official files"]
    prepare(Toy(), root)
    findings = verify_prepared(ToyConfig(str(root)))
    line = next(f for f in findings if f.check == "rows of the index without any label")
    assert line.value == "1 (pictures/17.jpg)"
    assert wrong(root)["rows in all"] == "23"
    unlabelled = dataclasses.replace(Toy.protocols[2], name="kept", keep_unlabelled=True)
    monkeypatch.setattr(Toy, "protocols", (unlabelled, *Toy.protocols))
    prepare(Toy(), root)
    assert set(wrong(root, "kept")) == {"rows without a label"}
    published = dataclasses.replace(unlabelled, published={"unlabelled": 1})
    monkeypatch.setattr(Toy, "protocols", (published,))
    assert wrong(root, "kept") == {}


def test_permuted_attributes(root):
    replace(root / "meta" / "attributes.txt", "ant 6 0\nbee 6 4", "bee 6 0\nant 6 4")
    faults = wrong(root)["attributes by class name"]
    assert "ant has those of bee" in faults and "bee has those of ant" in faults
    prepare(Toy(), root)
    assert wrong(root) == {}  # now the index says what the file says
    replace(root / "meta" / "attributes.txt", "cow", "emu")
    assert "no row for class 'cow'" in wrong(root)["attributes by class name"]


def test_permuted_attributes_in_the_index(root):
    with h5py.File(index_file(root, "toy"), "r+") as file:
        file["attributes"][:] = file["attributes"][:][[1, 0, 2, 3]]
    faults = wrong(root)
    assert {"index content", "attributes by class name", "official files"} <= set(faults)


def test_another_split_than_was_written_down(root):
    file = splits_file(root, "toy")
    before = file.read_text()
    replace(file, '"hash": "', '"hash": "f')
    assert set(wrong(root)) == {"split hash"}
    file.write_text(before[:50])
    assert set(wrong(root)) == {"split hash"}


def test_numbers_that_do_not_fit_are_a_finding(root, monkeypatch):
    greedy = Protocol("greedy", "x", Toy.protocols[0].draw, 1, 7, 2, published={"query": 28})
    monkeypatch.setattr(Toy, "protocols", (greedy,))
    prepare(Toy(), root)
    faults = wrong(root, "greedy")
    assert "has only 6 rows" in faults["split"] and faults["query rows"] == "0"


def test_any_dataset_can_be_verified(captioned, capsys):
    words = [word for word in captioned if word.startswith("dataset.")]
    assert main.main(["verify", "folder", *words]) == 0
    output = capsys.readouterr().out
    assert "All is as stated." in output and "captions per row" in output


def values_in(table):
    """Return check → value, of the lines of a printed table that have one."""
    cells = [line.split("│") for line in table.splitlines() if line.startswith("│")]
    return {cell[2].strip(): cell[3].strip() for cell in cells if cell[3].strip()}


def test_own_pictures_are_counted(tmp_path, capsys):
    root = tmp_path / "own"
    write_captioned(root, rows=20)
    (root / "7.png").write_bytes(b"no picture")
    words = ["dataset.csv=list.csv", "dataset.split.rule=permutation", "dataset.split.query=4"]
    assert main.main(["verify", "folder", "--root", str(root), *words]) == 1
    output = capsys.readouterr().out
    table = values_in(output)
    config = compose(["dataset=folder", f"dataset.root={root}", *words])
    dataset = config.dataset.entry.target(config.dataset.config, "folder")
    expected = {
        "rows in all": "20", "classes": "3", "train rows": "16", "query rows": "4",
        "database rows": "16", "rows in no part": "0", "split hash": dataset.split.hash,
        "labels per row": "1 to 2", "rows without a label": "0",
        "captions per row": "2 to 2, 2.00 on average", "missing pictures": "0",
    }  # fmt: skip
    assert {check: table[check] for check in expected} == expected
    assert "differs: broken pictures: 1 (" in output and "7.png" in output


def test_mat_files_are_counted(tmp_path):
    columns = write_mat(tmp_path)["category"]
    words = ["dataset.index_file=index.npy", "dataset.split.query=3", "dataset.split.train=5"]
    findings = {f.check: f for f in verify("mat", str(tmp_path), words, quick=False)}
    labels = columns.sum(1)
    expected = {
        "rows in all": "12", "classes": "3", "train rows": "5", "query rows": "3",
        "database rows": "9", "rows in no part": "0", "broken pictures": "0",
        "labels per row": f"{labels.min():.0f} to {labels.max():.0f}",
    }  # fmt: skip
    assert {check: findings[check].value for check in expected} == expected
    assert all(finding.ok is not False for finding in findings.values())


def test_validation_rows_and_rows_of_no_part_are_counted():
    labels = np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 1, 0]]
    parts = {"train": [0], "val": [1, 3], "query": [2], "database": [4, 5]}
    split = SplitManifest(**{part: np.array(rows) for part, rows in parts.items()})
    images = ArrayImages(np.zeros((7, 2, 2, 3), np.uint8), "none")
    dataset = HashDataset("toy", images, labels, ("a", "b"), False, split)
    values = {f.check: f.value for f in count_findings(dataset)}
    assert values["val rows"] == "2" and values["rows in no part"] == "1"
    assert values["train rows per class"] == "1 of 1 classes"
    assert values["database rows per class"] == "2 of 1 classes"


def test_what_cannot_be_verified_at_all(tmp_path, capsys):
    assert main.main(["verify", "coco", "--root", str(tmp_path)]) == 2
    assert "python main.py prepare coco --root" in capsys.readouterr().err
    assert main.main(["prepare", "creatures_image", "--root", str(tmp_path)]) == 2
    assert "With official files: " in capsys.readouterr().err
