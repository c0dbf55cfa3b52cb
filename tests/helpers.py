"""Toy data, and the words that train on it in a tenth of a second."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.code_files.run_codes import read_codes
from common.config.run_config import compose
from common.storage.run_folder import RunFolder
from runners.base import run_config

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
CLASSES = ("ant", "bee", "cow")
PIXELS = ("backbone=pixels", "backbone.size=8", "backbone.text_width=32", "bits=16")
QUICK = (
    "runner.epochs=3", "runner.batch_size=16", "runner.threads=1", "runner.device=cpu",
    "runner.tensorboard=false", "optim.lr=1e-3",
)  # fmt: skip


def picture(rng: np.random.Generator, classes: list[int], side: int = 8) -> np.ndarray:
    """Return noise [side,side,3] that is brighter in the channels of its classes."""
    pixels = rng.integers(0, 180, (side, side, 3))
    pixels[..., classes] += 50
    return pixels.astype(np.uint8)


def write_class_folders(root: Path, per_class: int = 14) -> Path:
    """Write ``root/<class>/<i>.png``, single-label pictures without captions."""
    rng = np.random.default_rng(0)
    for c, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(picture(rng, [c])).save(root / name / f"{i}.png")
    return root


def write_captioned(root: Path, rows: int = 48) -> Path:
    """Write ``root/list.csv`` and its pictures: one or two labels a row and two captions."""
    rng = np.random.default_rng(1)
    root.mkdir(parents=True)
    with open(root / "list.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "label", "caption", "caption2"])
        for i in range(rows):
            chosen = sorted({i % 3, int(rng.integers(0, 3))})
            names = [CLASSES[c] for c in chosen]
            Image.fromarray(picture(rng, chosen)).save(root / f"{i}.png")
            words = " ".join([*names, "and", f"thing{int(rng.integers(0, 9))}"])
            table.writerow([f"{i}.png", ";".join(names), f"a {words}", f"{words} in a meadow"])
    return root


def write_mat(root: Path, rows: int = 12, classes: int = 3) -> dict[str, np.ndarray]:
    """Write index.npy, caption.mat and label.mat; return what they hold, for a test to damage."""
    import scipy.io

    rng = np.random.default_rng(2)
    root.mkdir(parents=True, exist_ok=True)
    labels = np.eye(classes, dtype=np.uint8)[np.arange(rows) % classes]
    pictures = np.stack([picture(rng, [i % classes % 3]) for i in range(rows)])
    captions = np.array([f"a {CLASSES[i % 3]} number {i}" for i in range(rows)], dtype=object)
    np.save(root / "index.npy", pictures)
    scipy.io.savemat(root / "caption.mat", {"caption": captions})
    scipy.io.savemat(root / "label.mat", {"category": labels})
    return {"index": pictures, "caption": captions, "category": labels}


def run(*words: str) -> RunFolder:
    """Do the run that the words ask for, in this process."""
    return run_config(compose(words))


def write_no_codes(path: Path) -> None:
    """Write a ``codes.h5`` that looks like one of a run, for readers that do not open it."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_group("query")
        file.create_group("database")


def outcome(folder: RunFolder) -> dict[str, Any]:
    """Return what a run came to, without times: codes, labels, rows, metrics; for ``==``."""
    metrics = folder.metrics()
    metrics.pop("timing")
    metrics.pop("memory")
    parts: dict[str, Any] = {"metrics": metrics}
    for file in (folder.codes_file, *sorted(folder.path.glob("codes-epoch*.h5"))):
        query, database, parts["split_hash"] = read_codes(file)
        of = "" if file == folder.codes_file else f"{file.stem} "
        parts |= {
            f"{of}{name} {key}": array.tolist()
            for name, part in (("query", query), ("database", database))
            for key, array in {**part.codes, "labels": part.labels, "rows": part.rows}.items()
        }
    return parts
