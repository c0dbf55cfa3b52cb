"""``.mat`` result files of DCMHT, MITH and their relatives: every version, and bad ones refused."""

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from common.code_files import compare_pair, open_mat
from common.metrics import retrieval_report
from utils.errors import UserError

QUERIES, ROWS, BITS, CLASSES = 4, 25, 12, 5


@pytest.fixture
def content():
    rng = np.random.default_rng(0)
    return {
        **{key: rng.choice([-1.0, 1.0], (QUERIES, BITS)) for key in ("q_img", "q_txt")},
        **{key: rng.choice([-1.0, 1.0], (ROWS, BITS)) for key in ("r_img", "r_txt")},
        "q_l": rng.integers(0, 2, (QUERIES, CLASSES)),
        "r_l": rng.integers(0, 2, (ROWS, CLASSES)),
    }


def write_hdf5(path, content, noted=True, turned=True):
    """Write as MATLAB does from v7.3 on: axes reversed, ``noted``: with MATLAB_class."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, value in content.items():
            file[key] = np.asarray(value).T if turned else value
            if noted:
                file[key].attrs["MATLAB_class"] = np.bytes_("double")
    with open(path, "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


WRITERS = {
    "v5": scipy.io.savemat,
    "v4": lambda path, content: scipy.io.savemat(path, content, format="4"),
    "compressed": lambda path, content: scipy.io.savemat(path, content, do_compression=True),
    "v7.3": write_hdf5,
    "v7.3 without notes": lambda path, content: write_hdf5(path, content, noted=False),
    "hdf5 by Python": lambda path, content: write_hdf5(path, content, False, turned=False),
}


@pytest.mark.parametrize("version", WRITERS)
def test_every_version_gives_every_direction(tmp_path, content, version):
    WRITERS[version](tmp_path / "best.mat", content)
    pair = open_mat(tmp_path / "best.mat")
    result = compare_pair(pair, at=["all", "10"])
    assert list(result["directions"]) == ["i2t", "t2i"] and result["split_hash"] is None
    short = {"i": "img", "t": "txt"}
    for direction, report in compare_pair(pair, ["i2t", "t2i", "i2i", "t2t"])["directions"].items():
        direct = retrieval_report(
            content[f"q_{short[direction[0]]}"], content["q_l"],
            content[f"r_{short[direction[2]]}"], content["r_l"],
        )  # fmt: skip
        assert report == {**direct, "notes": []}


@pytest.mark.parametrize("version", ["v5", "v7.3"])
@pytest.mark.parametrize("shape", ["flat", "row", "column"])
def test_class_numbers_in_every_shape(tmp_path, content, shape, version):
    numbers = {"q_l": np.arange(QUERIES) % 3, "r_l": np.arange(ROWS) % 3}
    shapes = {"flat": (-1,), "row": (1, -1), "column": (-1, 1)}
    stored = {key: value.reshape(shapes[shape]) for key, value in numbers.items()}
    WRITERS[version](tmp_path / "best.mat", {**content, **stored})
    source = open_mat(tmp_path / "best.mat").database["text"]
    assert source.label_shape == ()
    np.testing.assert_array_equal(source.labels, numbers["r_l"])


def test_one_class_one_query_one_bit_and_one_modality(tmp_path):
    content = {
        "q_img": np.ones((1, 1)), "r_img": np.array([[1], [-1], [1]]),
        "q_l": np.ones((1, 1)), "r_l": np.array([[1], [0], [1]]),
    }  # fmt: skip
    for writer in (scipy.io.savemat, write_hdf5):
        writer(tmp_path / "best.mat", content)
        pair = open_mat(tmp_path / "best.mat")
        assert pair.database["image"].label_shape == ()  # class numbers in a column
        assert compare_pair(pair)["directions"]["i2i"]["map"]["all"]["expected"] == 1.0


def test_sparse_labels(tmp_path, content):
    content["r_l"] = scipy.sparse.csc_matrix(content["r_l"].astype(float))
    scipy.io.savemat(tmp_path / "best.mat", content)
    labels = open_mat(tmp_path / "best.mat").database["image"].labels
    np.testing.assert_array_equal(labels, content["r_l"].toarray())


def test_strict(tmp_path, content):
    content["q_txt"] = content["q_txt"] * 0.5
    scipy.io.savemat(tmp_path / "best.mat", content)
    assert compare_pair(open_mat(tmp_path / "best.mat"))["directions"]["t2i"]["notes"] == [
        f"'{tmp_path / 'best.mat'}:q_txt' holds real values, of which the sign was taken "
        "(0 counts as +1)"
    ]
    with pytest.raises(UserError, match="best.mat:q_txt' with q_l: .*only ±1, 0 and 1"):
        open_mat(tmp_path / "best.mat", strict=True)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"q_l": None}, "so q_l is missing"),
        ({"r_img": None, "r_txt": None}, "so r_img or r_txt is missing"),
        ({"q_l": None, "q_img": None, "q_txt": None}, "so q_l, q_img or q_txt is missing"),
        ({"q_txt": np.full((QUERIES, BITS), np.nan)}, "q_txt' with q_l: Codes hold 48 NaN"),
        ({"r_l": np.zeros((ROWS - 1, CLASSES))}, "25 rows of codes and 24 of labels"),
        ({"r_l": np.full((ROWS, CLASSES), 3)}, "other than 0 and 1"),
        ({"q_img": np.array([[{}]], dtype=object)}, "type"),
        ({"q_img": "text"}, "type"),
        ({"r_txt": np.zeros((0, BITS))}, "with N and K above 0"),
    ],
)
def test_wrong_content(tmp_path, content, change, word):
    path = tmp_path / "best.mat"
    variables = {key: value for key, value in {**content, **change}.items() if value is not None}
    scipy.io.savemat(path, variables)
    with pytest.raises(UserError, match=word) as error:
        open_mat(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_sides_that_do_not_fit(tmp_path, content):
    content["r_txt"] = np.ones((ROWS, 16))
    content["r_l"] = np.ones((ROWS, 9))
    scipy.io.savemat(tmp_path / "best.mat", content)
    pair = open_mat(tmp_path / "best.mat")
    with pytest.raises(UserError, match="q_img' against '.*r_txt': .*12 bits .*16"):
        compare_pair(pair)
    with pytest.raises(UserError, match="5 classes and .* 9"):
        compare_pair(pair, ["i2i"])


def test_what_is_no_mat_file(tmp_path, content):
    scipy.io.savemat(tmp_path / "other.mat", {"x": 1})
    scipy.io.savemat(tmp_path / "whole.mat", content)
    write_hdf5(tmp_path / "whole73.mat", content)
    for name in ("whole", "whole73"):
        data = (tmp_path / f"{name}.mat").read_bytes()
        (tmp_path / f"{name}_cut.mat").write_bytes(data[: len(data) // 3])
    (tmp_path / "empty.mat").write_bytes(b"")
    words = {
        "other": "holds x; one of q_img, ",
        "whole_cut": "cannot be read",
        "whole73_cut": "cannot be read as a MATLAB v7.3 file",
        "empty": "is not a MATLAB .mat file",
        "gone": "is no file; a .mat file with q_img",
    }
    for name, word in words.items():
        with pytest.raises(UserError, match=word) as error:
            open_mat(tmp_path / f"{name}.mat")
        assert f"{name}.mat" in str(error.value)
