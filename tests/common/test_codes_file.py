import json
import pickle
import zipfile

import numpy as np
import pytest

from common.codes import pack_codes
from common.codes_file import compare_files, load_codes
from utils.errors import UserError


@pytest.fixture
def side():
    rng = np.random.default_rng(0)
    return {
        "codes": rng.choice(np.array([-1, 1], np.int8), (30, 12)),
        "labels": rng.integers(0, 2, (30, 4)),
    }


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_every_layout_gives_the_same_codes(tmp_path, side):
    codes, labels = side["codes"], side["labels"]
    layouts = [
        {"codes": codes},
        {"codes": (codes > 0).astype(np.uint8)},
        {"codes": codes * 0.3},
        {"packed": pack_codes(codes), "bits": 12},
        {"packed": pack_codes(codes), "bits": np.array([12])},
    ]
    for number, layout in enumerate(layouts):
        loaded, marks = load_codes(saved(tmp_path / f"{number}.npz", **layout, labels=labels))
        assert loaded.dtype == np.int8
        np.testing.assert_array_equal(loaded, codes)
        np.testing.assert_array_equal(marks, labels)
    _, classes = load_codes(saved(tmp_path / "c.npz", codes=codes, labels=np.arange(30.0)))
    assert classes.dtype == np.int64


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"codes": None}, "neither 'codes' nor 'packed'"),
        ({"codes": None, "packed": np.zeros((30, 2), np.uint8)}, "neither 'codes' nor 'packed'"),
        ({"codes": None, "packed": np.zeros((30, 2), np.uint8), "bits": 99}, "99 bits"),
        ({"codes": None, "packed": np.zeros((30, 2), np.uint8), "bits": 12.0}, "'bits' is"),
        ({"labels": None}, "so no 'labels'"),
        ({"codes": np.zeros(30)}, r"\[30\]"),
        ({"codes": np.zeros((0, 12)), "labels": np.zeros(0)}, r"\[0, 12\]"),
        ({"codes": np.full((30, 12), np.nan)}, "NaN"),
        ({"codes": np.full((30, 12), "x")}, "type"),
        ({"labels": np.zeros((30, 2, 2))}, "Labels are"),
        ({"labels": np.full((30, 4), 2)}, "other than 0 and 1"),
        ({"labels": np.zeros((29, 4))}, "30 rows of codes and 29"),
        ({"codes": np.array([[{}]], dtype=object)}, "pickled objects under 'codes'"),
        ({"labels": np.array([{}] * 30, dtype=object)}, "pickled objects under 'labels'"),
    ],
)
def test_wrong_arrays_are_refused_with_the_file(tmp_path, side, arrays, word):
    content = {key: value for key, value in {**side, **arrays}.items() if value is not None}
    path = saved(tmp_path / "given.npz", **content)
    with pytest.raises(UserError, match=word) as error:
        load_codes(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_npz_is_refused(tmp_path, side):
    (tmp_path / "text.npz").write_text("codes")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({"codes": [1]}))
    np.save(tmp_path / "single.npy", side["codes"])
    whole = saved(tmp_path / "whole.npz", **side).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[200:260] = bytes(60)
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("codes", "no array")
        archive.writestr("labels.npy", "no array")
    names = ["missing", "text", "empty", "pickle", "cut", "damaged", "zip"]
    for path in [tmp_path, tmp_path / "single.npy", *(tmp_path / f"{n}.npz" for n in names)]:
        with pytest.raises(UserError) as error:
            load_codes(path)
        assert str(path) in str(error.value), path
        assert "accepted is" in str(error.value), path


def test_compare_files_has_the_layout_of_metrics_json(tmp_path, side):
    query = saved(tmp_path / "q.npz", codes=side["codes"][:3], labels=side["labels"][:3])
    database = saved(tmp_path / "d.npz", **side)
    result = compare_files(query, database, ["all", "10"])
    assert list(result) == ["protocol", "split_hash", "directions", "timing"]
    assert result["split_hash"] is None
    assert list(result["directions"]) == ["q2d"]
    assert set(result["directions"]["q2d"]["map"]) == {"all", "10"}
    assert result["protocol"]["no_relevant"] == "zero"
    assert result["timing"]["time_s"] >= 0
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"codes": np.ones((30, 16))}, "bits"),
        ({"labels": np.ones((30, 9))}, "classes"),
        ({"labels": np.arange(30)}, "same kind"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_both_names(tmp_path, side, change, word):
    query = saved(tmp_path / "q.npz", **{**side, **change})
    database = saved(tmp_path / "d.npz", **side)
    with pytest.raises(UserError, match=word) as error:
        compare_files(query, database)
    assert "q.npz" in str(error.value)
    assert "d.npz" in str(error.value)
