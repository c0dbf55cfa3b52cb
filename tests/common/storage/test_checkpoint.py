"""Checkpoints: training goes on as if it had never stopped, and nothing is ever half-written."""

import itertools

import pytest
import torch
from torch import nn

from common.optimizers import BertAdam
from common.seeding import rng_state, set_rng_state
from common.storage import checkpoint
from utils.errors import UserError

OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.9),
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "sgd momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "bertadam": lambda p: BertAdam(p, 0.1),
}


def make(seed=0, width=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def step(model, optimizer):
    model(torch.randn(5, 4)).pow(2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def same(one, two):
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_never_stopped(name, tmp_path):
    model = make()
    unused = nn.Parameter(torch.ones(2))  # never has a gradient, so never a state
    optimizer = OPTIMIZERS[name]([unused, *model.parameters()])
    for _ in range(3):
        step(model, optimizer)
    checkpoint.save(tmp_path / "last", {"model": model}, [optimizer], rng_state(), {"epoch": 3})
    for _ in range(2):
        step(model, optimizer)

    other = make(seed=1)
    resumed = OPTIMIZERS[name]([nn.Parameter(torch.ones(2)), *other.parameters()])
    checkpoint.load_modules(tmp_path / "last", {"model": other})
    checkpoint.load_optimizers(tmp_path / "last", [resumed])
    set_rng_state(checkpoint.read_rng(tmp_path / "last"))
    assert checkpoint.read_state(tmp_path / "last") == {"epoch": 3}
    for _ in range(2):
        step(other, resumed)
    assert same(model, other)


def test_the_settings_of_groups_are_those_of_the_run_not_of_the_file(tmp_path):
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    step(model, optimizer)
    checkpoint.save(tmp_path / "last", {}, [optimizer])
    other = torch.optim.Adam([{"params": list(model.parameters()), "name": "head"}], 0.7)
    checkpoint.load_optimizers(tmp_path / "last", [other])
    assert (other.param_groups[0]["lr"], other.param_groups[0]["name"]) == (0.7, "head")


def test_several_modules_and_tensors_that_share_memory(tmp_path):
    one = nn.Linear(2, 2)
    two = nn.Linear(2, 2)
    two.weight = one.weight
    both = nn.ModuleList([one, two])
    checkpoint.save(tmp_path / "c", {"model": both, "loss": nn.Identity()})
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "loss.safetensors", "model.safetensors", "state.json",
    ]  # fmt: skip
    saved = both[0].weight.detach().clone()
    with torch.no_grad():
        one.weight.zero_()
    checkpoint.load_modules(tmp_path / "c", {"model": both, "loss": nn.Identity()})
    assert torch.equal(one.weight, saved)


def test_a_frozen_part_is_left_out(tmp_path):
    model = make()
    model[0].is_frozen = True
    checkpoint.save(tmp_path / "c", {"model": model})
    other = make(seed=1)
    other[0].is_frozen = True
    before = other[0].weight.detach().clone()
    checkpoint.load_modules(tmp_path / "c", {"model": other})
    assert torch.equal(other[2].weight, model[2].weight)
    assert torch.equal(other[0].weight, before)


@pytest.mark.parametrize("other", [make(width=5), nn.Linear(4, 3)], ids=["shapes", "names"])
def test_another_configuration_is_refused(other, tmp_path):
    checkpoint.save(tmp_path / "c", {"model": make()})
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(UserError, match="belongs to another configuration: its model differs at '"):
        checkpoint.load_modules(tmp_path / "c", {"model": other})
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())


@pytest.mark.parametrize("failing", range(3))
def test_a_torn_write_leaves_the_old_checkpoint(failing, tmp_path, monkeypatch):
    model = make()
    optimizer = torch.optim.Adam(model.parameters())
    step(model, optimizer)
    folder = tmp_path / "last"
    checkpoint.save(folder, {"model": model}, [optimizer], rng_state(), {"epoch": 1})
    old = {p.name: p.read_bytes() for p in folder.iterdir()}
    calls, write = itertools.count(), checkpoint.save_file

    def torn(tensors, path):
        write(tensors, path)
        if next(calls) == failing:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", torn)
    step(model, optimizer)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(folder, {"model": model}, [optimizer], rng_state(), {"epoch": 2})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == old
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_broken_files_are_told(tmp_path):
    checkpoint.save(tmp_path / "c", {"model": make()}, state={"epoch": 1})
    (tmp_path / "c" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="model.safetensors' is missing or not a safetensors file"):
        checkpoint.load_modules(tmp_path / "c", {"model": make()})
    with pytest.raises(UserError, match="rng.safetensors' is missing"):
        checkpoint.read_rng(tmp_path / "c")
    (tmp_path / "c" / "state.json").write_text("{")
    with pytest.raises(UserError, match="is not a readable checkpoint"):
        checkpoint.read_state(tmp_path / "c")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer-0.safetensors"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_damage_is_found(name, how, tmp_path):
    model = make()
    optimizer = torch.optim.Adam(model.parameters())
    step(model, optimizer)
    checkpoint.save(tmp_path / "last", {"model": model}, [optimizer], state={"epoch": 1})
    checkpoint.verify(tmp_path / "last")
    file = tmp_path / "last" / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    {"flip": lambda: file.write_bytes(content), "cut": lambda: file.write_bytes(content[:-9]),
     "remove": file.unlink}[how]()  # fmt: skip
    with pytest.raises(UserError, match=f"{name}' (is damaged|cannot be read)"):
        checkpoint.verify(tmp_path / "last")


def test_a_checkpoint_from_before_there_were_checksums(tmp_path):
    checkpoint.save(tmp_path / "last", {"model": make()})
    (tmp_path / "last" / "state.json").write_text('{"epoch": 3}')
    checkpoint.verify(tmp_path / "last")
    assert checkpoint.read_state(tmp_path / "last") == {"epoch": 3}


def test_the_one_before_is_kept(tmp_path):
    last, previous = tmp_path / "last", tmp_path / "previous"
    for epoch in (1, 2, 3):
        checkpoint.keep_previous(last)
        checkpoint.save(last, {"model": make()}, state={"epoch": epoch})
    assert [checkpoint.read_state(p)["epoch"] for p in (previous, last)] == [2, 3]


@pytest.mark.parametrize("where", [0.01, 0.5, 0.99])
def test_damage_anywhere_in_a_large_file_is_found(where, tmp_path):
    model = torch.nn.Linear(1500, 1500)  # 9 MB, more than is read at once
    checkpoint.save(tmp_path / "last", {"model": model})
    checkpoint.verify(tmp_path / "last")
    file = tmp_path / "last" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[int(where * len(content))] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="model.safetensors' is damaged"):
        checkpoint.verify(tmp_path / "last")
