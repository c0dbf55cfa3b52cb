"""Datasets of features: what the arrays mean, and what is refused in one sentence."""

import dataclasses

import numpy as np
import pytest

from dataset.base import BadImageError
from dataset.features import FeaturesConfig, build
from dataset.miniature import Sizes, miniature
from dataset.preparation.followed import followed
from dataset.row_features import row_features
from dataset.sources.coco import Coco
from dataset.splits import SplitConfig, make_split
from utils.errors import UserError

N = 24
RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(N, 6)).astype(np.float32)
TEXT = RNG.normal(size=(N, 2, 4)).astype(np.float32)
NUMBERS = np.arange(N) % 3
HOT = np.eye(3, dtype=np.uint8)[NUMBERS]
GOOD = {"image": IMAGE, "labels": NUMBERS}


@pytest.fixture
def load(tmp_path):
    """Return a function that writes arrays and opens them."""

    def opened(keys=None, **arrays):
        np.savez(tmp_path / "f.npz", **arrays)
        return build(FeaturesConfig(str(tmp_path / "f.npz"), **(keys or {})), "mine")

    return opened


def test_labels_by_number_and_by_column_are_the_same(load):
    one, other = load(**GOOD), load(**{**GOOD, "labels": HOT})
    np.testing.assert_array_equal(one.labels, HOT)
    np.testing.assert_array_equal(other.labels, HOT)
    assert one.split.hash == other.split.hash
    assert one.split.hash == make_split(SplitConfig("per_class", seed=0), HOT).hash
    assert one.modalities == ("image",) and not one.multi_label
    assert one.class_names == ("class 0", "class 1", "class 2")


def test_captions_are_rows_of_their_own(load):
    several = load(**GOOD, text=TEXT)
    assert several.modalities == ("image", "text") and several.several_captions
    np.testing.assert_array_equal(several.features.arrays["text"].pooled, TEXT.reshape(-1, 4))
    offsets = np.array([0, *(np.arange(N) + 25)])  # row 0 has 25 captions
    ragged = load(**GOOD, text=TEXT.reshape(-1, 4), text_offsets=offsets)
    np.testing.assert_array_equal(ragged.features.caption_offsets, offsets)
    assert not load(**GOOD, text=TEXT[:, 0]).several_captions
    assert load(text=TEXT[:, 0], labels=HOT).modalities == ("text",)


def test_splits_by_words_and_by_row_numbers(load):
    words = np.array(["query"] * 3 + ["train+database"] * 9 + ["database"] * 10 + ["val"] * 2)
    by_words = load(**GOOD, split=words).split
    numbers = {"query": range(3), "train": range(3, 12), "database": range(3, 22), "val": [22, 23]}
    arrays = {part: np.array(list(rows)) for part, rows in numbers.items()}
    by_numbers = load(**GOOD, **arrays).split
    assert by_words.hash == by_numbers.hash
    for part, rows in arrays.items():
        np.testing.assert_array_equal(getattr(by_words, part), rows)
    del arrays["database"]
    assert len(load(**GOOD, **arrays).split.database) == N - 3  # every row that is no query
    drawn = load({"split": SplitConfig("permutation", seed=3, query=4)}, **GOOD, **arrays).split
    assert len(drawn.query) == 4  # a rule of the user's wins


def test_names_of_rows_and_classes(load, tmp_path):
    ids = np.array([f"p{i}.jpg" for i in range(N)])
    data = load(**GOOD, paths=ids, class_names=np.array(["ant", "bee", "cow", "dog"]))
    assert data.class_names[3] == "dog" and data.labels.shape == (N, 4)
    assert data.images.name(2) == "p2.jpg"
    with pytest.raises(BadImageError, match="p2.jpg.* has no pictures"):
        data.images.decode(2)
    (tmp_path / "names.txt").write_text("x\ny\nz\n")
    assert load({"class_names_file": "names.txt"}, **GOOD).class_names == ("x", "y", "z")


def test_seen_classes_and_attributes(load):
    keys = {"split": SplitConfig("seen_unseen", seed=0, query=2, train=2)}
    data = load(keys, **GOOD, seen_classes=np.array([0, 1]), attributes=np.eye(3))
    assert set(NUMBERS[data.split.query]) == {2} and set(NUMBERS[data.split.train]) == {0, 1}
    np.testing.assert_array_equal(data.attributes, np.eye(3))


def test_a_miniature_has_the_features_of_its_rows(load):
    small = miniature(load(**GOOD, text=TEXT), Sizes(4, 2, 4, 0, 0))
    for row in range(len(small)):
        image = small.features.arrays["image"].pooled[row]
        (whole,) = np.flatnonzero((image == IMAGE).all(1))
        start, end = small.features.caption_offsets[row : row + 2]
        np.testing.assert_array_equal(small.features.arrays["text"].pooled[start:end], TEXT[whole])
        np.testing.assert_array_equal(small.labels[row], HOT[whole])


def test_a_protocol_is_held_to_its_numbers_and_permutes(load, monkeypatch):
    coco = Coco()
    numbers = {"rows": N, "classes": 3, "query": 4, "train": 8, "database": 20}
    small = dataclasses.replace(coco.protocols[0], query=4, train=8, published=numbers)
    monkeypatch.setattr(Coco, "protocols", (small, *coco.protocols[1:]))
    data = load({"protocol": "coco/dcmht"}, **GOOD)
    order = np.random.RandomState(small.seed).permutation(N)
    np.testing.assert_array_equal(data.split.query, order[:4])
    np.testing.assert_array_equal(data.split.train, order[4:12])
    section = {"name": "features", "protocol": "coco/dcmht", "split": {"rule": "auto"}}
    rows = {"rows": {"query": 4, "train": 8, "database": 20}, "classes": 3}
    assert followed(section, rows).dataset == "coco"
    with pytest.raises(UserError, match="coco/mith has 122,218 rows in all, 80 classes"):
        load({"protocol": "coco/mith"}, **GOOD)


def test_float16_is_told_and_rows_without_labels_are_counted(load, caplog):
    caplog.set_level("INFO", "hashing")
    load(image=IMAGE.astype(np.float16), labels=np.where(np.arange(N)[:, None] == 5, 0, HOT))
    assert "image is float16" in caplog.text
    assert "1 of 24 rows carry no label, row 5 first" in caplog.text
    assert "states no split" in caplog.text


def with_nan():
    image = IMAGE.copy()
    image[[3, 7, 8, 9, 11, 12], 0] = np.nan, np.inf, *[np.nan] * 4
    return image


MASKED = {"image_tokens": np.ones((N, 5, 6)), **GOOD}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": HOT}, "has neither 'image' nor 'text'"),
        ({"image": IMAGE}, r"has no 'labels'; \[N,C\] of 0 and 1 or .*labels.npy"),
        ({**GOOD, "image": IMAGE[:, 0]}, r"image is float32 of shape \(24,\); numbers \[N,D\]"),
        ({**GOOD, "image": IMAGE.astype(str)}, "image is <U"),
        ({**GOOD, "image": with_nan()}, r"6 of 24 rows .* NaN or infinity, rows 3, 7, 8, 9, 11, …"),
        ({**GOOD, "labels": HOT[:9]}, "24 rows of features and 9 of labels"),
        ({**GOOD, "labels": HOT * 2}, r"labels of shape \(24, 3\) must be 0 or 1"),
        ({**GOOD, "labels": NUMBERS - 1}, "numbers of classes from 0 are needed"),
        ({**GOOD, "text": TEXT[:9]}, "numbers of rows differ: image has 24, text has 9"),
        ({**GOOD, "text": TEXT, "text_tokens": np.ones((N, 3, 5, 4))}, "rows and captions, must"),
        ({**GOOD, "text": TEXT[:, 0], "text_offsets": np.arange(9)}, "must rise from 0 to the 24"),
        ({**GOOD, "text": TEXT, "text_offsets": np.arange(9)}, "text_offsets is one too many"),
        ({**GOOD, "image_tokens": np.ones((N, 5))}, r"image_tokens is .* numbers \[N,L,D\]"),
        ({**GOOD, "text_mask": HOT}, "has text_mask, but no 'text'"),
        ({**GOOD, "image_mask": HOT}, "has image_mask, but no image_tokens"),
        ({**MASKED, "image_mask": HOT}, r"0 and 1 of shape \(24, 5\) are needed"),
        ({**MASKED, "image_mask": np.ones((N, 5))}, "hides every token of 24 rows, row 0 first"),
        ({**GOOD, "ids": np.zeros(N, int)}, "1 ids repeat, '0' first"),
        ({**GOOD, "ids": np.arange(3)}, "24 rows of features and 3 ids"),
        ({**GOOD, "class_names": np.array(["a"])}, "1 class names, but the labels have 3"),
        ({**GOOD, "split": np.array(["test"] * N)}, "split of row 0 is 'test'; train, val, query"),
        ({**GOOD, "split": np.array(["train"] * 3)}, "24 rows of features and 3 words of split"),
        ({**GOOD, "split": np.array(["train"] * N)}, "has no query row"),
        ({**GOOD, "train": np.arange(3)}, "has row numbers of train, but no query"),
        ({**GOOD, "train": np.ones(3), "query": np.arange(3)}, "train is float64"),
        ({**GOOD, "train": np.arange(30), "query": np.arange(3)}, "row 24, but the dataset has 24"),
        ({**GOOD, "train": NUMBERS, "split": np.array(["query"] * N)}, "two statements"),
        ({**GOOD, "attributes": np.eye(4)}, "attributes of shape"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(load, arrays, message):
    with pytest.raises(UserError, match=message) as caught:
        load(**arrays)
    assert "\n" not in str(caught.value)


def test_bad_settings(load, tmp_path):
    with pytest.raises(UserError, match="dataset.root is not set"):
        build(FeaturesConfig(), "mine")
    with pytest.raises(UserError, match="image_root is given, but .* has no 'paths'"):
        load({"image_root": "x"}, **GOOD)
    with pytest.raises(UserError, match="Unknown split rule"):
        load({"split": SplitConfig("per_clas")}, **GOOD)


def test_whole_numbers_are_features(load):
    counts = RNG.integers(0, 9, (N, 6)).astype(np.uint8)
    assert load(image=counts, labels=HOT).features.arrays["image"].pooled.dtype == np.uint8
    assert row_features({"image": counts}, "", "x").modalities == ("image",)
