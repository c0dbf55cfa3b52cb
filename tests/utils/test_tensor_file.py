"""Pickled tensors are data: every way of writing one is read, and nothing else."""

import os
import pickle

import numpy as np
import pytest
import torch

from utils.errors import UserError
from utils.tensor_file import read_tensor

VALUES = torch.arange(12, dtype=torch.float32).reshape(3, 4).T.contiguous() - 5.5


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def save(path, how):
    value = VALUES.numpy() if "numpy" in how else VALUES
    if how.startswith("torch"):
        torch.save(value, path, _use_new_zipfile_serialization="old" not in how)
    else:
        path.write_bytes(pickle.dumps(value, protocol=int(how[-1])))


@pytest.mark.parametrize(
    "how",
    ["torch", "torch old", "torch numpy", "pickle 0", "pickle 2", "pickle 4", "pickle 5",
     "pickle numpy 2", "pickle numpy 4"],
)  # fmt: skip
def test_every_way_of_writing_a_tensor(tmp_path, how):
    save(tmp_path / "16.pkl", how)
    np.testing.assert_array_equal(read_tensor(tmp_path / "16.pkl"), VALUES)


def test_a_parameter_and_numpy_1_names(tmp_path):
    torch.save(torch.nn.Parameter(VALUES), tmp_path / "a.pt")
    assert not read_tensor(tmp_path / "a.pt").requires_grad
    data = pickle.dumps(VALUES.numpy(), protocol=2).replace(b"numpy._core.", b"numpy.core.")
    (tmp_path / "b.pkl").write_bytes(data)
    np.testing.assert_array_equal(read_tensor(tmp_path / "b.pkl"), VALUES)


@pytest.mark.parametrize("how", ["pickle", "torch", "torch old", "in a tensor's storage"])
def test_code_is_refused_and_not_executed(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif how == "in a tensor's storage":
        inner = pickle.dumps(Evil(), protocol=2)
        rebuild = b"ctorch.storage\n_load_from_bytes\n"
        path.write_bytes(b"\x80\x03" + rebuild + b"C" + bytes([len(inner)]) + inner + b"\x85R.")
    else:
        torch.save(Evil(), path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(UserError, match="evil.pkl. (is not a tensor|holds)"):
        read_tensor(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no tensor", pickle.dumps([1, 2])])
def test_other_files(tmp_path, content):
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(UserError, match=r"x.pkl' (is not a tensor|holds a list)"):
        read_tensor(tmp_path / "x.pkl")
    with pytest.raises(UserError, match="cannot be read"):
        read_tensor(tmp_path / "none.pkl")
