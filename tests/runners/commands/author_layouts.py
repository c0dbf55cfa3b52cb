"""Folders as the authors' READMEs describe them, a few rows each; pictures tell classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from tests.helpers import picture

ROWS, CLASSES = 24, 3


def write_picture(path: Path, label: int) -> None:
    """Write a small picture in the colours of a class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(np.random.default_rng(label), [label % 3], 12)).save(path)


def cells(values: Sequence[object], shape: tuple[int, int]) -> np.ndarray:
    """Return a MATLAB cell array."""
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = value
    return array.reshape(shape)


def texts(rows: int = ROWS) -> list[str]:
    """Return a line of tags for each row; the last has none, as DCMHT's script writes it."""
    return [f"sky thing{i % CLASSES} row{i}" for i in range(rows - 1)] + ["123456"]


def write_dcmht(
    root: Path,
    pictures: Path,
    form: str = "flat",
    names: Sequence[str] = (),
    classes: int = CLASSES,
) -> list[str]:
    """Write index, caption and label with absolute paths of another machine; return these.

    ``form`` of the captions: ``cells`` (several a row), ``column``, ``flat`` or ``text``.
    """
    root.mkdir(parents=True, exist_ok=True)
    names = list(names) or [f"mirflickr/im{i + 1}.jpg" for i in range(ROWS)]
    labels = np.eye(classes, dtype=np.int8)[np.arange(len(names)) % classes]
    labels[::4, classes - 1] = 1
    for row, name in enumerate(names):
        write_picture(pictures / name, int(labels[row].argmax()))
    there = [f"/home/author/data/{name}" for name in names]
    scipy.io.savemat(root / "index.mat", {"index": np.array(there)})
    scipy.io.savemat(root / "label.mat", {"category": labels})
    lines = texts(len(names))
    if form == "text":
        (root / "caption.txt").write_text("".join(f"{line}\n" for line in lines))
        return there
    several = [
        np.array([f"{line} {j}" for j in range(5 + row % 2)]) for row, line in enumerate(lines)
    ]
    captions = {
        "cells": cells(several, (1, len(names))),
        "column": np.array(lines).reshape(-1, 1),
        "flat": np.array(lines),
    }[form]
    scipy.io.savemat(root / "caption.mat", {"caption": captions})
    return there


def write_painted(root: Path, queries: int) -> None:
    """Write VTPH's pictures painted from query texts, and the file of their captions."""
    for rank in range(queries):
        write_picture(root / f"{rank + 1}.png", rank)
    root.joinpath("captions.txt").write_text(
        "".join(f"a painting of thing {rank}\n" for rank in range(queries))
    )


def write_lists(root: Path, parts: dict[str, Sequence[int]], pattern: str, classes: int) -> None:
    """Write DeepHash-pytorch's lists, ``path bits``, of row numbers; ``pattern`` takes one."""
    for name, rows in parts.items():
        bits = [" ".join(str(int(row % classes == c)) for c in range(classes)) for row in rows]
        lines = [f"{pattern.format(row)} {bit}\n" for row, bit in zip(rows, bits, strict=True)]
        root.joinpath(name).write_text("".join(lines))


def pzsh_line(path: str, label: int, classes: int, width: int | None) -> str:
    """Return a line of PZSH's: eight fields with a feature of ``width`` numbers, or two fields."""
    fields = [path, " ".join(str(int(label == c)) for c in range(classes))]
    if width is not None:
        feature = np.random.default_rng(label).normal(size=width)
        words = " ".join(f"{value:.6f}" for value in feature / np.linalg.norm(feature))
        fields += ["A photo", f"class {label}", "furry big", f"{path}_8x8", f"{path}_SDimg", words]
    return "\t".join(fields) + "\n"


def write_pzsh(root: Path, width: int, classes: int = 5, unseen: Sequence[int] = (3, 4)) -> None:
    """Write PZSH's lists: seen classes and painted rows of unseen ones train, unseen ones ask."""
    lines: dict[str, list[str]] = {"train_3_AWA.txt": [], "test.txt": [], "database.txt": []}

    def put(name: str, path: str, label: int, numbers: int | None = None) -> None:
        write_picture(root / path, label)
        lines[name].append(pzsh_line(path, label, classes, numbers))

    for label in range(classes):
        for i in range(6):
            path = f"JPEGImages/class{label}/{label}_{i}.jpg"
            if label in unseen:
                put("test.txt" if i < 2 else "database.txt", path, label)
                if i < 3:
                    put("train_3_AWA.txt", f"txt2img/class{label}/{i:05d}.png", label, width)
            else:
                put("train_3_AWA.txt" if i < 4 else "database.txt", path, label,
                    width if i < 4 else None)  # fmt: skip
    for name, content in lines.items():
        root.joinpath(name).write_text("".join(content))
