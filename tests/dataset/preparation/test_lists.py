"""List files: both forms, slips in them, and the published ones with their published sizes."""

import gzip

import numpy as np
import pytest

from dataset.preparation.lists import find_list, read_list
from tests.helpers import SHARED
from utils.errors import UserError

PUBLISHED = {
    "coco_train": (10_000, 80), "coco_test": (5000, 80),
    "mirflickr_train": (4000, 38), "mirflickr_test": (1000, 38), "mirflickr_database": (20_000, 38),
    "nuswide_21_train": (10_500, 21), "nuswide_21_test": (2100, 21),
    "nuswide_81_m_train": (10_000, 81), "nuswide_81_m_test": (5000, 81),
    "voc2012_train": (4000, 20), "voc2012_test": (1000, 20), "voc2012_database": (6540, 20),
}  # fmt: skip
FOLDER = SHARED / "data" / "hash_splits"


def write(tmp_path, text, name="list.txt"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["list.txt", "list.txt.gz"])
def test_paths_and_bits(tmp_path, name):
    listed = read_list(write(tmp_path, "a/1.jpg 0 1 0\r\n\n b.jpg 1 1 0 \n", name))
    assert listed.paths == ("a/1.jpg", "b.jpg") and listed.features is None
    np.testing.assert_array_equal(listed.labels, [[0, 1, 0], [1, 1, 0]])
    assert listed.labels.dtype == np.uint8
    assert find_list([tmp_path / "no", tmp_path], "list.txt") == tmp_path / name


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("a.jpg\t0\t1\t0\nb.jpg\t1\t1\t0\n", ("a.jpg", "b.jpg")),
        ("a.jpg\t0\t1\t0\t\nb.jpg\t1\t1\t0\t\n", ("a.jpg", "b.jpg")),
        ("my dir/a 1.jpg 0 1 0\nmy dir/b  2.jpg 1  1 0\n", ("my dir/a 1.jpg", "my dir/b  2.jpg")),
        ("./a.jpg 0 1 0\nx//b.jpg 1 1 0\n", ("a.jpg", "x/b.jpg")),
    ],
)
def test_tabs_between_bits_and_blanks_in_paths(tmp_path, text, paths):
    listed = read_list(write(tmp_path, text))
    assert listed.paths == paths and listed.features is None and not listed.numbered
    np.testing.assert_array_equal(listed.labels, [[0, 1, 0], [1, 1, 0]])


@pytest.mark.parametrize("gap", [" ", "\t"])
def test_lines_of_one_number_are_class_numbers(tmp_path, gap, caplog):
    caplog.set_level("INFO", "hashing")
    numbers = [3, 0, 11, 1, 1]
    text = "".join(f"a dir/{i}.jpg{gap}{number}\n" for i, number in enumerate(numbers))
    listed = read_list(write(tmp_path, text))
    assert listed.numbered and listed.paths[2] == "a dir/2.jpg"
    np.testing.assert_array_equal(listed.labels, np.eye(12)[numbers])
    assert "labels are taken for class numbers, 0 to 11" in caplog.text
    assert listed.take(np.array([1])).numbered


def test_tabs_and_features(tmp_path):
    text = "a b.jpg\t0 1\ta caption\tants\t0.5 -1e-3 2\nc.jpg\t1 0\tx\ty\t1 2 3\n"
    listed = read_list(write(tmp_path, text))
    assert listed.paths == ("a b.jpg", "c.jpg")
    np.testing.assert_array_equal(listed.features, np.float32([[0.5, -1e-3, 2], [1, 2, 3]]))
    plain = read_list(write(tmp_path, "a.jpg\t0 1\nb.jpg\t1 0\n"))
    assert plain.features is None and len(plain) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no row"),
        ("a.jpg\n", "line 1: 'a.jpg' is not understood"),
        ("a.jpg 0 1\nb.jpg 0 2\n", "line 2: .* is not understood"),
        ("a.jpg 0 1\nb.jpg 01\n", "line 2: .* is not understood"),
        ("a.jpg 0 1\n\nb.jpg 0 1 1\n", "line 3: 3 labels, but the first line has 2"),
        ("a.jpg\t0 1\t1 2\nb.jpg\t0 1\n", "not every line has the same number of features"),
        ("a.jpg 7\nb.jpg 70000\n", "line 2: .* one class number below 65,536"),
        ("a.jpg 7\nb.jpg 0 1\n", "line 1: .* is not understood"),
        ("a.jpg\t0 1\tx\n", "line 1: its last field is no list of numbers"),
    ],
)
def test_slips(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_list(write(tmp_path, text))


def test_a_broken_gz(tmp_path):
    path = write(tmp_path, "a.jpg 0 1\n" * 1000, "x.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read"):
        read_list(path)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/data/hash_splits is not there")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_lists_have_their_published_sizes(name):
    file = find_list([FOLDER], f"{name}.txt")
    listed = read_list(file)
    assert listed.labels.shape == PUBLISHED[name]
    assert len(set(listed.paths)) == len(listed)
    text = gzip.decompress(file.read_bytes()).decode().split("\n")
    for line in (0, len(listed) // 2, len(listed) - 1):  # by another way
        path, *bits = text[line].split()
        assert listed.paths[line] == path and listed.labels[line].tolist() == list(map(int, bits))
