"""Checkpoints without pickle: tensors in safetensors, everything else in JSON.

A checkpoint is a folder: ``model.safetensors``, ``loss.safetensors``, ``optimizer-<i>.safetensors``
and ``state.json``. It appears under its name only when complete. Parameters of a frozen encoder are
left out: the config names their source, and its fingerprint is compared (``identity`` in
``state.json``, see :mod:`common.storage.identity`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from utils.errors import UserError
from utils.fence import fenced
from utils.files import atomic_path, crc32

_STATE = "state"
CHECKSUMS = "crc32"  # key of state.json: file name → checksum; "state": of the state itself


def save(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Iterable[Optimizer] = (),
    rng: Mapping[str, Tensor] | None = None,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder atomically, replacing an existing one.

    ``modules`` have the names of their files, ``rng`` the generators' states by name; ``state`` is
    ready for JSON.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, module in modules.items():
            save_file(_saved_state(module), temporary / f"{name}.safetensors")
        for number, optimizer in enumerate(optimizers):
            save_file(_optimizer_tensors(optimizer), temporary / f"optimizer-{number}.safetensors")
        if rng is not None:
            save_file(dict(rng), temporary / "rng.safetensors")
        sums = {path.name: crc32(path) for path in sorted(temporary.iterdir())}
        content = {**(state or {}), CHECKSUMS: sums | {_STATE: _state_checksum(state or {})}}
        (temporary / "state.json").write_text(json.dumps(content, indent=2))


def keep_previous(folder: Path) -> None:
    """Rename the checkpoint ``folder`` to ``previous`` beside it, to make room for the next one.

    At every moment one of the two is complete.
    """
    previous = folder.with_name("previous")
    if folder.is_dir():
        with fenced(folder):
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(folder, previous)


def verify(folder: Path) -> None:
    """Compare a checkpoint with the checksums of its ``state.json``.

    Raises:
        UserError: a file is missing, cannot be read, or differs.
    """
    content = _content(folder)
    sums = content.pop(CHECKSUMS, {})
    if not isinstance(sums, dict):
        raise UserError(f"'{folder / 'state.json'}' is damaged: its checksums cannot be read.")
    if sums.pop(_STATE, None) not in (None, _state_checksum(content)):
        raise UserError(f"'{folder / 'state.json'}' is damaged: its checksum differs.")
    for name, expected in sums.items():
        try:
            checksum = crc32(folder / name)
        except OSError as error:
            raise UserError(f"'{folder / name}' cannot be read ({error}).") from error
        if checksum != expected:
            raise UserError(f"'{folder / name}' is damaged: its checksum differs.")


def _state_checksum(state: Mapping[str, Any]) -> str:
    text = json.dumps(json.loads(json.dumps(state)), sort_keys=True)  # as it is read again
    return f"{zlib.crc32(text.encode()):08x}"


def read_state(folder: Path) -> dict[str, Any]:
    """Return the ``state`` that was saved."""
    return {name: value for name, value in _content(folder).items() if name != CHECKSUMS}


def identity_before(checkpoints: Path) -> dict[str, Any] | None:
    """Return what the checkpoint that training goes on from was made with, by content.

    ``{}`` where it does not say; None where there is no checkpoint to go on from.
    """
    for name in ("last", "previous"):
        with contextlib.suppress(UserError):
            return dict(read_state(checkpoints / name).get("identity") or {})
    return None


def _content(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"'{folder}' is not a readable checkpoint ({error}).") from error


def load_modules(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Load every module's tensors from its file.

    Raises:
        UserError: the checkpoint belongs to another configuration (names or shapes differ).
    """
    for name, module in modules.items():
        tensors = _read_tensors(folder / f"{name}.safetensors")
        expected = _saved_state(module)
        differing = sorted(set(tensors) ^ set(expected)) or sorted(
            key for key in expected if tensors[key].shape != expected[key].shape
        )
        if differing:
            raise UserError(
                f"Checkpoint '{folder}' belongs to another configuration: its {name} differs at "
                f"'{differing[0]}' ({len(differing)} differences); use the config.yaml beside it, "
                "or another output."
            )
        module.load_state_dict(tensors, strict=False)


def load_optimizers(folder: Path, optimizers: Iterable[Optimizer]) -> None:
    """Restore the optimisers' moments, in their order in :func:`save`."""
    for number, optimizer in enumerate(optimizers):
        tensors = _read_tensors(folder / f"optimizer-{number}.safetensors")
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def read_rng(folder: Path) -> dict[str, Tensor]:
    """Return the generator states that were saved."""
    return _read_tensors(folder / "rng.safetensors")


def _saved_state(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, without those of submodules with a true ``is_frozen``."""
    frozen = [
        f"{name}." for name, part in module.named_modules() if getattr(part, "is_frozen", False)
    ]
    return {
        key: tensor.detach().contiguous().clone()
        for key, tensor in module.state_dict().items()
        if not key.startswith(tuple(frozen))
    }


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().contiguous().clone()
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if value is not None
    }


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own error type for a malformed file
        raise UserError(f"'{path}' is missing or not a safetensors file ({error}).") from error
