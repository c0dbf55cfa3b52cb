"""TorchScript archives: the tensors that torch.jit.load gives, and nothing of them is run."""

import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

from models.backbones.torchscript import ArchiveError, is_torchscript, read_torchscript
from models.backbones.weights import Published, load_state
from utils.errors import UserError

SOMEWHERE = Published("weights.pt", "example.org")


class Block(nn.Module):
    """Layers of several kinds, a shared parameter, and attributes that are no weights."""

    def __init__(self, shared):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.scale = shared
        self.attn_mask = torch.full((3, 3), -1.0)  # a plain attribute, as in OpenAI's blocks
        self.sizes = [1, 2]

    def forward(self, x):
        return self.layers(x) * self.scale + self.attn_mask.sum()


class Network(nn.Module):
    """Parameters and buffers of several types, strides and sizes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        shared = nn.Parameter(torch.randn(4))
        self.blocks = nn.ModuleList([Block(shared), Block(shared)])
        self.proj = nn.Parameter(torch.randn(4, 4).t())
        self.norm = nn.BatchNorm1d(4)
        self.short = nn.Parameter(torch.randn(2).half())
        self.brain = nn.Parameter(torch.randn(2).bfloat16())
        self.register_buffer("input_resolution", torch.tensor(224))
        self.register_buffer("part", torch.arange(10)[2:8:2])
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("flags", torch.tensor([True, False]))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.norm(x @ self.proj)


def saved(module, file):
    """Write a module as a TorchScript archive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(file))
    return file


def by_running(file):
    """Return the oracle's tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(torch.jit.load(str(file), map_location="cpu").state_dict())


@pytest.mark.parametrize("kind", ["scripted", "traced", "half"])
def test_tensors_are_those_of_jit_load(kind, tmp_path):
    file, network = tmp_path / "net.pt", Network().eval()
    if kind == "traced":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(network, torch.ones(2, 4)).save(str(file))
    else:
        saved(network.half() if kind == "half" else network, file)
    found, expected = read_torchscript(file), by_running(file)
    assert found.keys() == expected.keys() and len(expected) > 20
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].stride() == tensor.stride(), name
        assert torch.equal(found[name], tensor), name


def test_jit_load_is_never_called(tmp_path, monkeypatch):
    file = saved(Network(), tmp_path / "net.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was run"))
    state, openai = load_state(str(file), "A network", SOMEWHERE)
    assert openai and "input_resolution" not in state and "proj" in state


class Writes(nn.Module):
    """A network whose program writes a file whenever it is restored."""

    def __init__(self, target: str):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.target = target

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight

    @torch.jit.export
    def __getstate__(self):
        return (self.target, self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]):
        self.target = state[0]
        self.weight = state[1]
        self.training = state[2]
        torch.save(torch.ones(1), state[0])


def test_code_that_restores_a_module_does_not_run(tmp_path):
    target = tmp_path / "overwritten"
    file = saved(Writes(str(target)), tmp_path / "evil.pt")
    by_running(file)
    assert target.exists()  # so it is an attack
    target.write_text("mine")
    with pytest.raises(UserError, match="is a TorchScript archive, which is a program") as caught:
        load_state(str(file), "A network", SOMEWHERE)
    assert "only its own code can restore" in str(caught.value)
    assert "save_file(torch.jit.load(FILE).state_dict()" in str(caught.value)
    assert "\n" not in str(caught.value) and target.read_text() == "mine"


def changed(file, record, content):
    """Write the archive anew with another content of one record; bytes or a function of them."""
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in records if name.endswith(record))
    records[name] = content(records[name]) if callable(content) else content
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)


def test_code_of_the_archive_is_not_even_parsed(tmp_path):
    file = saved(nn.Linear(2, 3), tmp_path / "net.pt")
    expected = by_running(file)
    changed(
        file, ".py",
        lambda text: text + b"\nimport os\nos.mkdir('/nowhere')\nclass Other(Module):\n  ((((\n",
    )  # fmt: skip
    found = read_torchscript(file)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return (os.mkdir, (self.path,))


def test_a_pickle_that_calls_something_is_refused(tmp_path):
    file, sprung = saved(nn.Linear(2, 3), tmp_path / "net.pt"), tmp_path / "sprung"
    for protocol in (0, 2, 4):
        changed(file, "/data.pkl", pickle.dumps(Trap(sprung), protocol))
        with pytest.raises(ArchiveError):
            read_torchscript(file)
    changed(file, "/data.pkl", b"\x80\x02cposix\nmkdir\n(X\x01\x00\x00\x00atR.")
    with pytest.raises(ArchiveError, match="asks for posix.mkdir"):
        read_torchscript(file)
    assert not sprung.exists()


OPENED = b"\x80\x02ccollections\nOrderedDict\n"
TENSOR = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n%s\n"
    b"X\x01\x00\x00\x00%sX\x03\x00\x00\x00cpuJ%stQJ%s(J%st(J%st\x89)tR."
)


def number(value):
    """Return an int as a pickle's BININT writes it."""
    return value.to_bytes(4, "little", signed=True)


def tensor_pickle(kind=b"FloatStorage", key=b"0", numel=6, offset=0, size=6, stride=1):
    """Return a pickle of one tensor."""
    return TENSOR % (kind, key, *map(number, (numel, offset, size, stride)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"\x80\x02}.", "holds a dict, not a module"),
        (b"\x80\x02N.", "holds a NoneType, not a module"),
        (tensor_pickle(), "holds a Tensor, not a module"),
        (OPENED + b")R}b.", "only its own code can restore"),
        (OPENED + b")\x81.", "makes an object that is no module"),
        (b"\x80\x02c__torch__.A\nB\n)R.", "calls something else"),
        (b"\x80\x02ctorch\nQInt8Storage\n.", "asks for torch.QInt8Storage"),
        (b"\x80\x02cbuiltins\neval\n.", "asks for builtins.eval"),
        (b"\x80\x02\x82\x01.", "opcode"),
        (tensor_pickle(size=7), r"shape \[7\] does not fit"),
        (tensor_pickle(offset=1), r"shape \[6\] does not fit"),
        (tensor_pickle(offset=-1), "does not fit"),
        (tensor_pickle(stride=-1), "does not fit"),
        (tensor_pickle(size=2_000_000_000, stride=0), "does not fit"),
        (tensor_pickle(numel=1000), "record 'data/0' is shorter than 1000 numbers"),
        (tensor_pickle(key=b"9"), "record"),
        (tensor_pickle(kind=b"OtherStorage"), "asks for torch.OtherStorage"),
    ],
)
def test_a_crafted_pickle_is_refused(content, message, tmp_path):
    file = saved(nn.Linear(2, 3), tmp_path / "net.pt")
    changed(file, "/data.pkl", content)
    with pytest.raises(ArchiveError, match=message):
        read_torchscript(file)


def test_damaged_archives_are_refused_in_one_sentence(tmp_path):
    file = saved(Network(), tmp_path / "net.pt")
    whole = file.read_bytes()
    for end in range(0, len(whole), len(whole) // 20):
        file.write_bytes(whole[:end])
        with pytest.raises(UserError) as caught:
            load_state(str(file), "A network", SOMEWHERE)
        assert "\n" not in str(caught.value)


def test_a_record_larger_than_its_file_is_refused(tmp_path):
    file = saved(nn.Linear(2, 3), tmp_path / "net.pt")
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, bytes(1 << 22) if name.endswith("data/0") else data)
    with pytest.raises(ArchiveError, match="is too long"):
        read_torchscript(file)


def test_other_byte_order_is_refused(tmp_path):
    file = saved(nn.Linear(2, 3), tmp_path / "net.pt")
    changed(file, "byteorder", b"big")
    with pytest.raises(ArchiveError, match="not in little-endian order"):
        read_torchscript(file)


def test_state_dicts_are_no_torchscript(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"PK")
    assert not is_torchscript(tmp_path / "a.pt") and not is_torchscript(tmp_path / "b.pt")
    assert is_torchscript(saved(nn.Linear(1, 1), tmp_path / "c.pt"))
