"""Indexes of FAISS against distances counted one by one."""

import numpy as np
import pytest

from common.code_files.faiss_index import KINDS, build_index, load_index, save_index, search
from common.codes import pack_codes
from utils.errors import UserError


def codes(rows, bits, seed=0):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), (rows, bits))


def distances_by_hand(queries, rows):
    return np.array([[int((one != two).sum()) for two in rows] for one in queries])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bits", [1, 16, 48, 64, 100])
def test_flat_finds_the_nearest(bits, packed):
    queries, rows = codes(3, bits, seed=1), codes(90, bits)
    expected = distances_by_hand(queries, rows)
    if packed:
        index = build_index(pack_codes(rows), bits=bits)
        distances, numbers = search(index, pack_codes(queries), 20, bits)
    else:
        distances, numbers = search(build_index(rows), queries, 20)
    np.testing.assert_array_equal(distances, np.sort(expected, axis=1)[:, :20])
    np.testing.assert_array_equal(np.take_along_axis(expected, numbers, axis=1), distances)
    assert all(len(set(row)) == 20 for row in numbers)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("bits", [1, 48, 100])
def test_other_kinds_return_true_distances(bits, kind):
    queries, rows = codes(5, bits, seed=1), codes(300, bits)
    expected = distances_by_hand(queries, rows)
    index = build_index(rows, kind)
    if kind == "ivf":
        index.nprobe = index.nlist  # every cell: exact
    distances, numbers = search(index, queries, 10)
    np.testing.assert_array_equal(np.take_along_axis(expected, numbers, axis=1), distances)
    exact = distances == np.sort(expected, axis=1)[:, :10]
    if kind == "ivf":
        assert exact.all()
    elif bits > 1:  # among equal codes the graph falls apart
        assert exact.mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_and_more_asked_for_than_there_are(kind):
    distances, numbers = search(build_index(codes(1, 9), kind), -codes(1, 9), 5)
    assert distances.tolist() == [[9]] and numbers.tolist() == [[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_comes_back(tmp_path, kind):
    queries, rows = codes(4, 20, seed=1), codes(200, 20)
    index = build_index(rows, kind)
    save_index(index, tmp_path / "deep" / "codes.faiss")
    back = load_index(tmp_path / "deep" / "codes.faiss")
    for one, two in zip(search(index, queries, 7), search(back, queries, 7), strict=True):
        np.testing.assert_array_equal(one, two)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["codes.faiss"]


def test_bits_beyond_the_last_do_not_count():
    stray = pack_codes(codes(6, 12)) | np.array([0, 0xF0], np.uint8)
    distances, _ = search(build_index(stray, bits=12), codes(6, 12), 1)
    assert distances.tolist() == [[0]] * 6


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: build_index(codes(3, 8), "flatt"), "Unknown kind of index 'flatt'. Did you mean"),
        (lambda: build_index(np.zeros((0, 8))), r"\[0, 8\]"),
        (lambda: build_index(np.ones(8)), r"\[8\]"),
        (lambda: build_index(np.full((2, 8), np.nan)), "NaN"),
        (lambda: build_index(pack_codes(codes(3, 9)), bits=8), "Packed codes of 8 bits"),
        (lambda: search(build_index(codes(3, 8)), codes(2, 9), 1), "9 bits, 2 bytes, and the code"),
        (lambda: search(build_index(codes(3, 8)), codes(2, 8), 0), "k is 0"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(UserError, match=word):
        call()


def test_files_that_are_no_index(tmp_path):
    save_index(build_index(codes(100, 64)), tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:100])
    (tmp_path / "text").write_text("no index")
    (tmp_path / "empty").write_bytes(b"")
    for name in ("cut", "text", "empty"):
        with pytest.raises(UserError, match=f"{name}' is not a binary index of FAISS"):
            load_index(tmp_path / name)
    with pytest.raises(UserError, match="gone' is no file"):
        load_index(tmp_path / "gone")


def test_a_full_disk(tmp_path, monkeypatch):
    def fail(index, path):
        raise RuntimeError("could not write")

    monkeypatch.setattr("faiss.write_index_binary", fail)
    with pytest.raises(UserError, match="Cannot write '.*codes.faiss': FAISS failed to"):
        save_index(build_index(codes(3, 8)), tmp_path / "codes.faiss")
    assert list(tmp_path.iterdir()) == []
