"""One's own pictures: class folders, tables, archives, and the slips that people make."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.registry import DATASETS
from dataset.folder import FolderConfig, build
from dataset.splits import SplitConfig
from utils.errors import UserError

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10_subset"
CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "mine"
    for c, name in enumerate(reversed(CLASSES)):
        (root / name / "more").mkdir(parents=True)
        for i in range(4):
            folder = root / name / ("more" if i == 3 else "")
            Image.new("RGB", (8, 8), (c, i, 0)).save(folder / f"{i}.PNG")
    return root


def load(root: Path, **keys):
    return build(FolderConfig(root=str(root), **keys), "mine")


def table(root: Path, text: str, name: str = "list.csv") -> None:
    (root / name).write_text(text, encoding="utf-8")


def test_class_folders(root):
    (root / "empty").mkdir()
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.png").write_bytes(b"")
    (root / "ant" / "notes.txt").write_text("no picture")
    (root / "ant" / "._0.PNG").write_bytes(b"")
    dataset = load(root)
    assert DATASETS.get("folder").target is build
    assert dataset.class_names == CLASSES and len(dataset) == 12
    np.testing.assert_array_equal(dataset.labels, np.repeat(np.eye(3), 4, axis=0))
    assert dataset.texts is None and not dataset.multi_label
    assert dataset.images.name(3) == str(root / "ant" / "more" / "3.PNG")
    assert dataset.split.counts == {"train": 9, "val": 0, "query": 3, "database": 9}


@pytest.mark.parametrize("wrap", ["", "mine/"])
def test_class_folders_in_an_archive(root, wrap):
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        archive.writestr("__MACOSX/ant/._0.PNG", b"")
        for path in root.rglob("*.PNG"):
            archive.write(path, wrap + path.relative_to(root).as_posix())
    dataset = load(root, archive="all.zip")
    assert dataset.class_names == CLASSES and len(dataset) == 12
    np.testing.assert_array_equal(dataset.images.decode(1)[0, 0], [2, 1, 0])


def test_csv_with_several_labels_and_captions(root):
    table(
        root,
        "caption,path,label,caption2\n"
        'an ant,ant/0.PNG,ant; insect ,"small, black"\n'
        "a bee,./bee/0.PNG,bee;insect,\n"
        "a cow,bee/../cow/0.PNG,cow,moo\n"
        "bees,bee/1.PNG,bee,\n",
    )
    dataset = load(root, csv="list.csv", split=SplitConfig(query=1))
    assert dataset.class_names == ("ant", "bee", "cow", "insect") and dataset.multi_label
    assert dataset.labels.tolist() == [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert dataset.texts == [("an ant", "small, black"), ("a bee",), ("a cow", "moo"), ("bees",)]
    np.testing.assert_array_equal(dataset.images.decode(2)[0, 0], [0, 0, 0])


def test_tsv_own_columns_and_byte_order_mark(root):
    table(root, "\ufefffile\tkind\nant/0.PNG\ta, b\nant/1.PNG\tc\n", "list.tsv")
    keys = {"path_column": "file", "label_column": "kind", "split": SplitConfig(query=1)}
    assert load(root, csv="list.tsv", **keys).class_names == ("a, b", "c")


HEAD = "path,label\nant/0.PNG,ant\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'path'.*Columns: none"),
        ("path,labels\n", "no column 'label'.*Did you mean 'labels'"),
        ("path,label,label\n", "'label' is there twice"),
        ("path,label\n", "a header but no row"),
        (HEAD + "ant/1.PNG\n", "list.csv' line 3: fewer cells"),
        (HEAD + "ant/1.PNG,ant,bee\n", "list.csv' line 3: 1 more cells"),
        (HEAD + "ant/1.PNG,\n", "line 3: the column 'label' is empty"),
        (HEAD + ",ant\n", "line 3: the column 'path' is empty"),
        (HEAD + "../other/1.PNG,ant\n", r"line 3: '../other/1.PNG' leaves the dataset's folder"),
        (HEAD + "/etc/passwd,ant\n", "line 3: '/etc/passwd' leaves"),
        (HEAD + 'ant/1.PNG,"ant\n', "line 3: no valid CSV"),
        ("path,label\nant/9.PNG,ant\n", "line 2: no picture 'ant/9.PNG' in"),
        ("path,label,caption\nant/0.PNG,ant,\n", "line 2: no caption"),
    ],
)
def test_bad_tables(root, text, message):
    table(root, text)
    with pytest.raises(UserError, match=message):
        load(root, csv="list.csv")


def test_other_slips(root):
    with pytest.raises(UserError, match="dataset.root is not set"):
        build(FolderConfig(), "mine")
    with pytest.raises(UserError, match="nowhere' is not a folder"):
        load(root / "nowhere")
    with pytest.raises(
        UserError, match=r"No picture in class folders in .* \(3 lie outside of any"
    ):
        load(root, archive=_loose_archive(root))
    with pytest.raises(UserError, match=r"none.csv' does not exist \(dataset.csv\)"):
        load(root, csv="none.csv")
    with pytest.raises(UserError, match="none.zip' does not exist"):
        load(root, archive="none.zip")
    (root / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot be read as a zip"):
        load(root, archive="bad.zip")
    table(root, HEAD)
    with pytest.raises(UserError, match="no column 'text' \\(dataset.caption_column\\)"):
        load(root, csv="list.csv", caption_column="text")
    (root / "latin.csv").write_bytes("path,label\nant/0.PNG,für\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        load(root, csv="latin.csv")


def _loose_archive(root: Path) -> str:
    with zipfile.ZipFile(root / "loose.zip", "w") as archive:
        for i in range(3):
            archive.write(root / "ant" / f"{i}.PNG", f"{i}.PNG")
    return "loose.zip"


def test_a_member_that_the_archive_lacks(root):
    _loose_archive(root)
    table(root, "path,label\n0.PNG,ant\n7.PNG,ant\n")
    with pytest.raises(UserError, match="line 3: no picture '7.PNG' in .*loose.zip"):
        load(root, csv="list.csv", archive="loose.zip")


def test_the_real_cifar10_subset():
    if not CIFAR.parent.is_dir():
        pytest.skip(f"{CIFAR.parent} is absent")
    split = SplitConfig(rule="file", file="split_anchor.npz")
    dataset = load(CIFAR, csv="labels.csv", archive="images.zip", label_column="class", split=split)
    assert len(dataset) == 15000 and dataset.class_names[0] == "airplane"
    assert dataset.split.counts == {"train": 5000, "val": 0, "query": 1000, "database": 14000}
    assert dataset.images.decode(14999).shape == (32, 32, 3)


def zero_shot(root, **keys):
    keys = {"unseen_classes": ("bee",), "split": SplitConfig(rule="seen_unseen", query=2), **keys}
    return load(root, **keys)


def test_unseen_classes_and_attributes(root):
    table(root, "class,wings,legs\nbee,1,6\ncow,0,4\nant,.5,6\nno picture,9,9\n", "traits.csv")
    dataset = zero_shot(root, class_attributes="traits.csv")
    assert dataset.seen_classes == (0, 2) and dataset.attribute_names == ("wings", "legs")
    np.testing.assert_array_equal(dataset.attributes, np.float32([[0.5, 6], [1, 6], [0, 4]]))
    assert dataset.labels[dataset.split.query].argmax(1).tolist() == [1, 1]
    assert set(dataset.labels[dataset.split.train].argmax(1)) == {0, 2}
    assert load(root).attributes is None and load(root).seen_classes == ()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"unseen_classes": ("wasp",)}, "Unknown class in dataset.unseen_classes 'wasp'"),
        ({"split": SplitConfig(rule="per_class")}, "set dataset.split.rule=seen_unseen"),
        ({"unseen_classes": ()}, "needs seen and unseen classes"),
        ({"unseen_classes": CLASSES}, "0 of the 3 classes are said to be seen"),
        ({"class_attributes": "traits.csv"}, "bee"),
    ],
)
def test_unseen_classes_that_do_not_fit(root, keys, said):
    table(root, "class,wings\nant,1\ncow,0\n", "traits.csv")
    with pytest.raises(UserError, match=said):
        zero_shot(root, **keys)


@pytest.mark.parametrize("gap", [",", ";", "\t"])
def test_a_row_per_caption_is_one_row_per_picture(root, caplog, gap):
    rows = [("path", "label", "caption")]
    for name in CLASSES:
        for i in range(3):
            spelled = (f"{name}/{i}.PNG", f"./{name}/{i}.PNG", f"{name}/../{name}/{i}.PNG")
            rows += [(path, name, f"{name} {i} {c}") for c, path in enumerate(spelled)]
    table(root, "".join(gap.join(row) + "\n" for row in rows))
    dataset = load(root, csv="list.csv", split=SplitConfig("per_class", query=1))
    assert len(dataset) == 9 and not dataset.multi_label
    assert dataset.texts[4] == ("bee 1 0", "bee 1 1", "bee 1 2")
    parts = dataset.split
    assert len(parts.query) and not np.intersect1d(parts.query, parts.database).size
    assert "27 rows name 9 pictures" in caplog.text and "labels" not in caplog.text


def test_a_row_per_label_unites_labels(root, caplog):
    table(root, "path,label\nant/0.PNG,ant\nbee/0.PNG,bee\nant/0.PNG,small\ncow/0.PNG,cow\n")
    dataset = load(root, csv="list.csv", split=SplitConfig(query=1))
    assert dataset.labels.tolist() == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert "1 pictures have other labels in other rows" in caplog.text


def test_classes_that_differ_in_case_are_told(root, caplog):
    (root / "ant").rename(root / "Bee")
    assert load(root).class_names == ("Bee", "bee", "cow")
    assert "classes 'Bee' and 'bee' differ only in case or blanks" in caplog.text


def test_columns_of_bits_are_classes(root, caplog):
    caplog.set_level("INFO", "hashing")
    lines = ["path;caption;red;big;old;none", "ant/0.PNG;x;1;0;1;0", "bee/0.PNG;y;0;1;0;0"]
    table(root, "\n".join([*lines, "cow/0.PNG;z;1;1;0;0\n"]))
    dataset = load(root, csv="list.csv", split=SplitConfig(query=1))
    assert dataset.class_names == ("big", "old", "red") and dataset.texts[2] == ("z",)
    assert dataset.labels.tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 1]]
    assert "its 4 columns of 0/1 are taken for classes: red, big, old, none" in caplog.text
    assert "1 class columns are 0 in every row" in caplog.text
    table(root, "\n".join([*lines, "cow/0.PNG;z;1;2;0;0\n"]))
    with pytest.raises(UserError, match="line 4: the class column 'big' is '2'; 0 or 1"):
        load(root, csv="list.csv")
    table(root, "\n".join([*lines, "cow/0.PNG;z;0;0;0;0\n"]))
    with pytest.raises(UserError, match="line 4: no class has a 1"):
        load(root, csv="list.csv")
    table(root, "path,labels,size\nant/0.PNG,ant,1\n")
    with pytest.raises(UserError, match="no column 'label'"):
        load(root, csv="list.csv")
