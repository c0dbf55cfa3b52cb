"""One reader of labels: columns, numbers, and what is neither."""

import numpy as np
import pytest

from dataset.label_reader import read_labels
from utils.errors import UserError

NUMBERS = np.array([2, 0, 1, 2])
HOT = np.eye(3)[NUMBERS]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (NUMBERS, "class numbers, 0 to 2"),
        (NUMBERS[:, None].astype(np.float64), "class numbers, 0 to 2"),
        (HOT.astype(np.uint8), "3 columns of 0/1, one-hot"),
        (HOT.astype(bool), "3 columns of 0/1, one-hot"),
    ],
)
def test_forms_of_the_same_labels(values, told, caplog):
    caplog.set_level("INFO", "hashing")
    labels = read_labels(values, "'x'")
    np.testing.assert_array_equal(labels, HOT)
    assert labels.dtype == np.float32 and told in caplog.text


def test_several_labels_one_class_and_empty_classes(caplog):
    caplog.set_level("INFO", "hashing")
    assert read_labels(np.array([[1, 1], [0, 0]]), "'x'").tolist() == [[1, 1], [0, 0]]
    assert "one-hot" not in caplog.text
    assert read_labels(np.ones((4, 1)), "'x'").shape == (4, 1)
    assert read_labels(NUMBERS + 1, "'x'", n_names=5).shape == (4, 5)
    assert "2 of the classes 0 to 4 have no row" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (NUMBERS - 1, "row 1 is -1"),
        (NUMBERS * 40_000, "row 0 is 80000; .* below 65,536"),
        (np.array([0, 0.5]), "row 1 is 0.5"),
        (np.array([0, np.nan]), "row 1 is nan"),
        (HOT * 2, "row 0, column 2 is 2"),
        (np.array(["a"]), "labels are <U1"),
        (np.zeros((0, 3)), r"of shape \(0, 3\)"),
    ],
)
def test_what_is_neither_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        read_labels(values, "'x'")
