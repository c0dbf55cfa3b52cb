"""Class attributes from tables of one's own and in AwA's layout."""

import numpy as np
import pytest

from dataset.class_attributes import read_class_attributes
from utils.errors import UserError


def write(tmp_path, text, name="attributes.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_a_table_in_any_order_of_columns(tmp_path, name, mark):
    text = "big,class,furry\n1,ox,0.5\n\n0,red ant,-2e-1\n".replace(",", mark)
    attributes = read_class_attributes(write(tmp_path, text, name))
    assert attributes.class_names == ("ox", "red ant") and attributes.names == ("big", "furry")
    np.testing.assert_array_equal(attributes.values, np.float32([[1, 0.5], [0, -0.2]]))
    np.testing.assert_array_equal(attributes.for_classes(["red ant"]), np.float32([[0, -0.2]]))


def test_awas_tables(tmp_path):
    write(tmp_path, "1\tox\n2\tred+ant\n", "classes.txt")
    write(tmp_path, "1\tbig\n2\tfurry\n3\tred\n", "predicates.txt")
    write(tmp_path, "100 25.5 0\n 0 0 -1\n", "predicate-matrix-continuous.txt")
    attributes = read_class_attributes(tmp_path)
    assert attributes.class_names == ("ox", "red+ant") and attributes.names == (
        "big",
        "furry",
        "red",
    )
    np.testing.assert_allclose(attributes.values, [[1, 0.255, 0], [0, 0, -0.01]], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: a column 'class' and a column for each attribute"),
        ("class\nox\n", "line 1: a column 'class' and a column for each attribute"),
        ("name,big\nox,1\n", "columns: name, big"),
        ("class,big\nox,1\nant\n", "line 3: 1 cells under 2 columns"),
        ("class,big\nox,much\n", "line 2: could not convert string to float: 'much'"),
        ("class,big\nox,nan\n", "line 2: a number is not finite"),
        ('class,big\n"ox,1\n', "cannot be read as a table"),
    ],
)
def test_broken_tables(tmp_path, text, said):
    with pytest.raises(UserError) as error:
        read_class_attributes(write(tmp_path, text))
    assert said in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="or a folder with classes.txt"):
        read_class_attributes(tmp_path / "none.csv")
