"""Arrays come out as they went in, from every kind of file, and large ones stay on disk."""

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from dataset import feature_files
from dataset.feature_files import array_files, fingerprint, pieces, read_arrays
from utils.errors import UserError

X = np.arange(60, dtype=np.float32).reshape(12, 5)
Y = np.arange(12) % 3


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Return the same arrays in every kind of file; HDF5 also compressed."""
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(feature_files, "PIECE", 64)
    np.savez(tmp_path / "a.npz", image=X, labels=Y, other=X)
    save_file({"image": X, "labels": Y, "other": X}, tmp_path / "a.safetensors")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"], file["labels"] = X, Y
    with h5py.File(tmp_path / "packed.hdf5", "w") as file:
        file.create_dataset("image", data=X, compression="gzip", chunks=(5, 5))
        file.create_dataset("labels", data=Y.astype(">i8"))
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "image.npy", X)
    np.save(folder / "labels.npy", Y)
    (folder / "notes.txt").write_text("not an array")
    return tmp_path


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.h5", "packed.hdf5", "folder"])
def test_every_kind_of_file_gives_the_same_arrays(files, name):
    arrays = read_arrays(files / name, ("image", "labels"))
    assert set(arrays) == {"image", "labels"}
    np.testing.assert_array_equal(arrays["image"], X)
    np.testing.assert_array_equal(arrays["labels"], Y)
    assert arrays["labels"].dtype.isnative
    if name != "a.npz":
        assert isinstance(arrays["image"], np.memmap)  # nothing is read before it is asked for


def test_a_compressed_file_is_unpacked_once(files):
    read_arrays(files / "packed.hdf5", ("image",))
    (copy,) = (files / "cache" / "features").glob("*.npy")
    written = copy.stat().st_mtime_ns
    read_arrays(files / "packed.hdf5", ("image",))
    assert copy.stat().st_mtime_ns == written


def test_pieces_are_small_and_complete(files):
    found = list(pieces(X))
    assert [start for start, _ in found] == [0, 3, 6, 9]
    np.testing.assert_array_equal(np.concatenate([part for _, part in found]), X)


def test_text_in_hdf5(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["ids"] = ["één", "b"]
    assert read_arrays(tmp_path / "t.h5", ("ids",))["ids"].tolist() == ["één", "b"]


def test_the_fingerprint_follows_the_files(files):
    before = fingerprint(files / "folder")
    assert before == fingerprint(files / "folder") != fingerprint(files / "a.npz")
    np.save(files / "folder" / "labels.npy", Y[:3])
    assert fingerprint(files / "folder") != before


def test_files_that_are_none(files):
    (files / "empty").mkdir()
    (files / "x.csv").touch()
    (files / "broken.npz").write_bytes(b"PK no")
    (files / "short.safetensors").write_bytes(b"1234")
    np.savez(files / "object.npz", image=np.array([{}], dtype=object))
    np.savez(files / "folder" / "more.npz", image=X)
    for name, message in {
        "nosuch.npz": "does not exist",
        "x.csv": r"is no file of features; their names end in .npz, .h5",
        "empty": "holds no file of features",
        "broken.npz": "cannot be read .* without pickled objects",
        "short.safetensors": "cannot be read",
        "object.npz": "cannot be read .*pickle",
        "folder": "'image' is in .*image.npy' and in .*more.npz'",
    }.items():
        with pytest.raises(UserError, match=message):
            read_arrays(files / name, ("image",))
    assert [file.name for file in array_files(files / "a.npz")] == ["a.npz"]
