"""Variables of ``.mat`` files; datasets and results are tested where they are read."""

import h5py
import numpy as np
import pytest
import scipy.io

from utils.errors import UserError
from utils.mat_file import is_hdf5, read_variable, read_variables

NUMBERS = np.arange(6).reshape(2, 3)


@pytest.fixture(params=["v5", "v7.3"])
def path(request, tmp_path):
    file = tmp_path / "some.mat"
    if request.param == "v5":
        scipy.io.savemat(file, {"b": NUMBERS, "a": NUMBERS + 1})
    else:
        with h5py.File(file, "w") as content:
            content["b"], content["a"] = NUMBERS.T, NUMBERS.T + 1
    assert is_hdf5(file) == (request.param == "v7.3")
    return file


def test_names_in_their_order_of_preference(path):
    np.testing.assert_array_equal(read_variable(path, ("c", "a", "b")), NUMBERS + 1)
    variables = read_variables(path, ("b", "c"))
    assert list(variables) == ["b"]
    np.testing.assert_array_equal(variables["b"], NUMBERS)
    with pytest.raises(UserError, match="some.mat' holds .*; one of x, y is needed"):
        read_variables(path, ("x", "y"))


def test_a_struct_is_refused(tmp_path):
    with h5py.File(tmp_path / "some.mat", "w") as content:
        content["a/field"] = NUMBERS
    with pytest.raises(UserError, match="a struct or an object, not an array"):
        read_variable(tmp_path / "some.mat", ("a",))
