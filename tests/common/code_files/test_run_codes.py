"""``codes.h5``: what goes in comes out, and what lies on the disk is what the contract says."""

import h5py
import numpy as np
import pytest

from common.code_files.run_codes import CodeSet, read_codes, write_codes
from utils.errors import UserError


def code_set(rng, rows, bits, modalities):
    codes = {m: rng.choice(np.array([-1, 1], np.int8), (rows, bits)) for m in modalities}
    return CodeSet(codes, rng.integers(0, 2, (rows, 3), np.uint8), rng.permutation(rows))


@pytest.mark.parametrize("bits", [1, 8, 13, 48])
@pytest.mark.parametrize("modalities", [("image",), ("image", "text")])
def test_round_trip(bits, modalities, tmp_path):
    rng = np.random.default_rng(0)
    written = code_set(rng, 1, bits, modalities), code_set(rng, 7, bits, modalities)
    write_codes(tmp_path / "codes.h5", *written, "abc")
    query, database, split_hash = read_codes(tmp_path / "codes.h5")
    assert split_hash == "abc"
    for one, two in zip(written, (query, database), strict=True):
        assert one.codes.keys() == two.codes.keys()
        for modality in modalities:
            np.testing.assert_array_equal(one.codes[modality], two.codes[modality])
        np.testing.assert_array_equal(one.labels, two.labels)
        np.testing.assert_array_equal(one.rows, two.rows)


def test_the_layout_on_disk(tmp_path):
    codes = {"image": np.array([[1, -1, -1, -1, -1, -1, -1, -1, -1, 1]], np.int8)}
    part = CodeSet(codes, np.array([[0, 1]], np.uint8), np.array([5]))
    write_codes(tmp_path / "codes.h5", part, part, "abc")
    with h5py.File(tmp_path / "codes.h5") as file:
        attributes = dict(file.attrs)
        assert len(attributes.pop("crc32")) == 8
        assert attributes == {"bits": 10, "bit_order": "little", "split_hash": "abc"}
        assert sorted(file["query"]) == ["image", "labels", "rows"]
        np.testing.assert_array_equal(file["query/image"][:], [[1, 2]])  # LSB first
        assert file["database/rows"].dtype == np.int64 and file["database/labels"].dtype == np.uint8


def test_a_failed_write_leaves_the_old_file(tmp_path):
    rng = np.random.default_rng(0)
    good, bad = code_set(rng, 2, 8, ("image",)), code_set(rng, 2, 8, ("image",))
    write_codes(tmp_path / "codes.h5", good, good, "old")
    bad.codes["image"] = np.full((2, 8), np.nan)
    with pytest.raises(UserError, match="NaN"):
        write_codes(tmp_path / "codes.h5", good, bad, "new")
    assert read_codes(tmp_path / "codes.h5")[2] == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["codes.h5"]


def test_other_files_are_told(tmp_path):
    file = tmp_path / "codes.h5"
    with pytest.raises(UserError, match="codes.h5' is missing or holds no codes of a run"):
        read_codes(file)
    file.write_text("no HDF5")
    with pytest.raises(UserError, match="is missing or holds no codes"):
        read_codes(file)
    with h5py.File(file, "w") as content:
        content.attrs["bits"] = 8
    with pytest.raises(UserError, match="is missing or holds no codes"):
        read_codes(file)
