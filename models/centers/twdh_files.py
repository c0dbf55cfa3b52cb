"""TwDH's centres and transforms as its authors publish them: tensors in the files of one folder.

======================== ==========================================================
``long/<L>.*``           centres of the long code, ±1 [C,L]
``short/<s>.*``          centres of a short code, ±1 [C,s]
``trans/<L>/<s>.*``      the transform [2L,2s] from the long pairs to the short ones
======================== ==========================================================

Files are data: see :mod:`utils.tensor_file`. Rows are in the order of the authors' label columns,
which for MIRFlickr is that of a folder listing; ours may be another.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError
from utils.tensor_file import read_tensor


class TwDHFiles:
    """The folder of one dataset (``TwDH/mirflickr`` and the like)."""

    def __init__(self, folder: str | Path) -> None:
        """Take the folder.

        Raises:
            UserError: it is no folder, or has no centres.
        """
        self.folder = Path(folder).expanduser()
        if not (self.folder / "long").is_dir() or not (self.folder / "short").is_dir():
            raise UserError(
                f"model.files: '{self.folder}' has no folders long and short; give the folder of "
                "one dataset among the authors' files."
            )

    def long_centers(self, classes: int, bits: int) -> Tensor:
        """Return the centres ±1 [C,L] of the long code, float32."""
        return self._centers("long", classes, bits)

    def short_centers(self, classes: int, bits: int) -> Tensor:
        """Return the centres ±1 [C,s] of a short code, float32."""
        return self._centers("short", classes, bits)

    def transform(self, long_bits: int, bits: int) -> Tensor:
        """Return the transform [2L,2s], float32.

        Raises:
            UserError: there is none of these lengths, or a file of something else.
        """
        file = self._file(f"trans/{long_bits}", bits)
        matrix = read_tensor(file).float()
        if matrix.shape != (2 * long_bits, 2 * bits) or not matrix.isfinite().all():
            raise UserError(
                f"'{file}' is of shape {list(matrix.shape)}; a transform of {2 * long_bits} by "
                f"{2 * bits} finite numbers is needed."
            )
        return matrix

    def _centers(self, kind: str, classes: int, bits: int) -> Tensor:
        file = self._file(kind, bits)
        centers = read_tensor(file).float()
        if centers.shape != (classes, bits) or not torch.all(centers.abs() == 1):
            raise UserError(
                f"'{file}' is of shape {list(centers.shape)}, or not of -1 and 1; centres of "
                f"{classes} classes and {bits} bits are needed."
            )
        return centers

    def _file(self, kind: str, bits: int) -> Path:
        """Return the file of a length: the one whose name has this number, and no other."""
        numbers: dict[str, Path] = {}
        for path in sorted((self.folder / kind).glob("*")):
            if path.is_file() and (found := re.findall(r"\d+", path.stem)):
                numbers.setdefault(found[-1], path)
        if str(bits) not in numbers:
            known = ", ".join(sorted(numbers, key=int)) or "none"
            raise UserError(f"'{self.folder / kind}' has no file of {bits} bits (there: {known}).")
        return numbers[str(bits)]
