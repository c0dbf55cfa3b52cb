"""Weight files: what is read, what is refused, and that nothing in a file is ever executed."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.backbones.weights import (
    Published,
    load_into,
    load_state,
    locate,
    looks_like_file,
    state_fingerprint,
    url_file,
)
from utils.errors import UserError

SOMEWHERE = Published("weights.pt", "example.org")


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl"])
@pytest.mark.parametrize("writer", ["pickle", "torch", "torch_legacy"])
def test_pickles_are_refused_and_not_executed(tmp_path, suffix, writer):
    sprung = tmp_path / "sprung"
    file = tmp_path / f"weights{suffix}"
    if writer == "pickle":
        file.write_bytes(pickle.dumps({"a": Trap(sprung)}))
    else:
        torch.save(
            {"a": torch.ones(2), "b": Trap(sprung)},
            file,
            _use_new_zipfile_serialization=writer == "torch",
        )
    with pytest.raises(UserError, match=r"never unpickled: convert it to \.safetensors"):
        load_state(str(file), "A network", SOMEWHERE)
    assert not sprung.exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"GGUF....", bytes(range(64))])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_rubbish_is_refused(tmp_path, content, suffix):
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_state(str(file), "A network", SOMEWHERE)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [torch.ones(2), {"a": 3}, [torch.ones(1)], {}])
def test_a_file_without_tensors_by_name_is_refused(tmp_path, content):
    file = tmp_path / "weights.pt"
    torch.save(content, file)
    with pytest.raises(UserError, match="holds"):
        load_state(str(file), "A network", SOMEWHERE)


def test_safe_files_are_read(tmp_path):
    state = {"a.weight": torch.randn(2, 3), "b": torch.randn(4).half()}
    save_file(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "y.pth")
    for name in ("x.safetensors", "x.pt", "y.pth"):
        found, openai = load_state(str(tmp_path / name), "A network", SOMEWHERE)
        assert not openai and found.keys() == state.keys()
        assert all(torch.equal(found[k], state[k]) for k in state)


def test_torchscript_archives_are_read_as_openais(tmp_path):
    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)
            self.register_buffer("input_resolution", torch.tensor(224))

        def forward(self, x):
            return self.layer(x)

    network = Scripted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.ones(1, 2)).save(str(tmp_path / "clip.pt"))
    state, openai = load_state(str(tmp_path / "clip.pt"), "A network", SOMEWHERE)
    assert openai and set(state) == {"layer.weight", "layer.bias"}


def test_another_hash_than_the_official_file_s_is_told_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(
        logging.getLogger("hashing"), "warning", lambda text, *values: said.append(text % values)
    )
    file = tmp_path / "w.pt"
    torch.save({"a": torch.ones(2)}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for official in (digest, digest[:8]):
        load_state(str(file), "It", Published("w.pt", "x", hashes=("0" * 64, official)))
    assert said == []
    other = Published("official.pt", "x", hashes=("0123456789abcdef" * 4,))
    for _ in range(2):
        load_state(str(file), "It", other)
    assert len(said) == 1
    for part in (str(file), digest[:16], "official.pt 0123456789abcdef"):
        assert part in said[0]


def test_a_file_at_its_place_is_not_downloaded(tmp_path, monkeypatch):
    url = "https://example.org/a/" + "ab" * 32 + "/w.pt"
    published = Published.at(url, tmp_path, "Somebody")
    assert published == Published("w.pt", f"Somebody, {url}", tmp_path / "w.pt", url, ("ab" * 32,))
    monkeypatch.setattr("models.backbones.weights.reachable", lambda url: False)
    with pytest.raises(UserError, match="put it at '.*w.pt', or elsewhere with backbone.weights="):
        url_file("It", published)
    published.place.write_bytes(b"")
    assert url_file("It", published) == str(published.place)


def test_a_download_of_another_hash_is_refused(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "w-01234567.pt").write_bytes(b"something")
    url = f"file://{tmp_path}/there/w-01234567.pt"
    monkeypatch.setattr("models.backbones.weights.reachable", lambda url: True)
    published = Published.at(url, tmp_path / "here")
    with pytest.raises(UserError, match="It needs w-01234567.pt .* but that failed .invalid hash"):
        url_file("It", published)
    assert not published.place.exists()


def test_a_misfit_names_the_first_of_each_kind(tmp_path):
    module = nn.Linear(2, 3)
    with pytest.raises(UserError) as caught:
        load_into(module, {"weight": torch.ones(3, 4), "other": torch.ones(1)}, "It", "f.pt")
    message = str(caught.value)
    for part in ("'bias'", "'other'", "[3, 4] given", "[3, 2] in the network", "'f.pt'"):
        assert part in message
    load_into(module, {"weight": torch.ones(3, 2)}, "It", "f.pt", optional="bias")
    assert torch.equal(module.weight, torch.ones(3, 2))


def test_fingerprint_follows_values_names_dtypes_and_settings():
    state = {"a": torch.zeros(2, 3), "b": torch.tensor(1.0)}
    base = state_fingerprint(state, {"size": 3})
    assert base == state_fingerprint(dict(reversed(state.items())), {"size": 3})
    others = [
        state_fingerprint({**state, "b": torch.tensor(2.0)}, {"size": 3}),
        state_fingerprint({**state, "a": torch.zeros(3, 2)}, {"size": 3}),
        state_fingerprint({**state, "a": torch.zeros(2, 3).half()}, {"size": 3}),
        state_fingerprint({"a": state["a"], "c": state["b"]}, {"size": 3}),
        state_fingerprint(state, {"size": 4}),
        base,
    ]
    assert len(set(others)) == 6
    assert len(state_fingerprint({"x": torch.ones(2, dtype=torch.bfloat16)}, {})) == 16


def test_paths_are_also_taken_from_the_projects_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate("models/backbones/clip_mini.json").is_file()
    assert not locate("models/backbones/none.json").exists()
    assert looks_like_file("a/b") and looks_like_file("x.pt") and not looks_like_file("openai")
