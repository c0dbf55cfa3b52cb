"""Recorded numbers against the project's own code: cases, adapters, what was compared.

An adapter is a function of a :class:`Case`; it computes with the project's code what the file
recorded and compares it key by key. A file passes only when every ``out_*`` key was compared or is
declared, with a reason, as not comparable.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUMBERS = Path(__file__).resolve().parent / "numbers"
ADAPTERS_FOLDER = Path(__file__).resolve().parent / "adapters"
ADAPTERS_PACKAGE = "tests.golden.adapters"
RTOL = {"float64": 1e-6, "float32": 1e-5}  # of a file's dtype, as the recordings' README suggests
RTOL_HEAD = 2e-5  # of heads and encoders in float32: chains of matrix products


class GoldenError(AssertionError):
    """A recorded number is not met, not compared, or nobody knows how to compare it."""


class Case:
    """One recorded file: ``in_*`` inputs, ``cfg_*`` constants, ``w_*`` weights, ``out_*`` results.

    It notes which results were compared and which constants were read.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], source: str = "case") -> None:
        self.arrays = dict(arrays)
        self.source = source
        self.compared: set[str] = set()
        self.read: set[str] = set()

    @classmethod
    def load(cls, path: str | Path) -> Case:
        """Read an ``.npz`` without unpickling anything."""
        with np.load(path, allow_pickle=False) as archive:
            return cls({key: archive[key] for key in archive.files}, str(path))

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def keys(self, pattern: str = "*") -> list[str]:
        """Return the keys that match ``pattern``, in the file's order."""
        return [key for key in self.arrays if fnmatch.fnmatchcase(key, pattern)]

    def array(self, key: str) -> NDArray[Any]:
        """Return an array; a key that is not there is an error naming the file."""
        if key not in self.arrays:
            raise GoldenError(
                f"{self.source} has no '{key}'; it holds {', '.join(sorted(self.arrays))}"
            )
        self.read.add(key)
        return self.arrays[key]

    def cfg(self, name: str) -> Any:
        """Return the constant ``cfg_<name>``: a plain number or string, or a list of them."""
        return self.array(f"cfg_{name}").tolist()

    def agree(self, name: str, value: Any) -> None:
        """Require that ``cfg_<name>`` is ``value``, where our code leaves no choice."""
        if self.cfg(name) != value:
            raise GoldenError(
                f"{self.source}: cfg_{name} is {self.cfg(name)!r}, ours has {value!r}"
            )

    def tensor(self, key: str, dtype: torch.dtype | None = None) -> Tensor:
        """Return an array as a tensor of its own dtype, or of ``dtype``."""
        return torch.as_tensor(np.array(self.array(key))).to(dtype)

    def leaf(self, key: str) -> Tensor:
        """Return an array as a tensor that collects a gradient."""
        return self.tensor(key).requires_grad_()

    def weights(self, prefix: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Return all arrays whose key starts with ``prefix``, by the rest of the key."""
        found = {key.removeprefix(prefix): self.tensor(key) for key in self.keys(f"{prefix}*")}
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in found.items()}

    def close(
        self, key: str, value: Any, rtol: float | None = None, atol: float | None = None
    ) -> None:
        """Compare floating-point results; shapes must be equal.

        ``rtol`` defaults to :data:`RTOL` of the recorded dtype. ``atol`` defaults to ``rtol`` times
        the largest recorded entry, since an entry that cancels to nearly 0 carries the rounding of
        its neighbours.
        """
        expected, actual = self._pair(key, value)
        if rtol is None:
            rtol = RTOL.get(self.arrays[key].dtype.name, RTOL["float64"])
        if atol is None:
            atol = rtol * max(float(np.abs(expected).max(initial=0.0)), 1e-6)
        good = np.abs(actual - expected) <= atol + rtol * np.abs(expected)  # False where NaN
        if not good.all():
            worst = np.abs(actual - expected)
            at = np.unravel_index(int(np.nan_to_num(worst, nan=np.inf).argmax()), worst.shape)
            raise GoldenError(
                f"{self.source}: '{key}' differs in {int((~good).sum())} of {good.size} entries "
                f"(rtol {rtol:g}, atol {atol:g}); worst at {tuple(int(i) for i in at)}: recorded "
                f"{expected[at]!r}, ours {actual[at]!r}"
            )

    def equal(self, key: str, value: Any) -> None:
        """Compare results that must be exactly the same: codes, indices, masks, distances."""
        self.close(key, value, rtol=0.0, atol=0.0)

    def _pair(self, key: str, value: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        expected = np.asarray(self.array(key), dtype=np.float64)
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        actual = np.asarray(value, dtype=np.float64)
        self.compared.add(key)
        if actual.shape != expected.shape:
            raise GoldenError(
                f"{self.source}: '{key}' was recorded as {list(expected.shape)}, ours is "
                f"{list(actual.shape)}"
            )
        return expected, actual


Function = Callable[[Case], None]


@dataclasses.dataclass(frozen=True)
class Adapter:
    """How the files of one case name are compared.

    Attributes:
        function: compares; its docstring says what is left out and why.
        not_compared: pattern of ``out_*`` keys → why they are not compared.
        not_read: pattern of ``cfg_*`` keys → why our code has no use for them.
    """

    function: Function
    not_compared: Mapping[str, str]
    not_read: Mapping[str, str]


ADAPTERS: dict[str, Adapter] = {}


def adapter(
    *names: str,
    not_compared: Mapping[str, str] | None = None,
    not_read: Mapping[str, str] | None = None,
) -> Callable[[Function], Function]:
    """Return a decorator that enters an adapter for the case names ``names``."""
    for reasons in (not_compared or {}, not_read or {}):
        for pattern, reason in reasons.items():
            if not reason.strip():
                raise ValueError(f"'{pattern}' is left out by {names} without a reason")

    def enter(function: Function) -> Function:
        for name in names:
            if name in ADAPTERS:
                raise ValueError(f"two adapters are registered for the golden case '{name}'")
            ADAPTERS[name] = Adapter(function, dict(not_compared or {}), dict(not_read or {}))
        return function

    return enter


def case_name(path: str | Path) -> str:
    """Return the case that a file belongs to: its stem without the last ``_<letter>``.

    >>> case_name("numbers/dcmht_loss_b.npz")
    'dcmht_loss'
    """
    return re.sub(r"_[a-z]$", "", Path(path).stem)


def load_adapters() -> Mapping[str, Adapter]:
    """Import every module of ``adapters/`` and return what they registered."""
    for file in sorted(ADAPTERS_FOLDER.glob("*.py")):
        if file.stem != "__init__":
            importlib.import_module(f"{ADAPTERS_PACKAGE}.{file.stem}")
    return ADAPTERS


def find_files(folder: str | Path) -> list[Path]:
    """Return every ``.npz`` below ``folder``, sorted.

    Raises:
        FileNotFoundError: there is no such folder, or nothing in it: a mistyped path must not pass.
    """
    files = sorted(Path(folder).rglob("*.npz"))
    if not files:
        raise FileNotFoundError(f"--golden {folder}: there is no .npz file below this folder")
    return files


def check_file(path: Path, *, every_constant: bool = False) -> Case:
    """Run a file through its adapter; ``every_constant`` also requires that each ``cfg_*`` is read.

    Raises:
        GoldenError: no adapter has the file's name, a number differs, or one was not compared.
    """
    adapters = load_adapters()
    name = case_name(path)
    if name not in adapters:
        raise GoldenError(
            f"no adapter for the golden case '{name}' ({path}); write a function with "
            f'@adapter("{name}") in tests/golden/adapters/. Known: {", ".join(sorted(adapters))}'
        )
    case = Case.load(path)
    chosen = adapters[name]
    chosen.function(case)
    check_complete(case, chosen)
    unread = left_out(set(case.keys("cfg_*")) - case.read, chosen.not_read)
    if every_constant and unread:
        raise GoldenError(
            f"{path}: the adapter of '{name}' does not read {', '.join(unread)}; use them, or give "
            "the reason in not_read"
        )
    return case


def check_complete(case: Case, chosen: Adapter) -> None:
    """Require that every ``out_*`` key was compared or is declared as not comparable.

    Raises:
        GoldenError: one is neither, or there is nothing to compare at all.
    """
    recorded = set(case.keys("out_*"))
    missing = left_out(recorded - case.compared, chosen.not_compared)
    if missing:
        raise GoldenError(
            f"{case.source}: the adapter compares nothing with {', '.join(missing)}; compare them, "
            "or give the reason in not_compared"
        )
    if not recorded & case.compared:
        raise GoldenError(f"{case.source}: nothing was compared")


def left_out(keys: Iterable[str], reasons: Mapping[str, str]) -> list[str]:
    """Return the keys that no pattern of ``reasons`` matches, sorted."""
    patterns = tuple(reasons)
    return sorted(k for k in keys if not any(fnmatch.fnmatchcase(k, p) for p in patterns))
