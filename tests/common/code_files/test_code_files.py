import json
import pickle
import zipfile

import numpy as np
import pytest

from common.code_files import Stored, compare_files, open_codes, source_of
from common.code_files import code_source as source
from common.codes import pack_codes
from common.metrics import retrieval_report
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
        opened = open_codes(saved(tmp_path / f"{number}.npz", **layout, labels=labels))
        assert opened.codes().dtype == np.int8
        np.testing.assert_array_equal(opened.codes(), codes)
        np.testing.assert_array_equal(opened.labels, labels)
    classes = open_codes(saved(tmp_path / "c.npz", codes=codes, labels=np.arange(30.0)))
    assert classes.labels.dtype == np.int64


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
        ({"labels": np.zeros((30, 0))}, "no class"),
        ({"labels": np.float64(3)}, "Labels are"),
        ({"labels": np.zeros((29, 4))}, "30 rows of codes and 29"),
        ({"codes": np.array([[{}]], dtype=object)}, "pickled objects under 'codes'"),
        ({"labels": np.array([{}] * 30, dtype=object)}, "pickled objects under 'labels'"),
    ],
)
def test_wrong_arrays_are_refused_with_the_file(tmp_path, side, arrays, word):
    content = {key: value for key, value in {**side, **arrays}.items() if value is not None}
    path = saved(tmp_path / "given.npz", **content)
    with pytest.raises(UserError, match=word) as error:
        open_codes(path)
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
            open_codes(path)
        assert str(path) in str(error.value), path
        assert "accepted is" in str(error.value), path


def test_an_npy_takes_its_labels_from_another(tmp_path, side):
    np.save(tmp_path / "codes.npy", side["codes"] * 0.5)
    np.save(tmp_path / "labels.npy", side["labels"])
    opened = open_codes(tmp_path / "codes.npy", tmp_path / "labels.npy")
    np.testing.assert_array_equal(opened.codes(), side["codes"])
    np.testing.assert_array_equal(opened.labels, side["labels"])
    other = saved(tmp_path / "own.npz", codes=side["codes"], labels=np.zeros(30, int))
    relabelled = open_codes(other, tmp_path / "labels.npy")
    np.testing.assert_array_equal(relabelled.labels, side["labels"])
    alone = open_codes(tmp_path / "codes.npy", labelled=False)
    np.testing.assert_array_equal(alone.packed_codes(), pack_codes(side["codes"]))
    with pytest.raises(UserError, match="a single array, so no 'labels'"):
        open_codes(tmp_path / "codes.npy")


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (np.zeros((29, 4)), "30 rows of codes and 29 of labels"),
        (np.full(30, np.nan), "class numbers"),
        (np.array([{}] * 30, dtype=object), "pickled objects"),
        (np.array(["a"] * 30), "Labels are"),
        (None, "does not exist"),
    ],
)
def test_wrong_labels_beside_an_npy(tmp_path, side, labels, word):
    np.save(tmp_path / "codes.npy", side["codes"])
    if labels is not None:
        np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(UserError, match=word) as error:
        open_codes(tmp_path / "codes.npy", tmp_path / "labels.npy")
    assert "labels.npy" in str(error.value)


def test_wrong_npy_files(tmp_path, side):
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object))
    np.save(tmp_path / "none.npy", np.zeros((0, 12)))
    np.save(tmp_path / "whole.npy", side["codes"])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-7])
    for name, word in (
        ("objects", "pickled"),
        ("none", r"\[0, 12\]"),
        ("cut", "claims 360 bytes.*has 353"),
    ):
        with pytest.raises(UserError, match=word):
            open_codes(tmp_path / f"{name}.npy", labelled=False)


@pytest.mark.parametrize(
    ("value", "form", "note"),
    [(1, "±1", None), (0, "±1 and 0", "zeros"), (0.5, "real", "sign was taken")],
)
def test_what_the_values_were_is_noted(tmp_path, side, value, form, note):
    codes = side["codes"].astype(np.float32)
    codes[codes.shape[0] - 1, 0] = value
    path = saved(tmp_path / "q.npz", codes=codes, labels=side["labels"])
    assert open_codes(path).form == form
    notes = compare_files(path, path)["directions"]["q2d"]["notes"]
    assert [note in told and str(path) in told for told in notes] == ([True] * 2 if note else [])


def test_strict_refuses_what_is_no_code(tmp_path, side):
    good = saved(tmp_path / "good.npz", **side)
    assert compare_files(good, good, strict=True)["directions"]["q2d"]["notes"] == []
    bad = saved(tmp_path / "bad.npz", codes=side["codes"] * 0.3, labels=side["labels"])
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(UserError, match=r"bad.npz.*only ±1, 0 and 1 are accepted"):
            compare_files(*pair, strict=True)


def test_one_value_in_the_last_block_decides_how_all_are_read(monkeypatch):
    monkeypatch.setattr(source, "_BLOCK_BYTES", 64)
    codes = np.zeros((40, 4), np.float32)
    codes[:, 0] = 1
    labels = np.arange(40)
    only = source_of("mine", Stored(codes, labels))
    assert only.block_rows < 40 and only.form == "0/1"
    assert (only.codes() == np.where(codes == 0, -1, 1)).all()
    codes[39, 3] = 0.5
    mixed = source_of("mine", Stored(codes, labels))
    assert mixed.form == "real" and (mixed.codes() == 1).all()
    codes[38, 3] = np.nan
    with pytest.raises(UserError, match="NaN"):
        source_of("mine", Stored(codes, labels))


@pytest.mark.parametrize("classes", [False, True], ids=["multi-hot", "class numbers"])
@pytest.mark.parametrize("layout", ["codes", "packed"])
def test_blocks_are_the_whole_in_pieces(monkeypatch, side, layout, classes):
    monkeypatch.setattr(source, "_BLOCK_BYTES", 100)
    codes, labels = side["codes"], np.arange(30) % 5 if classes else side["labels"]
    stray = pack_codes(codes) | np.array([0, 0xF0], np.uint8)  # bits beyond the twelfth
    stored = Stored(stray if layout == "packed" else codes, labels)
    given = source_of("mine", stored, 12 if layout == "packed" else None)
    blocks = list(given.blocks())
    assert len(blocks) > 1 and {len(block) for block in blocks[:-1]} == {given.block_rows}
    whole = given.read()
    np.testing.assert_array_equal(whole.codes, pack_codes(codes))
    np.testing.assert_array_equal(np.concatenate([b.labels for b in blocks]), whole.labels)
    assert (whole.bits, whole.classes) == (12, None if classes else 4)
    assert whole.codes.nbytes + whole.labels.nbytes == given.packed_bytes


def test_a_database_beyond_memory_is_read_in_blocks(tmp_path, monkeypatch, side):
    monkeypatch.setattr(source, "_BLOCK_BYTES", 100)
    path = saved(tmp_path / "d.npz", **side)
    whole, blocks = (compare_files(path, path, memory_mb=mb)["directions"] for mb in (256, 1e-5))
    assert whole == blocks
    direct = retrieval_report(side["codes"], side["labels"], side["codes"], side["labels"])
    assert whole["q2d"] == {**direct, "notes": []}


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


def test_a_column_of_labels_is_class_numbers_and_said(tmp_path):
    rng = np.random.default_rng(0)
    codes, classes = rng.choice([-1, 1], (40, 16)), rng.integers(0, 2, 40)
    for name, labels in (("flat", classes), ("column", classes[:, None])):
        np.savez(tmp_path / f"{name}.npz", codes=codes, labels=labels)
    flat, column = (
        compare_files(tmp_path / f"{name}.npz", tmp_path / f"{name}.npz")["directions"]["q2d"]
        for name in ("flat", "column")
    )
    assert flat["map"] == column["map"] and flat["notes"] == []
    assert all("which were read as class numbers" in note for note in column["notes"])


def test_the_largest_class_numbers_that_a_type_can_tell_apart():
    for kind, largest in (("f8", 2**53 - 1), ("f4", 2**24 - 1), ("f2", 2047), ("i8", 2**63 - 1)):
        source = source_of("x", Stored(np.ones((1, 8)), np.array([largest], kind)))
        assert source.labels.tolist() == [largest]
