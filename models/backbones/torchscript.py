"""Tensors of a TorchScript archive, read without running it.

Such an archive is a program: ``torch.jit.load`` runs what its ``code/`` says. OpenAI's CLIP weights
come as one, so its records are read here as data::

    NAME/data.pkl        the tree of modules: attributes by name, tensors by record
    NAME/data/KEY        the bytes of a tensor, stored without compression
    NAME/code/…py        of each class, the two lists that tell weights from other attributes

The pickle is read by opcodes that build tensors, plain containers and attributes of modules; no
other function can be named. From ``code/``, two lists of names are picked by their text.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

_DTYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16, "BoolStorage": torch.bool, "ByteStorage": torch.uint8,
    "CharStorage": torch.int8, "ShortStorage": torch.int16, "IntStorage": torch.int32,
    "LongStorage": torch.int64,
}  # fmt: skip
_DEEPEST, _MOST_NAMES, _LONGEST_TEXT = 64, 1_000_000, 1 << 26


class ArchiveError(Exception):
    """The archive is damaged, or holds what is neither tensor nor plain container; says which."""


class _Scripted:
    """A module of the archive: the name of its class, and its attributes."""

    qualified = ""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}


def is_torchscript(file: Path) -> bool:
    """Return whether ``file`` is a TorchScript archive."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """Return parameters and buffers by name, on the CPU, as ``torch.jit.load`` would give them.

    Raises:
        ArchiveError: what cannot be read as data.
    """
    try:
        with zipfile.ZipFile(file) as zipped:
            archive = _Archive(zipped, file.stat().st_size)
            root = _Reader(archive).load()
            if not isinstance(root, _Scripted):
                raise ArchiveError(f"it holds a {type(root).__name__}, not a module")
            return _state(root, archive)
    except ArchiveError:
        raise
    except Exception as error:  # arbitrary bytes make the reader fail in any way
        raise ArchiveError(f"it is damaged ({type(error).__name__}: {error})") from error


def _state(root: _Scripted, archive: _Archive) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for prefix, module in _modules(root, archive):
        for name in archive.state_names(module.qualified) or ():
            value = module.attributes.get(name)
            if isinstance(value, Tensor):
                state[prefix + name] = value
            elif value is not None:
                raise ArchiveError(f"'{prefix}{name}' is no tensor")
    return state


def _modules(root: _Scripted, archive: _Archive) -> Iterator[tuple[str, _Scripted]]:
    """Yield each module with the prefix of its names; a shared one under each of its names."""
    waiting, seen = [("", root, 0)], 0
    while waiting:
        prefix, module, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST_NAMES:
            raise ArchiveError("its modules are nested too deeply")
        yield prefix, module
        for name, value in module.attributes.items():
            if isinstance(value, _Scripted) and archive.state_names(value.qualified) is not None:
                waiting.append((f"{prefix}{name}.", value, depth + 1))


class _Archive:
    """The records of an archive, none of which may be larger than the file."""

    def __init__(self, zipped: zipfile.ZipFile, size: int) -> None:
        self._zip = zipped
        self._remaining = size
        self._storages: dict[str, Tensor] = {}
        self._names: dict[str, tuple[str, ...] | None] = {}
        marked = [name for name in zipped.namelist() if name.endswith("/constants.pkl")]
        self._root = marked[0].removesuffix("constants.pkl")
        order = f"{self._root}byteorder"
        if order in zipped.namelist() and self.record("byteorder") != b"little":
            raise ArchiveError("its numbers are not in little-endian order")

    def record(self, name: str, longest: int | None = None) -> bytearray:
        """Return the bytes of a record; they count once against the size of the file."""
        info = self._zip.getinfo(self._root + name)
        self._remaining -= info.file_size if longest is None else 0
        too_long = longest is not None and info.file_size > longest
        if self._remaining < 0 or too_long:
            raise ArchiveError(f"record '{name}' is too long")
        content = bytearray(info.file_size)
        with self._zip.open(info) as stream:
            if cast(io.BufferedIOBase, stream).readinto(content) != len(content):
                raise ArchiveError(f"record '{name}' is cut off")
        return content

    def storage(self, key: str, dtype: torch.dtype, numel: int) -> Tensor:
        """Return the numbers of a record [numel]."""
        if key not in self._storages:
            data = self.record(f"data/{key}")
            if len(data) < numel * dtype.itemsize:
                raise ArchiveError(f"record 'data/{key}' is shorter than {numel} numbers")
            known = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            self._storages[key] = known
        if self._storages[key].dtype != dtype:
            raise ArchiveError(f"record 'data/{key}' is used with two types of numbers")
        return self._storages[key]

    def state_names(self, qualified: str) -> tuple[str, ...] | None:
        """Return the names of a module class's parameters and buffers; None: no module class."""
        if qualified not in self._names:
            module, _, name = qualified.rpartition(".")
            path = f"code/{module.replace('.', '/')}.py"
            text = self.record(path, _LONGEST_TEXT).decode("utf-8")
            found = re.search(
                rf"^class {re.escape(name)}\(Module\):\n((?:[ \t].*\n|\n)*)", text, re.M
            )
            self._names[qualified] = None if found is None else tuple(_declared(found[1]))
        return self._names[qualified]


def _declared(body: str) -> Iterator[str]:
    for kind in ("parameters", "buffers"):
        listed = re.search(rf"^ +__{kind}__ = \[([^\]]*)\]", body, re.M)
        yield from re.findall(r'"([^"\\]*)"', listed[1] if listed else "")


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    """Return a view of a record; it must not have more numbers than the record."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count: int = math.prod(size)
    valid = min(offset, *size, *stride, 0) >= 0 and count <= len(storage)
    if not valid or (count and last >= len(storage)):
        raise ArchiveError(f"a tensor of shape {list(size)} does not fit its record")
    return storage.as_strided(size, stride, offset)


def _same(value: Any, *_: Any) -> Any:
    return value


_FUNCTIONS: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "collections.OrderedDict": OrderedDict,
    **{
        f"torch.jit._pickle.{name}": _same
        for name in (
            "build_intlist", "build_doublelist", "build_boollist", "build_tensorlist",
            "restore_type_tag",
        )
    },
}  # fmt: skip
_OPCODES = (
    pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.NONE, pickle.NEWTRUE,
    pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT,
    pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINUNICODE, pickle.SHORT_BINUNICODE,
    pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
    pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM,
    pickle.SETITEMS, pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT,
    pickle.BINPERSID, pickle.NEWOBJ, pickle.REDUCE, pickle.BUILD,
)  # fmt: skip


_Unpickler: Any = vars(pickle)["_Unpickler"]
"""The one in Python, whose opcodes can be chosen."""


class _Reader(_Unpickler):
    """Reads ``data.pkl``: opcodes and functions other than those listed are refused."""

    stack: list[Any]
    dispatch: dict[int, Any] = {code[0]: _Unpickler.dispatch[code[0]] for code in _OPCODES}

    def __init__(self, archive: _Archive) -> None:
        super().__init__(io.BytesIO(archive.record("data.pkl")))
        self._archive = archive

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as error:
            raise ArchiveError(f"data.pkl holds opcode or record {error}") from error

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of the archive as a bare one, a type of numbers, or a known function."""
        if module.startswith("__torch__"):
            return type(name, (_Scripted,), {"qualified": f"{module}.{name}"})
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if f"{module}.{name}" in _FUNCTIONS:
            return _FUNCTIONS[f"{module}.{name}"]
        raise ArchiveError(f"data.pkl asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the storage ``("storage", type, key, device, numel)``; the device is the CPU."""
        kind, dtype, key, _, numel = pid
        known = kind == "storage" and isinstance(dtype, torch.dtype) and isinstance(key, str)
        if not known or not isinstance(numel, int):
            raise ArchiveError("data.pkl asks for something else than numbers")
        return self._archive.storage(key, dtype, numel)

    def load_build(self) -> None:
        """Give a module its attributes."""
        attributes = self.stack.pop()
        module = self.stack[-1]
        if not isinstance(module, _Scripted) or not isinstance(attributes, dict):
            raise ArchiveError("data.pkl holds an object that only its own code can restore")
        module.attributes = attributes

    def load_newobj(self) -> None:
        """Make a module without attributes."""
        arguments = self.stack.pop()
        cls = self.stack[-1]
        if arguments != () or not (isinstance(cls, type) and issubclass(cls, _Scripted)):
            raise ArchiveError("data.pkl makes an object that is no module")
        self.stack[-1] = cls()

    def load_reduce(self) -> None:
        """Call one of the known functions."""
        arguments = self.stack.pop()
        if not any(self.stack[-1] is function for function in _FUNCTIONS.values()):
            raise ArchiveError("data.pkl calls something else than what makes tensors")
        self.stack[-1] = self.stack[-1](*arguments)

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.REDUCE[0]] = load_reduce
