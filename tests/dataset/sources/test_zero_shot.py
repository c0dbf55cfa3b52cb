"""AwA2, CUB and SUN: official files, the published splits, attributes by class name."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import scipy.io

import main
from common.config.run_config import compose
from dataset.preparation.index import MAT, OFFICIAL, Index, check_rows, load_index
from dataset.preparation.protocol import Selection
from dataset.preparation.selection import draw, select
from dataset.sources import cub, xlsa17
from dataset.sources.awa2 import FILE_NAMES, Awa2
from dataset.sources.awa2 import FOLDER as AWA2
from dataset.sources.cub import Cub
from dataset.sources.sun import Sun
from dataset.sources.zero_shot_protocols import as_released
from dataset.tables import read_pairs
from runners.base import run_config
from runners.commands.verify import verify
from tests.dataset.sources.layouts_zero_shot import cells, write_awa2, write_cub, write_sun
from tests.helpers import PIXELS, QUICK, SHARED
from utils.errors import UserError

METADATA = SHARED / "data" / "zsl_metadata"
needs_metadata = pytest.mark.skipif(
    not METADATA.is_dir(), reason="../shared/data/zsl_metadata is not there"
)
ONE = ["dataset.split.query=1", "dataset.split.train=1"]


def index_of(source, root):
    rows = check_rows(source.read(root), source.name)
    none = np.zeros((len(rows), 16), np.uint8)
    return Index(source.name, OFFICIAL, rows, np.full(len(rows), -1, np.int64), none)


def drawn(source, root, name, index=None, **changes):
    """Return the split of a protocol, and what it was drawn from."""
    protocol = dataclasses.replace(source.protocol(name), **changes)
    selection = select(source, index or index_of(source, root), protocol, root)
    return draw(selection, protocol), selection


def put(root, folder, file):
    target = root / "xlsa17" / "data" / folder
    target.mkdir(parents=True)
    shutil.copyfile(file, target / "att_splits.mat")


def real_awa2(root):
    """The real tables, and a list of 37,322 names whose unseen classes have their real sizes."""
    shutil.copytree(METADATA / "AwA2", root / AWA2)
    put(root, "AWA2", METADATA / "xlsa17" / "AWA2" / "att_splits.mat")
    standard = (root / AWA2 / "trainclasses_PS.txt").read_text()  # the others are not there
    (root / AWA2 / "trainclasses.txt").write_text(standard)
    names = sorted(name for _, name in read_pairs(root / AWA2 / "classes.txt"))
    unseen = set((root / AWA2 / "testclasses_PS.txt").read_text().split())
    splits = scipy.io.loadmat(METADATA / "xlsa17" / "AWA2" / "att_splits.mat")
    is_unseen = np.zeros(37_322, bool)
    is_unseen[splits["test_unseen_loc"].ravel().astype(int) - 1] = True
    edges = np.flatnonzero(np.diff(is_unseen.astype(int))) + 1
    runs = np.split(np.arange(37_322), edges)
    flags = [name in unseen for name in names]
    groups = np.split(np.array(names), np.flatnonzero(np.diff(np.array(flags, int))) + 1)
    assert len(runs) == len(groups)  # seen and unseen blocks alternate as the names do
    lines = []
    for run, group in zip(runs, groups, strict=True):
        for part, name in zip(np.array_split(run, len(group)), group, strict=True):
            lines += [f"{name}_{10001 + i}.jpg\n" for i in range(len(part))]
    (root / FILE_NAMES).parent.mkdir(parents=True)
    (root / FILE_NAMES).write_text("".join(lines))


def real_cub(root, monkeypatch):
    """The real tables; images.txt with made-up names, attributes of pictures left out."""
    folder = root / cub.FOLDER
    (folder / "attributes").mkdir(parents=True)
    for name in ("classes.txt", "image_class_labels.txt"):
        shutil.copyfile(METADATA / "CUB" / name, folder / name)
    table = "class_attribute_labels_continuous.txt"
    shutil.copyfile(METADATA / "CUB" / table, folder / "attributes" / table)
    put(root, "CUB", METADATA / "xlsa17" / "CUB" / "sent_splits.mat")
    classes = dict(read_pairs(folder / "classes.txt"))
    pairs = read_pairs(folder / "image_class_labels.txt")
    (folder / "images.txt").write_text(
        "".join(f"{image} {classes[c]}/bird_{image}.jpg\n" for image, c in pairs)
    )
    traits = "".join(f"{a} has_trait::t{a}\n" for a in range(1, 313))
    (root / "attributes.txt").write_text(traits)
    monkeypatch.setattr(
        cub, "read_image_attributes", lambda _, images, a: np.zeros((len(images), a), np.float32)
    )


def real_sun(root):
    """The real splits; twenty made-up pictures of each scene."""
    file = METADATA / "xlsa17" / "SUN" / "att_splits.mat"
    put(root, "SUN", file)
    splits = scipy.io.loadmat(file)
    names = [str(cell[0]) for cell in splits["allclasses_names"].ravel()]
    folder = root / "SUNAttributeDB"
    folder.mkdir()
    images = [f"{name[0]}/{name}/sun_{i}.jpg" for name in names for i in range(20)]
    scipy.io.savemat(folder / "images.mat", {"images": cells(images)})
    traits = [f"trait {a}" for a in range(102)]
    scipy.io.savemat(folder / "attributes.mat", {"attributes": cells(traits)})
    values = np.repeat(splits["original_att"].T, 20, axis=0)
    scipy.io.savemat(folder / "attributeLabels_continuous.mat", {"labels_cv": values})


@needs_metadata
@pytest.mark.parametrize(
    ("source", "parts", "classes", "queries"),
    [
        (Awa2(), (23_527, 5_882, 7_913), (40, 10), 1000),
        (Cub(), (7_057, 1_764, 2_967), (150, 50), 1500),
        (Sun(), (10_320, 2_580, 1_440), (645, 72), 720),
    ],
    ids=["awa2", "cub", "sun"],
)
def test_real_metadata_give_the_published_counts(
    source, parts, classes, queries, tmp_path, monkeypatch
):
    if source.name == "cub":
        real_cub(tmp_path, monkeypatch)
    else:
        {"awa2": real_awa2, "sun": real_sun}[source.name](tmp_path)
    index = index_of(source, tmp_path)
    split, selection = drawn(source, tmp_path, "proposed", index)
    rows = index.rows
    assert tuple(int(rows.subsets[part].sum()) for part in xlsa17.PARTS) == parts
    seen = len(selection.seen_classes)
    assert (seen, len(selection.class_names) - seen) == classes
    assert (len(split.train), len(split.query)) == (parts[0], queries)
    assert len(split.database) == parts[1] + parts[2] - queries
    published = source.protocol("proposed").published
    assert {part: len(getattr(split, part)) for part in ("train", "query", "database")} == {
        part: published[part] for part in ("train", "query", "database")
    }
    assert (len(rows), len(rows.class_names)) == (published["rows"], published["classes"])
    standard = {"awa2": 40, "cub": 150, "sun": 500}[source.name]
    assert len(rows.class_sets["standard"]) == standard
    if source.name != "awa2":  # whose classes have made-up sizes
        other, _ = drawn(source, tmp_path, "pixel", index)
        assert len(other.database) == source.protocol("pixel").published["database"]
    statements = source.attributes(tmp_path)
    assert len(statements) == (1 if source.name == "cub" else 2)
    for statement in statements:
        assert np.allclose(statement.for_classes(rows.class_names), rows.attributes.values)


@pytest.fixture(scope="module")
def awa2_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("awa2")
    write_awa2(root)
    assert main.main(["prepare", "awa2", "--root", str(root)]) == 0
    return root


def test_the_papers_split_has_its_numbers(awa2_root):
    split, selection = drawn(Awa2(), awa2_root, "pixel", query=2, train=3)
    labels = selection.labels.argmax(1)
    unseen = [c for c in range(50) if c not in selection.seen_classes]
    assert (np.bincount(labels[split.train], minlength=50)[list(selection.seen_classes)] == 3).all()
    assert (np.bincount(labels[split.query], minlength=50)[unseen] == 2).all()
    assert len(split.train) + len(split.query) + len(split.database) == len(selection)
    assert not set(labels[split.query]) & set(labels[split.train])


def test_the_proposed_split_takes_the_marked_rows(awa2_root):
    split, selection = drawn(Awa2(), awa2_root, "proposed", query=2)
    subsets = selection.index.rows.subsets
    assert np.array_equal(split.train, np.flatnonzero(subsets["trainval"]))
    assert subsets["test_unseen"][split.query].all() and len(split.query) == 10 * 2
    rest = np.flatnonzero(subsets["test_seen"] | subsets["test_unseen"])
    assert np.array_equal(split.database, np.setdiff1d(rest, split.query))


def test_the_released_split_leaks_and_says_so(awa2_root, tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    split, selection = drawn(Awa2(), awa2_root, "pixel_released", query=2, train=3)
    assert (len(split.train), len(split.query)) == (40 * 3, 10 * 2)
    assert len(split.database) == 40 * 2 + 10 * 3
    assert np.intersect1d(split.query, split.database).size
    assert np.intersect1d(split.train, split.database).size
    numbers = ["dataset.split.query=2", "dataset.split.train=3"]
    config = compose(
        ["dataset=awa2", f"dataset.root={awa2_root}", "dataset.split.name=pixel_released", *numbers,
         *PIXELS, *QUICK, "method=csq", "runner.epochs=1", "eval.select=last",
         f"output={tmp_path}"]
    )  # fmt: skip
    metrics = run_config(config).metrics()
    assert "awa2/pixel_released" in metrics["protocol"]["split"]
    assert "queries and training rows stand in the database" in metrics["protocol"]["split"]
    names = ["dataset.split.name=pixel_released", *numbers]
    findings = {f.check: f for f in verify("awa2", str(awa2_root), names, quick=True)}
    assert findings["queries among the database rows"].ok is None
    assert findings["queries among the database rows"].value.startswith(
        str(np.intersect1d(split.query, split.database).size)
    )


def test_as_many_leak_as_in_the_released_lists():
    """CUB's released lists: 735 of 1,500 queries and 2,187 of 4,500 training rows leak."""

    sizes = [59] * 188 + [58] * 12  # 11,788 rows; the real classes have 41 to 60
    labels = np.repeat(np.eye(200, dtype=np.float32), sizes, axis=0)
    names = tuple(map(str, range(200)))
    selection = Selection(None, np.arange(len(labels)), labels, names, tuple(range(150)))
    split = as_released(selection, Cub().protocol("pixel_released"))
    assert (len(split.train), len(split.query), len(split.database)) == (4500, 1500, 5788)
    assert abs(np.intersect1d(split.query, split.database).size - 735) < 60
    assert abs(np.intersect1d(split.train, split.database).size - 2187) < 110
    union = np.unique(np.concatenate([split.train, split.query, split.database]))
    assert abs(len(union) - 8866) < 150
    with pytest.raises(UserError, match="rows are needed of class '188'"):
        as_released(selection, dataclasses.replace(Cub().protocol("pixel_released"), query=58))


def test_pzsh_lists_with_features_are_read(awa2_root, tmp_path):
    split, selection = drawn(Awa2(), awa2_root, "pixel", query=1, train=1)
    names = [selection.index.rows.keys[row] for row in selection.rows]
    bits = selection.labels.astype(int)
    for part, tail in (("train", "\t a caption\t0.25 -1.5"), ("query", ""), ("database", "")):
        rows = getattr(split, part)
        lines = [
            f"{names[r].rpartition('_')[0]}/{names[r]}.jpg\t{' '.join(map(str, bits[r]))}{tail}\n"
            for r in rows
        ]
        file = {"train": "train.txt", "query": "test.txt", "database": "database.txt"}[part]
        (tmp_path / file).write_text("".join(lines))
    words = ["dataset=awa2", f"dataset.root={awa2_root}", "dataset.split.name=lists"]
    config = compose([*words, f"dataset.split.lists={tmp_path}"]).dataset
    dataset = config.entry.target(config.config, "awa2")
    assert dataset.split.counts == split.counts
    assert dataset.split.hash == split.hash
    assert dataset.class_names == selection.class_names and len(dataset.seen_classes) == 40


def test_a_row_for_another_class_is_found_by_name(awa2_root, tmp_path):
    root = tmp_path / "awa2"
    shutil.copytree(awa2_root, root)
    file = root / "xlsa17" / "data" / "AWA2" / "att_splits.mat"
    splits = {k: v for k, v in scipy.io.loadmat(file).items() if not k.startswith("__")}
    order = np.random.default_rng(1).permutation(50)

    def attribute_findings():
        findings = verify("awa2", str(root), ONE, quick=False)
        return [f for f in findings if f.check.startswith("attributes by class name")]

    names = splits["allclasses_names"]
    moved = {**splits, "allclasses_names": names[order], "original_att":
             splits["original_att"][:, order]}  # fmt: skip
    scipy.io.savemat(file, moved)  # the same statement in another order
    assert [f.ok for f in attribute_findings()] == [True, True]
    scipy.io.savemat(file, {**splits, "allclasses_names": names[order]})  # rows under other names
    official, other = attribute_findings()
    assert official.ok and other.ok is False and "has those of" in other.value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(test_seen_loc=m["test_seen_loc"] * 0 + 9999), "rows 1 to 250"),
        (lambda m: m.update(test_unseen_loc=m["test_unseen_loc"] + 1), "does not fit the order"),
        (lambda m: m.update(trainval_loc=m["trainval_loc"][1:]), "1 rows are in no part"),
        (lambda m: m.pop("trainval_loc"), "lacks trainval_loc"),
    ],
)
def test_marks_that_do_not_fit_are_refused(change, message, awa2_root, tmp_path):
    root = tmp_path / "awa2"
    shutil.copytree(awa2_root, root)
    file = root / "xlsa17" / "data" / "AWA2" / "att_splits.mat"
    splits = {k: v for k, v in scipy.io.loadmat(file).items() if not k.startswith("__")}
    change(splits)
    scipy.io.savemat(file, splits)
    with pytest.raises(UserError, match=message):
        Awa2().read(root)


def test_without_xlsa17_only_its_split_is_missing(tmp_path, capsys):
    write_awa2(tmp_path)
    shutil.rmtree(tmp_path / "xlsa17")
    assert main.main(["prepare", "awa2", "--root", str(tmp_path)]) == 0
    splits = json.loads((tmp_path / "awa2.splits.json").read_text())
    assert "the file that states it was not there" in splits["proposed"]["missing"]
    assert load_index(tmp_path, "awa2").layout != MAT
    assert len(Awa2().attributes(tmp_path)) == 1


def test_awa2_rows_are_alphabetical_and_columns_those_of_the_classes_file(awa2_root):
    rows = Awa2().read(awa2_root)
    assert rows.keys[0] == "animal+00_10001" and rows.keys[5] == "animal+01_10001"
    assert rows.class_names[1] == "animal+07" and rows.labels[35, 1] == 1
    matrix = np.loadtxt(awa2_root / AWA2 / "predicate-matrix-continuous.txt")
    assert np.allclose(rows.attributes.values, matrix / 100)
    assert rows.attributes.values.min() == np.float32(-0.01)


def test_awa2_says_what_is_missing(tmp_path):
    write_awa2(tmp_path)
    (tmp_path / AWA2 / "JPEGImages" / "yeti").mkdir()
    shutil.copyfile(
        next((tmp_path / AWA2 / "JPEGImages").glob("*/*.jpg")),
        tmp_path / AWA2 / "JPEGImages" / "yeti" / "yeti_10001.jpg",
    )
    with pytest.raises(UserError, match="pictures of 'yeti': no class"):
        Awa2().read(tmp_path)
    (tmp_path / AWA2 / "predicates.txt").unlink()
    with pytest.raises(UserError, match=r"predicates.txt' does not exist; put AwA2-base.zip"):
        Awa2().read(tmp_path)


def test_cub_attributes_of_pictures_are_weighted_by_certainty(tmp_path):
    write_cub(tmp_path)
    rows = Cub().read(tmp_path)
    weight = {1: 0.0, 2: 0.5, 3: 0.75, 4: 1.0}
    for row in (0, 5, 399):
        expected = [
            ((row + 1 + a) % 2) * weight[1 + (row + 1 + 2 * a) % 4] for a in (1, 2, 3)
        ]  # fmt: skip
        assert rows.extras["image_attributes"][row].tolist() == expected
    assert rows.class_sets["standard"] == rows.class_names[:150]
    assert set(rows.class_sets["proposed"]) != set(rows.class_names[:150])
    file = tmp_path / cub.FOLDER / "attributes" / "image_attribute_labels.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="lacks 1 of 1,200 attributes"):
        Cub().read(tmp_path)
    file.write_text("".join([*lines, "401 1 1 4 0.1\n"]))
    with pytest.raises(UserError, match="a picture, an attribute"):
        Cub().read(tmp_path)
    file.write_text("1 1 x 4\n")
    with pytest.raises(UserError, match="missing or broken"):
        Cub().read(tmp_path)
    table = tmp_path / cub.FOLDER / "image_class_labels.txt"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(UserError, match=r"lacks number '1'"):
        Cub().read(tmp_path)


def test_sun_scenes_and_attributes(tmp_path):
    write_sun(tmp_path)
    rows = Sun().read(tmp_path)
    assert rows.class_names[:2] == ("s000_indoor", "s001")
    assert rows.keys[0] == "a/s000/indoor/sun_0000"
    assert Sun().list_key("/data/SUN/images/a/s000/indoor/sun_0000.jpg") == rows.keys[0]
    values = scipy.io.loadmat(tmp_path / "SUNAttributeDB" / "attributeLabels_continuous.mat")
    assert np.allclose(rows.extras["image_attributes"], values["labels_cv"])
    assert np.allclose(rows.attributes.values[5], values["labels_cv"][10:12].mean(0))
    scipy.io.savemat(
        tmp_path / "SUNAttributeDB" / "attributeLabels_continuous.mat",
        {"labels_cv": values["labels_cv"][1:]},
    )
    with pytest.raises(UserError, match="lists 1434 pictures; they must agree"):
        Sun().read(tmp_path)
