"""CIFAR-10, CIFAR-100, Stanford Cars and NABirds: official files and protocols."""

import shutil
import tarfile

import numpy as np
import pytest
import scipy.io

import main
from common.config.run_config import compose
from dataset.base import BadImageError
from dataset.preparation.index import load_index
from dataset.sources import cifar10, cifar100, nabirds, stanford_cars
from dataset.sources.cifar_records import RecordImages
from runners.commands.verify import verify
from tests.dataset.sources.layouts import WRITERS
from tests.dataset.sources.layouts_images import CARS, write_annotations
from utils.errors import UserError


def opened(name, root, *words):
    dataset = compose([f"dataset={name}", f"dataset.root={root}", *words]).dataset
    return dataset.entry.target(dataset.config, name)


@pytest.mark.parametrize(
    ("name", "split", "query", "train", "database"),
    [("cifar10", "cifar10", 1, 2, 9), ("cifar10", "cifar10-1", 1, 2, 11),
     ("cifar10", "cifar10-2", 1, 2, 2), ("cifar10", "fire_ep1", 1, 2, 11),
     ("cifar100", "shc", 1, 2, 1)],
)  # fmt: skip
def test_cifar_draws_per_class(name, split, query, train, database, roots):
    words = [f"dataset.split.name={split}", f"dataset.split.query={query}"]
    dataset = opened(name, roots(name), *words, f"dataset.split.train={train}")
    labels = dataset.labels.argmax(1)
    for part, each in (("query", query), ("train", train), ("database", database)):
        assert (np.bincount(labels[getattr(dataset.split, part)]) == each).all()
    assert not np.intersect1d(dataset.split.query, dataset.split.database).size
    disjoint = split in ("cifar10", "shc")
    assert bool(np.intersect1d(dataset.split.train, dataset.split.database).size) != disjoint


@pytest.mark.parametrize(
    ("name", "split", "train", "test"),
    [("cifar100", "official", 300, 100), ("stanford_cars", "B", 18, 12), ("nabirds", "B", 15, 17)],
)  # fmt: skip
def test_official_halves(name, split, train, test, roots):
    dataset = opened(name, roots(name), f"dataset.split.name={split}")
    subsets = load_index(roots(name), name).rows.subsets
    assert np.array_equal(dataset.split.train, np.flatnonzero(subsets["train"]))
    assert np.array_equal(dataset.split.query, np.flatnonzero(subsets["test"]))
    assert np.array_equal(dataset.split.database, dataset.split.train)
    assert (len(dataset.split.train), len(dataset.split.query)) == (train, test)


def test_cifar10_shuffles_class_after_class(roots):
    sizes = ["dataset.split.query=2", "dataset.split.train=3"]
    splits = {
        name: opened("cifar10", roots("cifar10"), f"dataset.split.name={name}", *sizes).split
        for name in ("cifar10", "cifar10-1", "fire_ep1")
    }
    labels = opened("cifar10", roots("cifar10"), *sizes).labels.argmax(1)
    np.random.seed(0)  # as the releases draw: the global generator, another function
    drawn = []
    for c in range(10):
        members = np.flatnonzero(labels == c)
        np.random.shuffle(members)
        drawn.append(members)
    for split in splits.values():
        assert split.query.tolist() == [row for rows in drawn for row in rows[:2]]
        assert split.train.tolist() == [row for rows in drawn for row in rows[2:5]]
    rest = [row for rows in drawn for row in rows[5:]]
    assert splits["cifar10"].database.tolist() == rest
    assert splits["cifar10-1"].database.tolist() == [*splits["cifar10"].train, *rest]
    assert splits["fire_ep1"].database.tolist() == [row for rows in drawn for row in rows[2:]]
    with pytest.raises(UserError, match="query=2 and dataset.split.train=11 rows per class are no"):
        opened("cifar10", roots("cifar10"), sizes[0], "dataset.split.train=11")


@pytest.mark.parametrize("name", ["stanford_cars", "nabirds"])
def test_a_is_a_draw_with_the_official_sizes(name, roots):
    a = opened(name, roots(name), "dataset.split=A")
    b = opened(name, roots(name), "dataset.split=B")
    assert a.split.counts == b.split.counts and a.split.hash != b.split.hash
    assert np.array_equal(a.labels[a.split.train].sum(0), b.labels[b.split.train].sum(0))
    assert "our reading" in a.split.rule and "our reading" in b.split.rule
    other = opened(name, roots(name), "dataset.split.name=A", "dataset.split.seed=5")
    assert other.split.hash != a.split.hash
    drawn = opened(name, roots(name), "dataset.split.name=A", "dataset.split.query=2")
    assert (drawn.labels[drawn.split.query].sum(0) == 2).all()


@pytest.mark.parametrize(("module", "name", "before"), [(cifar10, "cifar10", 1),
                                                        (cifar100, "cifar100", 2)])  # fmt: skip
def test_cifar_pictures_are_the_planes_of_the_records(module, name, before, roots):
    root = roots(name)
    rows = load_index(root, name).rows
    source = type(compose([f"dataset={name}"]).dataset.config).source
    images = source.images(root, rows.paths)
    row = 23
    number, file = int(rows.paths[row].partition("#")[2]), rows.paths[row].partition("#")[0]
    record = np.fromfile(root / file, np.uint8).reshape(-1, before + 3072)[number]
    image = images.decode(row)
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    for channel in range(3):
        for y, x in ((0, 0), (3, 31), (31, 7)):
            assert image[y, x, channel] == record[before + 1024 * channel + 32 * y + x]
    assert rows.labels[row].argmax() == record[before - 1]
    assert images.name(row) == str(root / rows.paths[row]) and len(images) == len(rows)
    fewer = source.images(root, rows.paths[1:])
    assert fewer.fingerprint != images.fingerprint
    with pytest.raises(BadImageError, match="does not exist"):
        RecordImages(root, ["nosuch.bin#0"], before).decode(0)
    with pytest.raises(BadImageError, match="cut short"):
        RecordImages(root, [f"{file}#100000"], before).decode(0)


def test_a_cut_or_changed_cifar_file_is_found(roots, tmp_path):
    root = tmp_path / "cifar10"
    shutil.copytree(roots("cifar10"), root)
    file = root / cifar10.FILES[2]
    content = bytearray(file.read_bytes())
    content[5 * 3073 + 9] ^= 0xFF
    file.write_bytes(content)
    words = ["dataset.split.query=1", "dataset.split.train=1"]
    findings = {f.check: f for f in verify("cifar10", str(root), words, quick=False)}
    assert findings["pictures changed since prepare"].value.startswith("1 (")
    assert "data_batch_3.bin#5" in findings["pictures changed since prepare"].value
    content[: 3073 * 2] = content[3073 * 3 : 3073 * 5]  # pictures of other records
    file.write_bytes(content)
    findings = {f.check: f for f in verify("cifar10", str(root), words, quick=False)}
    assert findings["official files"].ok is False and "labels" in findings["official files"].value
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match="no whole number of records of 3,073"):
        cifar10.Cifar10().read(root)
    content[0] = 11
    file.write_bytes(content)
    with pytest.raises(UserError, match="class 11, but .* names 10 classes"):
        cifar10.Cifar10().read(root)
    file.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        cifar10.Cifar10().read(root)


@pytest.mark.parametrize(
    ("name", "archives"),
    [("cifar10", {"cifar-10-binary.tar.gz": [cifar10.FOLDER]}),
     ("cub", {"CUB_200_2011.tgz": ["CUB_200_2011", "attributes.txt"], "xlsa17.zip": ["xlsa17"]}),
     ("stanford_cars", {"car_devkit.tgz": ["devkit"], "cars_train.tgz": ["cars_train"],
                        "cars_test.tgz": ["cars_test"]}),
     ("nabirds", {"nabirds.tar.gz": [nabirds.FOLDER]})],
)  # fmt: skip
def test_from_archives(name, archives, tmp_path, roots):
    WRITERS[name](tmp_path)
    for archive, members in archives.items():
        if archive.endswith(".zip"):
            shutil.make_archive(str(tmp_path / archive[:-4]), "zip", tmp_path, members[0])
        else:
            with tarfile.open(tmp_path / archive, "w:gz") as opened_archive:
                for member in members:
                    opened_archive.add(tmp_path / member, member)
        for member in members:
            path = tmp_path / member
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert main.main(["prepare", name, "--root", str(tmp_path)]) == 0
    assert load_index(tmp_path, name).content == load_index(roots(name), name).content


def test_cars_labels_and_lists(roots, tmp_path):
    root = roots("stanford_cars")
    rows = stanford_cars.StanfordCars().read(root)
    assert rows.class_names == tuple(CARS)
    assert rows.labels.argmax(1)[:5].tolist() == [0, 1, 2, 0, 2]
    assert rows.keys[18] == "cars_test/00001" and rows.paths[18] == "cars_test/00001.jpg"
    bits = rows.labels.astype(int)
    for name, chosen in (("train", range(18)), ("test", range(20, 26)), ("database", range(18))):
        lines = [f"x/{rows.paths[r]} {' '.join(map(str, bits[r]))}\n" for r in chosen]
        (tmp_path / f"{name}.txt").write_text("".join(lines))
    words = ["dataset.split.name=lists", f"dataset.split.lists={tmp_path}"]
    dataset = opened("stanford_cars", root, *words)
    named = [dataset.images.name(int(row)) for row in dataset.split.query]
    assert named == [str(root / rows.paths[r]) for r in range(20, 26)]
    assert len(dataset) == 24


def test_cars_annotations_without_labels_or_with_strange_ones(tmp_path):
    WRITERS["stanford_cars"](tmp_path)
    names = [f"{i:05d}.jpg" for i in range(1, 13)]
    write_annotations(tmp_path / stanford_cars.LABELS, names, None)
    with pytest.raises(UserError, match="states no class or no file name; the annotations with"):
        stanford_cars.StanfordCars().read(tmp_path)
    write_annotations(tmp_path / stanford_cars.LABELS, names, [4] * 12)
    with pytest.raises(UserError, match="a class that cars_meta.mat does not name"):
        stanford_cars.StanfordCars().read(tmp_path)
    (tmp_path / stanford_cars.LABELS).unlink()
    write_annotations(tmp_path / "devkit" / stanford_cars.LABELS, names, [1] * 12)
    assert not stanford_cars.StanfordCars().files[1].lacking(tmp_path)
    assert stanford_cars.StanfordCars().read(tmp_path).labels[18:, 0].all()
    scipy.io.savemat(tmp_path / "devkit" / "cars_meta.mat", {"other": 1})
    with pytest.raises(UserError, match="class_names"):
        stanford_cars.StanfordCars().read(tmp_path)


def test_nabirds_classes_are_those_that_photos_carry(roots, tmp_path):
    rows = nabirds.NaBirds().read(roots("nabirds"))
    assert rows.class_names == ("Oak Titmouse", "Mallard (297)", "Mallard (900)", "Loon")
    assert rows.labels.sum(0).tolist() == [8, 8, 8, 8] and rows.labels[5, 1] == 1
    assert rows.keys[1] == "00000001aaaa4bbb8cccddddeeeeffff"
    shutil.copytree(roots("nabirds"), tmp_path / "copy")
    table = tmp_path / "copy" / nabirds.FOLDER / "train_test_split.txt"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[1:]))
    with pytest.raises(UserError, match="lack '00000000-aaaa-4bbb-8ccc-ddddeeeeffff'"):
        nabirds.NaBirds().read(tmp_path / "copy")
    table.write_text("alone\n")
    with pytest.raises(UserError, match="line 1: 'alone' is not a number and a name"):
        nabirds.NaBirds().read(tmp_path / "copy")
