import dataclasses
import errno
import os

import numpy as np
import pytest

from common.registry import DATASETS
from dataset.creatures import store, views
from dataset.creatures.captions import LOOKS
from dataset.creatures.world import (
    ATTRIBUTE_NAMES,
    KINDS,
    NONE,
    PLACES,
    SCENE_KINDS,
    SEEN_KINDS,
    TRAITS,
    Traits,
    attribute_matrix,
)
from dataset.splits import SplitConfig
from utils.errors import UserError

SMALL = {
    "creatures_image": views.CreaturesConfig(
        rows=72, split=SplitConfig(rule="per_class", query=1, train=1)
    ),
    "creatures_zeroshot": views.CreaturesZeroshotConfig(
        rows=150, split=SplitConfig(rule="seen_unseen", query=1, train=2, train_in_database=False)
    ),
    "creatures_scenes": views.CreaturesScenesConfig(
        rows=96, split=SplitConfig(rule="permutation", query=10, train=40)
    ),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(name, **changes):
    config = dataclasses.replace(SMALL[name], **changes)
    return DATASETS.get(name).target(config, name)


@pytest.mark.parametrize("name", SMALL)
def test_shapes_and_presence_of_every_class(name):
    data = load(name)
    rows, classes = SMALL[name].rows, len(data.class_names)
    assert data.name == name and len(data) == len(data.images) == rows
    assert data.labels.shape == (rows, classes) and data.labels.dtype == np.float32
    assert set(np.unique(data.labels)) == {0.0, 1.0}
    assert (data.labels.sum(0) > 0).all() and (data.labels.sum(1) > 0).all()
    image = data.images.decode(rows - 1)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert len(set(data.class_names)) == classes
    assert DATASETS.get(name).summary


@pytest.mark.parametrize("name", SMALL)
def test_another_seed_gives_other_pictures_of_the_same_classes(name):
    one, other = load(name), load(name, seed=1)
    assert one.class_names == other.class_names
    assert one.images.fingerprint != other.images.fingerprint
    for row in range(0, len(one), 7):
        assert not np.array_equal(one.images.decode(row), other.images.decode(row))
    if not one.multi_label:
        np.testing.assert_array_equal(one.labels, other.labels)


def test_pictures_depend_neither_on_processes_nor_on_the_number_of_rows(tmp_path):
    for processes in (1, 2, 3):
        store.build(views.SCENES, 5, 20, tmp_path / str(processes), processes)
    store.build(views.SCENES, 5, 9, tmp_path / "few", 1)
    alone = np.load(tmp_path / "1" / "images.npy")
    for other in ("2", "3", "few"):
        images = np.load(tmp_path / other / "images.npy")
        np.testing.assert_array_equal(images, alone[: len(images)])
    captions = [(tmp_path / str(n) / "captions.json").read_text() for n in (1, 2)]
    assert captions[0] == captions[1]


def test_a_failing_helper_process_fails_the_build(tmp_path, monkeypatch):
    def image(row, rng):
        if row == 3:
            raise ValueError("row 3")
        return np.zeros((64, 64, 3), np.uint8)

    broken = dataclasses.replace(views.IMAGE, image=image)
    with pytest.raises(RuntimeError, match="creatures_image"):
        store.build(broken, 0, 8, tmp_path / "broken", 2)
    with pytest.raises(ValueError, match="row 3"):
        store.build(broken, 0, 8, tmp_path / "broken too", 1)


def test_second_call_reads_the_cache(cache, monkeypatch):
    first = load("creatures_image")

    def refuse(*_):
        raise AssertionError("generated again")

    monkeypatch.setattr(store, "build", refuse)
    second = load("creatures_image")
    assert first.images.fingerprint == second.images.fingerprint
    np.testing.assert_array_equal(first.images.array, second.images.array)
    assert not [path for path in (cache / "creatures").iterdir() if path.name.startswith(".")]
    with pytest.raises(AssertionError, match="generated again"):
        load("creatures_image", rows=73)


def test_kinds_have_distinct_attributes_that_give_back_their_traits():
    matrix = attribute_matrix()
    assert matrix.shape == (50, len(ATTRIBUTE_NAMES)) and matrix.dtype == np.float32
    assert len(np.unique(matrix, axis=0)) == len(KINDS) == 50
    assert len(set(ATTRIBUTE_NAMES)) == len(ATTRIBUTE_NAMES)
    soft = np.random.default_rng(0).uniform(-0.2, 0.2, matrix.shape) + matrix * 0.8 + 0.1
    for traits, row, estimate in zip(KINDS.values(), matrix, soft, strict=True):
        assert Traits.from_attributes(row) == traits == Traits.from_attributes(estimate)


def test_kinds_use_known_options_and_captions_have_words_for_all():
    for traits in KINDS.values():
        for trait, options in TRAITS.items():
            assert getattr(traits, trait) in {*options, NONE}
    for trait, options in TRAITS.items():
        assert set(LOOKS[trait]) == set(options)


def test_what_unseen_kinds_look_like_is_seen_in_others():
    matrix = attribute_matrix()
    assert (matrix[:SEEN_KINDS].sum(0) >= 3).all()


def test_zeroshot_training_rows_are_of_seen_classes_and_queries_are_not():
    data = load("creatures_zeroshot")
    classes = data.labels.argmax(1)
    assert data.seen_classes == tuple(range(40)) and data.attributes.shape[0] == 50
    assert set(classes[data.split.train]) == set(range(40))
    assert set(classes[data.split.query]) == set(range(40, 50))
    assert not np.intersect1d(data.split.train, data.split.database).size


def test_scenes_carry_one_or_two_kinds_and_perhaps_a_place():
    labels = load("creatures_scenes").labels
    kinds, places = labels[:, : len(SCENE_KINDS)], labels[:, len(SCENE_KINDS) :][:, : len(PLACES)]
    assert set(places.sum(1)) == {0.0, 1.0}
    assert set(kinds.sum(1)) == {1.0, 2.0}


def test_sentences_and_tags_describe_the_same_pictures():
    sentences, tags = load("creatures_scenes"), load("creatures_scenes", captions="tags")
    assert all(len(row) == 5 for row in sentences.texts)
    assert all(len(text.split()) >= 3 for row in sentences.texts for text in row)
    assert all(len(row) == 1 and row[0].strip() for row in tags.texts)
    assert len({text for row in sentences.texts for text in row}) > 0.9 * 5 * len(sentences)
    assert sentences.images.fingerprint == tags.images.fingerprint
    np.testing.assert_array_equal(sentences.labels, tags.labels)


def test_captions_name_only_some_labels_and_no_wrong_kind():
    data = load("creatures_scenes")
    named = 0
    for row, texts in enumerate(data.texts):
        present = {data.class_names[c] for c in np.flatnonzero(data.labels[row])}
        words = {word.removesuffix("s") for text in texts for word in text.split()}
        assert words & set(SCENE_KINDS) <= present
        named += present & set(SCENE_KINDS) <= words
    assert 0.2 < named / len(data) < 1


def test_class_pictures_from_attributes():
    row = attribute_matrix()[45]
    images = views.render_class_images(row, 3, seed=0)
    assert images.shape == (3, 64, 64, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[:2], views.render_class_images(row, 2, seed=0))
    assert not np.array_equal(images, views.render_class_images(row, 3, seed=1))
    assert views.render_class_images(row, 0, seed=0).shape == (0, 64, 64, 3)
    with pytest.raises(UserError, match="31"):
        views.render_class_images(row[:-1], 1, seed=0)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("rows", [0, -1, 23])
def test_too_few_rows_are_refused(name, rows):
    with pytest.raises(UserError, match=f"dataset.rows={rows}: {name} needs at least"):
        load(name, rows=rows)


def test_wrong_seed_and_caption_style_are_refused():
    with pytest.raises(UserError, match="dataset.seed=-1"):
        load("creatures_image", seed=-1)
    with pytest.raises(UserError, match="Did you mean 'tags'"):
        load("creatures_scenes", captions="tag")


def test_a_full_disk_is_an_error_and_leaves_nothing(cache, monkeypatch):
    """Not the end of the process (SIGBUS) when the mapped file is written."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="Cannot write .*the disk is full; free some space"):
        load("creatures_image")
    assert [p.suffix for p in (cache / "creatures").iterdir()] == [".lock"]
