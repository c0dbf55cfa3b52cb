"""The .mat layouts of DCMHT and MITH, in every shape they are found in, and bad ones refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from common.registry import DATASETS
from dataset.images import FileImages
from dataset.mat import MatConfig, build
from dataset.splits import SplitConfig
from utils.errors import UserError

FLICKR = Path(__file__).parents[3] / "shared" / "data" / "flickr8k"
N, C = 6, 3
NAMES = [f"images/{'x' * i}{i}.jpg" for i in range(N)]
SINGLE = [f"tag{i} sea" if i % 2 else f"a much longer row of tags {i}" for i in range(N)]
SEVERAL = [tuple(f"caption {j} of {i}{' dog' * j}" for j in range(5 + i % 2)) for i in range(N)]
LABELS = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0], [0, 1, 1]])


def cells(values, shape) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array.reshape(shape)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for i, name in enumerate(NAMES):
        Image.new("RGB", (20 + i, 16), (i * 10, 0, 0)).save(tmp_path / name)
    scipy.io.savemat(tmp_path / "index.mat", {"index": np.array(NAMES)})
    scipy.io.savemat(tmp_path / "caption.mat", {"caption": np.array(SINGLE)})
    scipy.io.savemat(tmp_path / "label.mat", {"category": LABELS})
    return tmp_path


def load(root: Path, **keys):
    keys.setdefault("split", SplitConfig(query=2))
    return build(MatConfig(root=str(root), **keys), "toy")


def test_the_plain_layout(root):
    dataset = load(root)
    assert DATASETS.get("mat").target is build
    assert dataset.name == "toy" and len(dataset) == N and dataset.multi_label
    assert dataset.labels.dtype == np.float32
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.texts == [(text,) for text in SINGLE]
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    assert dataset.images.name(2) == str(root / NAMES[2])
    assert dataset.images.decode(3).shape == (16, 23, 3)
    assert dataset.split.counts["query"] == 2


CAPTION_SHAPES = {
    "mith 1-d": (np.array(SINGLE), 1),
    "flickr column": (np.array(SINGLE).reshape(-1, 1), 1),
    "row": (np.array(SINGLE).reshape(1, -1), 1),
    "cells of strings, column": (cells(SINGLE, (N, 1)), 1),
    "cells of strings, row": (cells(SINGLE, (1, N)), 1),
    "coco": (cells([np.array(texts) for texts in SEVERAL], (1, N)), 5),
    "coco column": (cells([np.array(texts) for texts in SEVERAL], (N, 1)), 5),
    "nested": (cells([cells(texts, (1, -1)) for texts in SEVERAL], (1, N)), 5),
    "nested twice": (cells([cells([cells(t, (-1, 1))], (1, 1)) for t in SEVERAL], (N, 1)), 5),
    "one cell around": (cells([cells([np.array(t) for t in SEVERAL], (1, N))], (1, 1)), 5),
    "matrix": (np.array([texts[:5] for texts in SEVERAL]), 0),
}


@pytest.mark.parametrize("shape", CAPTION_SHAPES)
@pytest.mark.parametrize("key", ["caption", "tags", "YAll"])
def test_captions_in_every_shape(root, shape, key):
    value, kind = CAPTION_SHAPES[shape]
    scipy.io.savemat(root / "caption.mat", {key: value})
    expected = {1: [(text,) for text in SINGLE], 5: SEVERAL, 0: [t[:5] for t in SEVERAL]}[kind]
    assert load(root).texts == expected


def test_one_caption_is_never_a_list_of_letters(root):
    scipy.io.savemat(root / "caption.mat", {"caption": np.array(["a", "bb", "c", "d", "e", "f"])})
    assert load(root).texts[:2] == [("a",), ("bb",)]


def test_blank_captions(root):
    texts = [np.array(["dog  ", "   ", " cat"]), np.array(["  "]), *[np.array(["x"])] * 4]
    scipy.io.savemat(root / "caption.mat", {"caption": cells(texts, (1, N))})
    # of a cell a blank caption is one of those that are drawn; of a matrix it is padding
    assert load(root).texts[:3] == [("dog", "", " cat"), ("",), ("x",)]
    matrix = np.array([["dog", "", " cat"], ["", "", ""], *[["x", "", ""]] * 4])
    scipy.io.savemat(root / "caption.mat", {"caption": matrix})
    assert load(root).texts[:3] == [("dog", " cat"), ("",), ("x",)]


def test_captions_as_text_file(root):
    (root / "caption.txt").write_text("sea\nsky blue \r\n\n123456\nd\ne\n", encoding="utf-8")
    dataset = load(root, caption_file="caption.txt")
    assert dataset.texts == [("sea",), ("sky blue",), ("",), ("123456",), ("d",), ("e",)]


@pytest.mark.parametrize("key", ["category", "LAll", "labels", "label"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float64, np.float32, bool])
def test_labels_of_every_name_and_type(root, key, dtype):
    scipy.io.savemat(root / "label.mat", {key: LABELS.astype(dtype)})
    labels = load(root).labels
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, LABELS)


def test_sparse_labels_one_class_and_one_row(root):
    scipy.io.savemat(root / "label.mat", {"label": scipy.sparse.csc_matrix(LABELS)})
    np.testing.assert_array_equal(load(root).labels, LABELS)
    scipy.io.savemat(root / "label.mat", {"label": np.ones((N, 1))})
    dataset = load(root)
    assert dataset.labels.shape == (N, 1) and not dataset.multi_label


@pytest.mark.parametrize("shape", [(N, 1), (1, N)])
def test_class_numbers_as_a_column_or_a_row(root, shape):
    numbers = np.arange(N) % 3
    scipy.io.savemat(root / "label.mat", {"label": numbers.reshape(shape).astype(np.float64)})
    np.testing.assert_array_equal(load(root).labels, np.eye(3)[numbers])


@pytest.mark.parametrize("key", ["index", "imgs", "FAll"])
@pytest.mark.parametrize("shape", ["strings", "column", "cells", "absolute"])
def test_picture_paths(root, key, shape):
    names = [f"{root / n}" for n in NAMES] if shape == "absolute" else NAMES
    values = {
        "column": np.array(names).reshape(-1, 1),
        "cells": cells(names, (1, N)),
    }.get(shape, np.array(names))
    scipy.io.savemat(root / "index.mat", {key: values})
    assert load(root).images.decode(5).shape == (16, 25, 3)


def test_image_root_and_paths_of_another_machine(root):
    scipy.io.savemat(root / "index.mat", {"index": np.array([n[7:] for n in NAMES])})
    assert load(root, image_root=str(root / "images")).images.decode(1).shape == (16, 21, 3)
    assert load(root, image_root="images").images.decode(1).shape == (16, 21, 3)
    elsewhere = np.array([f"/home/someone/data/flickr/{n}" for n in NAMES])
    scipy.io.savemat(root / "index.mat", {"index": elsewhere})
    assert load(root).images.decode(4).shape == (16, 24, 3)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_pictures_in_an_array(root, layout):
    pixels = np.random.default_rng(0).integers(0, 256, (N, 8, 9, 3), dtype=np.uint8)
    stored = pixels if layout == "NHWC" else pixels.transpose(0, 3, 1, 2)
    np.save(root / "images.npy", stored)
    dataset = load(root, index_file="images.npy")
    np.testing.assert_array_equal(dataset.images.decode(4), pixels[4])
    labels = LABELS.copy()
    labels[1] = 0
    scipy.io.savemat(root / "label.mat", {"label": labels})
    dataset = load(root, index_file="images.npy", on_unlabelled="drop")
    np.testing.assert_array_equal(dataset.images.decode(3), pixels[4])


def letters(text: str) -> np.ndarray:
    return np.array([[ord(letter)] for letter in text], dtype=np.uint16)


def write_v73(path: Path, key: str, value, noted: bool) -> None:
    """Write as MATLAB does: axes reversed, cells as references; ``noted``: with MATLAB_class."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")

        def note(item, kind):
            if noted:
                item.attrs["MATLAB_class"] = np.bytes_(kind)
            return item

        def put(value, group, name):
            if isinstance(value, str):
                return note(group.create_dataset(name, data=letters(value)), "char")
            if isinstance(value, (list, tuple)):
                inner = [put(v, refs, f"{name}_{i}").ref for i, v in enumerate(value)]
                data = np.array(inner, dtype=h5py.ref_dtype).reshape(-1, 1)
                return note(group.create_dataset(name, data=data), "cell")
            return note(group.create_dataset(name, data=np.asarray(value).T), "double")

        put(value, file, key)
    with open(path, "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("captions", [SINGLE, SEVERAL], ids=["single", "several"])
def test_v73_files(root, noted, captions):
    write_v73(root / "index.mat", "index", NAMES, noted)
    write_v73(root / "caption.mat", "caption", captions, noted)
    write_v73(root / "label.mat", "label", LABELS.astype(np.float64), noted)
    dataset = load(root)
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.texts == [(c,) if isinstance(c, str) else c for c in captions]
    assert dataset.images.name(2) == str(root / NAMES[2])


@pytest.mark.parametrize("noted", [True, False])
def test_v73_character_matrix_and_empty_string(root, noted):
    width = max(map(len, SINGLE))
    matrix = np.array([[ord(letter) for letter in text.ljust(width)] for text in SINGLE], np.uint16)
    with h5py.File(root / "caption.mat", "w") as file:
        item = file.create_dataset("caption", data=matrix.T)
        if noted:
            item.attrs["MATLAB_class"] = np.bytes_("char")
    assert load(root).texts == [(text,) for text in SINGLE]
    with h5py.File(root / "caption.mat", "w") as file:
        empty = file.create_dataset("#refs#/a", data=np.zeros(2, np.uint64))
        empty.attrs["MATLAB_class"] = np.bytes_("char")
        empty.attrs["MATLAB_empty"] = np.uint8(1)
        full = file.create_dataset("#refs#/b", data=letters("dog"))
        refs = np.array([[empty.ref, *[full.ref] * 5]], dtype=h5py.ref_dtype)
        file.create_dataset("caption", data=refs)
    assert load(root).texts == [("",)] + [("dog",)] * 5


def test_hdf5_written_by_python(root):
    with h5py.File(root / "caption.mat", "w") as file:
        file.create_dataset("caption", data=SINGLE, dtype=h5py.string_dtype())
    with h5py.File(root / "label.mat", "w") as file:
        file.create_dataset("label", data=LABELS)  # not in MATLAB's order
    dataset = load(root)
    assert dataset.texts == [(text,) for text in SINGLE]
    np.testing.assert_array_equal(dataset.labels, LABELS)


def test_class_names(root):
    (root / "label_names.txt").write_text("man\nwoman\nboy\n")
    assert load(root).class_names == ("man", "woman", "boy")
    (root / "label_names.txt").write_text("man\n")
    with pytest.raises(UserError, match="names 1 classes, but the labels have 3 columns"):
        load(root)
    with pytest.raises(UserError, match=r"names.txt' does not exist \(dataset.class_names_file\)"):
        load(root, class_names_file="names.txt")
    assert load(root, class_names_file=None).class_names[0] == "class 0"


def test_unlabelled_rows(root):
    labels = LABELS.copy()
    labels[[2, 4]] = 0
    scipy.io.savemat(root / "label.mat", {"label": labels})
    with pytest.raises(UserError, match="2 of 6 rows carry no label, row 2 first; .*=drop"):
        load(root)
    dataset = load(root, on_unlabelled="drop")
    assert len(dataset) == len(dataset.images) == len(dataset.texts) == 4
    assert dataset.images.name(2) == str(root / NAMES[3])
    assert dataset.texts[2] == (SINGLE[3],)
    kept = load(root, on_unlabelled="keep")
    assert len(kept) == N and kept.labels.sum(1).tolist() == labels.sum(1).tolist()


def test_missing_files_and_keys(root):
    with pytest.raises(UserError, match="dataset.root is not set"):
        build(MatConfig(), "toy")
    with pytest.raises(UserError, match="nowhere' is not a folder"):
        load(root / "nowhere")
    (root / "caption.mat").rename(root / "caption_2.mat")
    with pytest.raises(UserError, match=r"caption.mat' does not exist \(.*caption_file=caption_2"):
        load(root)
    scipy.io.savemat(root / "caption.mat", {"words": np.array(SINGLE), "x": 1})
    with pytest.raises(UserError, match="holds words, x; one of caption, tags, YAll is needed"):
        load(root)
    with pytest.raises(UserError, match="on_unlabelled=ignore"):
        load(root, on_unlabelled="ignore")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:-1], "label.mat has 5 rows; they must agree"),
        (LABELS * 2, "must be 0 or 1, but row 0, column 0 is 2"),
        (np.where(LABELS, np.nan, 1.0), "column 0 is nan"),
        (np.array([f"c{i}" for i in range(N)]), "a matrix of 0 and 1"),
        (np.ones((N, 2, 2)), r"of shape \(6, 2, 2\)"),
    ],
)
def test_bad_labels(root, labels, message):
    scipy.io.savemat(root / "label.mat", {"label": labels})
    with pytest.raises(UserError, match=message):
        load(root)


@pytest.mark.parametrize(
    "content", [b"", b"no matlab" * 40, "truncated", "truncated hdf5", "numbers"]
)
def test_broken_caption_files(root, content):
    path = root / "caption.mat"
    if content == "numbers":
        scipy.io.savemat(path, {"caption": np.arange(N)})
    elif content == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif content == "truncated hdf5":
        write_v73(path, "caption", SINGLE, True)
        path.write_bytes(path.read_bytes()[:1500])
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"caption.mat'"):
        load(root)


def test_pictures_that_are_not_there(root):
    scipy.io.savemat(root / "index.mat", {"index": np.array([f"photos/{n}" for n in NAMES])})
    with pytest.raises(UserError, match=r"photos/images/0.jpg', does not exist at .*image_root"):
        load(root)
    scipy.io.savemat(root / "index.mat", {"index": np.array(["a", " ", "b", "c", "d", "e"])})
    with pytest.raises(UserError, match="row 1 has none"):
        load(root)
    np.save(root / "images.npy", np.zeros((N, 4, 4)))
    with pytest.raises(UserError, match="float64 of shape"):
        load(root, index_file="images.npy")


def test_the_real_flickr8k():
    if not FLICKR.parent.is_dir():
        pytest.skip(f"{FLICKR.parent} is absent")
    split = SplitConfig(rule="file", file="split_anchor.npz")
    dataset = load(FLICKR, split=split)
    assert len(dataset) == 6340 and dataset.labels.shape == (6340, 24)
    assert {len(texts) for texts in dataset.texts} == {5}
    assert dataset.texts[0][1] == "A girl going into a wooden building ."
    assert dataset.class_names[:3] == ("man", "woman", "boy")
    assert dataset.split.counts == {"train": 4000, "val": 0, "query": 1000, "database": 5340}
    assert isinstance(dataset.images, FileImages)
    assert dataset.images.decode(6339).shape == (128, 128, 3)


def test_captions_made_from_pictures_lie_beside_the_others(root):
    assert load(root).auxiliary == {}
    captions = [f"a picture of {i}" for i in range(N)]
    scipy.io.savemat(root / "image_caption.mat", {"image_caption": np.array(captions)})
    second = load(root).auxiliary["second"]
    assert second.texts == captions and second.rows.tolist() == list(range(N))
    assert second.parts == ("train", "database") and second.images is None
    assert load(root, second_caption_file=None).auxiliary == {}
    scipy.io.savemat(root / "short.mat", {"caption": np.array(captions[:-1])})
    with pytest.raises(UserError, match="short.mat has 5 rows; they must agree"):
        load(root, second_caption_file="short.mat")
    with pytest.raises(UserError, match="dataset.second_caption_file"):
        load(root, second_caption_file="absent.mat")
    labels = LABELS.copy()
    labels[1] = 0
    scipy.io.savemat(root / "label.mat", {"category": labels})
    remaining = load(root, on_unlabelled="drop").auxiliary["second"]
    assert remaining.texts == [
        captions[i] for i in (0, 2, 3, 4, 5)
    ] and remaining.rows.tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]
