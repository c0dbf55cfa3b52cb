"""Painted pictures of classes as inputs and rows of a dataset; broken folders are named."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest
from PIL import Image

from dataset.auxiliary.captions import with_generated
from dataset.auxiliary.pseudo_images import PSEUDO, TGI
from dataset.base import ArrayImages, HashDataset
from dataset.splits import SplitManifest
from utils.errors import UserError

N, C = 10, 4
NAMES = ("ant", "bee", "cow", "doe")


@pytest.fixture
def dataset():
    """Return rows 0..9 of classes 0,1,2,3,0,…; the last class is unseen."""
    labels = np.eye(C, dtype=np.float32)[np.arange(N) % C]
    split = SplitManifest(np.array([0, 1, 4, 5, 8]), np.array([3]), np.array([2, 6, 7, 9]), "toy")
    return HashDataset(
        name="toy", images=ArrayImages(np.zeros((N, 4, 4, 3), np.uint8), "zeros"), labels=labels,
        class_names=NAMES, multi_label=False, split=split, seen_classes=(0, 1, 2),
        texts=[(f"text {i}",) for i in range(N)], extras={"depth": np.ones((N, 2), np.float32)},
    )  # fmt: skip


def write(folder, entries):
    """Write pictures (class, number, row or None) and the list of them."""
    lines = []
    for value, (name, number, row) in enumerate(entries):
        file = f"{name}/{number:05d}.png"
        (folder / name).mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (4, 4), (value, 0, 0)).save(folder / file)
        entry = {"file": file, "class": name, "number": number, "prompt": f"a {name} {number}"}
        lines.append(json.dumps(entry if row is None else {**entry, "row": row}))
    (folder / "pictures.jsonl").write_text("\n".join(lines) + "\n")
    return folder


SEEN = [("ant", 0, None), ("ant", 1, None), ("bee", 0, None)]
UNSEEN = [("doe", 1, None), ("doe", 0, None)]


def shown(inputs):
    return {int(r): inputs.images.names[i] for i, r in enumerate(inputs.rows)}


def test_rows_take_pictures_of_their_class_in_turn(dataset, tmp_path):
    grown = with_generated(dataset, write(tmp_path, UNSEEN + SEEN))
    pseudo = grown.auxiliary[PSEUDO]
    assert shown(pseudo) == {
        0: "ant/00000.png", 4: "ant/00001.png", 8: "ant/00000.png", 1: "bee/00000.png",
        5: "bee/00000.png", 10: "doe/00000.png", 11: "doe/00001.png",
    }  # fmt: skip
    assert pseudo.rows.tolist() == sorted(pseudo.rows) and pseudo.parts == ("train",)
    assert pseudo.ahead and pseudo.texts[0] == "a ant 0"
    assert grown.generated.rows.tolist() == [10, 11] and grown.generated.name == TGI
    assert "of 1 unseen classes" in grown.generated.source
    assert len(dataset) == N, "the dataset itself stays as it is"
    assert dataset.auxiliary == {} and dataset.generated is None


def test_further_rows(dataset, tmp_path):
    grown = with_generated(dataset, write(tmp_path, UNSEEN + SEEN))
    assert len(grown) == len(grown.images) == N + 2
    assert grown.labels[N:].tolist() == [[0, 0, 0, 1]] * 2
    assert grown.images.decode(10)[0, 0, 0] == 1 and grown.images.decode(11)[0, 0, 0] == 0
    assert grown.images.decode(3).sum() == 0
    assert grown.texts[11] == ("a doe 1",) and grown.extras["depth"].shape == (N + 2, 2)
    assert grown.split is dataset.split


def test_a_row_takes_the_picture_painted_from_it(dataset, tmp_path):
    entries = [("ant", 0, 8), ("ant", 1, 0), ("ant", 2, 8), ("bee", 0, 5)]
    pseudo = with_generated(dataset, write(tmp_path, entries)).auxiliary[PSEUDO]
    found = shown(pseudo)
    assert found[8] == "ant/00000.png" and found[0] == "ant/00001.png"
    assert found[4] == "ant/00000.png", "in turn, where none was painted from the row"
    assert found[5] == found[1] == "bee/00000.png"


def test_pictures_of_unseen_classes_alone(dataset, tmp_path):
    grown = with_generated(dataset, write(tmp_path, UNSEEN))
    assert grown.auxiliary == {} and grown.generated is not None


def test_seen_classes_alone_add_no_row(dataset, tmp_path):
    grown = with_generated(dataset, write(tmp_path, SEEN))
    assert set(grown.auxiliary) == {PSEUDO} and len(grown) == N and grown.generated is None
    every = dataclasses.replace(dataset, seen_classes=())  # no zero-shot set: all are seen
    every = with_generated(every, write(tmp_path, SEEN + UNSEEN))
    assert set(every.auxiliary) == {PSEUDO} and every.generated is None


def test_features_of_the_folder(dataset, tmp_path):
    write(tmp_path, SEEN)
    files = [f"{name}/{number:05d}.png" for name, number, _ in SEEN][::-1]
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file["pooled"] = np.arange(6, dtype=np.float32).reshape(3, 2)
        file.create_dataset("file", data=files, dtype=h5py.string_dtype())
        file.attrs["encoder"] = "abc"
    pseudo = with_generated(dataset, tmp_path).auxiliary[PSEUDO]
    assert pseudo.encoder == "abc"
    assert pseudo.features[pseudo.rows.tolist().index(1)].tolist() == [0, 1]
    assert pseudo.features[pseudo.rows.tolist().index(0)].tolist() == [4, 5]
    write(tmp_path, [*SEEN, ("bee", 1, None)])  # painted later, without features
    assert with_generated(dataset, tmp_path).auxiliary[PSEUDO].features is None
    (tmp_path / "features.h5").write_bytes(b"nothing")
    with pytest.raises(UserError, match="features.h5' is not what `main.py generate` writes"):
        with_generated(dataset, tmp_path)


def line(path, c, value, between=("caption",)):
    label = " ".join("1" if i == c else "0" for i in range(C))
    return "\t".join([path, label, *between, f"{value} {value + 0.5}"])


def test_a_list_of_features(dataset, tmp_path):
    write(tmp_path, UNSEEN)
    told = [line(f"picture {row}", row % C, row) for row in (8, 0, 1, 4, 5)]
    told += ["too\tshort", line("doe/00001.png", 3, 70, ()), line("doe/00000.png", 3, 80)]
    (tmp_path / "list.txt").write_text("\n".join(told) + "\n")
    grown = with_generated(dataset, tmp_path / "list.txt")
    pseudo, further = grown.auxiliary[PSEUDO], grown.generated
    assert pseudo.rows.tolist() == [0, 1, 4, 5, 8, 10, 11]
    assert pseudo.features[:, 0].tolist() == [0, 1, 4, 5, 8, 70, 80]
    assert pseudo.images is None and pseudo.encoder == ""
    assert further.rows.tolist() == [10, 11] and grown.images.decode(10)[0, 0, 0] == 0
    assert "list.txt" in further.source and "2 pictures and features" in further.source


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a\tb\n", "has no line of path, labels and feature"),
        (line("picture 0", 0, 1) + "\n" + line("picture 1", 1, 1) + " 3", "2: a feature of 3 numb"),
        ("picture 0\t1 0\t1 2", "1: 2 labels, but dataset 'toy' has 4 classes"),
        ("picture 0\tx 0\t1 2", "1: 'x 0…' is not a list of numbers"),
        (line("gone.png", 1, 2), "'gone.png' is no picture of dataset 'toy', nor a file below"),
    ],
)
def test_broken_lists(dataset, tmp_path, content, told):
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(UserError, match=told):
        with_generated(dataset, tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "pictures.jsonl:1: a line with class, number, file and prompt is needed"),
        ('{"file": "x", "class": "ant", "number": "z", "prompt": ""}', "jsonl:1: a line with"),
        (
            '{"file": "x", "class": "anf", "number": 0, "prompt": ""}',
            "no class 'anf'. Did you mean",
        ),
        (
            '{"file": "x", "class": "ant", "number": 0, "prompt": ""}',
            "the picture 'x' is not there",
        ),
        ("\n", "lists no picture"),
    ],
)
def test_broken_folders(dataset, tmp_path, content, told):
    (tmp_path / "pictures.jsonl").write_text(content)
    with pytest.raises(UserError, match=told):
        with_generated(dataset, tmp_path)
