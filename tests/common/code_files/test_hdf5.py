"""HDF5 files of codes: those of our runs and flat ones, and bad ones refused."""

import h5py
import numpy as np
import pytest

from common.code_files import code_source as source
from common.code_files import compare_files, compare_pair, open_codes, open_run
from common.code_files.run_codes import CodeSet, write_codes
from common.codes import pack_codes
from common.metrics import retrieval_report
from utils.errors import UserError

BITS = 12


def part(rows, seed):
    rng = np.random.default_rng(seed)
    codes = {m: rng.choice(np.array([-1, 1], np.int8), (rows, BITS)) for m in ("image", "text")}
    return CodeSet(codes, rng.integers(0, 2, (rows, 3), np.uint8), np.arange(rows))


@pytest.fixture
def sides():
    return part(5, 0), part(40, 1)


@pytest.fixture
def run(tmp_path, sides):
    write_codes(tmp_path / "codes.h5", *sides, "abc")
    return tmp_path / "codes.h5"


def report(query, database):
    query_codes, database_codes = query.codes["image"], database.codes["text"]
    return {
        **retrieval_report(query_codes, query.labels, database_codes, database.labels),
        "notes": [],
    }


def test_parts_of_a_run(run, sides, monkeypatch):
    monkeypatch.setattr(source, "_BLOCK_BYTES", 64)
    opened = open_codes(f"{run}:database/text")
    assert (opened.rows, opened.bits, opened.label_shape, opened.form) == (40, 12, (3,), "packed")
    np.testing.assert_array_equal(opened.codes(), sides[1].codes["text"])
    np.testing.assert_array_equal(opened.labels, sides[1].labels)
    for memory_mb in (256, 1e-5):
        result = compare_files(f"{run}:query/image", f"{run}:/database/text", memory_mb=memory_mb)
        assert result["directions"]["q2d"] == report(*sides)


def test_a_run_as_a_whole(run, sides):
    for path in (run, run.parent):
        result = compare_pair(open_run(path))
        assert list(result["directions"]) == ["i2t", "t2i"]
        assert result["directions"]["i2t"] == report(*sides)
        assert result["split_hash"] == "abc"
    assert list(compare_pair(open_run(run), ["t2t"], ["5"])["directions"]["t2t"]["map"]) == ["5"]
    with pytest.raises(UserError, match="Unknown direction 'i2x'"):
        compare_pair(open_run(run), ["i2x"])


def test_a_run_on_pictures_alone(tmp_path, sides):
    alone = [CodeSet({"image": s.codes["image"]}, s.labels, s.rows) for s in sides]
    write_codes(tmp_path / "codes.h5", *alone, "abc")
    pair = open_run(tmp_path)
    assert list(compare_pair(pair)["directions"]) == ["i2i"]
    with pytest.raises(UserError, match="query codes of image and database codes of image, so 't2"):
        compare_pair(pair, ["t2i"])


@pytest.mark.parametrize("group", ["", "deep/er"])
@pytest.mark.parametrize("bits", ["dataset", "attribute", "of the file"])
@pytest.mark.parametrize("layout", ["codes", "real", "bool", "packed"])
def test_flat_files(tmp_path, sides, layout, bits, group):
    codes = sides[1].codes["image"]
    stored = {"codes": codes, "real": codes * 0.1, "bool": codes > 0, "packed": pack_codes(codes)}
    with h5py.File(tmp_path / "flat.hdf5", "w") as file:
        folder = file.require_group(group) if group else file
        name = "packed" if layout == "packed" else "codes"
        folder.create_dataset(name, data=stored[layout], chunks=(7, 2), compression="gzip")
        folder["labels"] = np.arange(40) % 4
        if layout == "packed" and bits == "dataset":
            folder["bits"] = BITS
        elif layout == "packed":
            (folder[name] if bits == "attribute" else file).attrs["bits"] = BITS
    parts = [group, f"{group}/{name}"] if group else ["", name]
    for part_name in parts:
        opened = open_codes(
            f"{tmp_path / 'flat.hdf5'}:{part_name}" if part_name else tmp_path / "flat.hdf5"
        )
        np.testing.assert_array_equal(opened.codes(), codes)
        np.testing.assert_array_equal(opened.labels, np.arange(40) % 4)


def test_hdf5_is_known_by_its_content_too(run, tmp_path):
    (tmp_path / "codes.bin").write_bytes(run.read_bytes())
    with pytest.raises(UserError, match="choose one of '.*codes.bin:database/image', "):
        open_codes(tmp_path / "codes.bin")


def test_a_part_must_be_chosen_and_be_there(run):
    with pytest.raises(UserError, match="choose one of '.*codes.h5:database/image', ") as error:
        open_codes(run)
    assert "labels" not in str(error.value).split("choose")[1]
    with pytest.raises(UserError, match="has no 'query/sound'; choose one of"):
        open_codes(f"{run}:query/sound")
    with pytest.raises(UserError, match="so neither 'codes' nor 'packed'"):
        open_codes(f"{run}:query")
    with pytest.raises(UserError, match="gone.h5' does not exist"):
        open_codes("gone.h5:query/image")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"codes": np.full((4, 3), np.nan)}, "NaN"),
        ({"codes": np.zeros((0, 3)), "labels": np.zeros(0)}, r"\[0, 3\]"),
        ({"codes": np.zeros(4)}, r"\[4\]"),
        ({"codes": h5py.Empty("f4")}, r"\[\]"),
        ({"codes": [b"text"] * 4}, "type"),
        ({"codes": np.full((4, 3), 7, np.uint8)}, "packed"),
        ({"codes": np.zeros((4, 3), [("a", int)])}, "type"),
        ({"labels": np.zeros(3)}, "4 rows of codes and 3 of labels"),
        ({"labels": np.full((4, 2), 2)}, "other than 0 and 1"),
        ({"labels": ["a"] * 4}, "Labels are"),
        ({"labels": None}, "so no 'labels'"),
        ({"codes": None}, "neither"),
        ({"codes": None, "packed": np.zeros((4, 1), np.uint8)}, "neither"),
        ({"codes": None, "packed": np.zeros((4, 1), np.uint8), "bits": 9}, "of 9 bits"),
        ({"codes": None, "packed": np.zeros((4, 1), np.uint8), "bits": 0}, "of 0 bits"),
        ({"codes": None, "packed": np.zeros((4, 1), np.int8), "bits": 3}, "uint8 array"),
        ({"codes": None, "packed": np.zeros((4, 1), np.uint8), "bits": 2.5}, "'bits' is float64"),
    ],
)
def test_wrong_content(tmp_path, change, word):
    path = tmp_path / "given.h5"
    content = {"codes": np.ones((4, 3)), "labels": np.zeros(4), **change}
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is not None:
                file[name] = value
    with pytest.raises(UserError, match=word) as error:
        open_codes(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_labels_that_are_a_group_and_bits_in_another_order(tmp_path, run):
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file["codes"] = np.ones((4, 3))
        file.create_group("labels")
    with pytest.raises(UserError, match="so no 'labels'"):
        open_codes(tmp_path / "group.h5")
    with h5py.File(run, "a") as file:
        file.attrs["bit_order"] = np.bytes_("little")
    assert open_codes(f"{run}:query/image").bits == BITS
    with h5py.File(run, "a") as file:
        file.attrs["bit_order"] = "big"
    with pytest.raises(UserError, match="packs bits MSB first"):
        open_codes(f"{run}:query/image")


def test_damaged_files(tmp_path, run):
    whole = run.read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "text.h5").write_text("no HDF5")
    for name in ("cut", "empty", "text"):
        with pytest.raises(UserError, match=f"{name}.h5' is not a readable file of codes"):
            open_codes(f"{tmp_path / name}.h5:query/image")
        with pytest.raises(UserError, match=f"{name}.h5' holds no codes of a run"):
            open_run(tmp_path / f"{name}.h5")
    with h5py.File(tmp_path / "chunk.h5", "w") as file:
        data = np.random.default_rng(0).standard_normal((500, 16))
        item = file.create_dataset("codes", data=data, chunks=(50, 16), compression="gzip")
        file["labels"] = np.zeros(500)
        offset = item.id.get_chunk_info(7).byte_offset
    with open(tmp_path / "chunk.h5", "r+b") as stream:
        stream.seek(offset)
        stream.write(bytes(200))
    with pytest.raises(UserError, match="cannot be read to its end"):
        open_codes(tmp_path / "chunk.h5")


def test_what_is_no_run(tmp_path, run):
    with pytest.raises(UserError, match="is not a run folder with a codes.h5 in it"):
        open_run(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="is not a run folder with a codes.h5 in it"):
        open_run(tmp_path / "folder")
    with h5py.File(run, "a") as file:
        del file["query"]
    with pytest.raises(UserError, match="holds no codes of a run: query/image or query/text"):
        open_run(run)
