"""CIFAR-10, CIFAR-100, Stanford Cars and NABirds in their official layouts, at small size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io

from dataset.sources import cifar10, cifar100, nabirds, stanford_cars
from tests.dataset.sources.images import write_image
from tests.dataset.sources.layouts_zero_shot import TINY, cells

BIRDS = {"817": "Oak Titmouse", "297": "Mallard", "900": "Mallard", "4": "Loon"}  # number → name
CARS = ["AM General Hummer SUV 2000", "Acura TL Sedan 2012", "smart fortwo Convertible 2012"]


def write_records(file: Path, labels: np.ndarray, start: int) -> None:
    """Write records: the rows of ``labels`` (uint8 [n,L]), each before pixels drawn anew."""
    pixels = np.random.default_rng(start).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    file.write_bytes(np.concatenate([labels.astype(np.uint8), pixels], axis=1).tobytes())


def write_cifar10(root: Path) -> None:
    """CIFAR-10: six files of twenty records, two of each class."""
    (root / cifar10.FOLDER).mkdir(parents=True)
    classes = np.arange(20)[:, None] % 10
    for number, name in enumerate(cifar10.FILES):
        write_records(root / name, classes, number)
    names = "".join(f"kind{c}\n" for c in range(10))
    (root / cifar10.NAMES).write_text(f"{names}\n")


def write_cifar100(root: Path) -> None:
    """CIFAR-100: three training records and one for testing of each class."""
    (root / cifar100.FOLDER).mkdir(parents=True)
    fine = np.arange(300) % 100
    labels = np.stack([fine // 5, fine], axis=1)  # coarse, fine
    write_records(root / cifar100.FILES[0], labels, 1)
    write_records(root / cifar100.FILES[1], labels[:100], 2)
    (root / cifar100.NAMES).write_text("".join(f"kind{c}\n" for c in range(100)))
    coarse = "".join(f"group{c}\n" for c in range(20))
    (root / cifar100.FOLDER / "coarse_label_names.txt").write_text(coarse)


def write_stanford_cars(root: Path) -> None:
    """Stanford Cars: 18 photos for training, 12 for testing; both halves count from 1."""
    (root / "devkit").mkdir(parents=True)
    scipy.io.savemat(root / "devkit" / "cars_meta.mat", {"class_names": cells(CARS).T})
    halves = {
        "cars_train": (root / "devkit" / "cars_train_annos.mat", 18),
        "cars_test": (root / stanford_cars.LABELS, 12),
    }
    for number, (half, (file, n)) in enumerate(halves.items()):
        names = [f"{i:05d}.jpg" for i in range(1, n + 1)]
        write_annotations(file, names, [1 + (i + i // 4) % 3 for i in range(n)])
        for i, name in enumerate(names):
            write_image(root / half / name, 1000 * number + i, TINY)


def write_annotations(file: Path, names: list[str], classes: list[int] | None) -> None:
    """Write a struct array as the devkit has it; without classes as for the bare test half."""
    boxes = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"]
    fields = [*boxes, *(["class"] if classes else []), "fname"]
    records = np.zeros((1, len(names)), dtype=[(field, object) for field in fields])
    for i, name in enumerate(names):
        for box in boxes:
            records[0, i][box] = np.uint16(i + 1)
        if classes:
            records[0, i]["class"] = np.uint8(classes[i])
        records[0, i]["fname"] = name
    scipy.io.savemat(file, {"annotations": records})


def write_nabirds(root: Path) -> None:
    """NABirds: eight photos of each of four birds; two share a name, and nodes have none."""
    folder = root / nabirds.FOLDER
    folder.mkdir(parents=True)
    numbers = list(BIRDS)
    tables: dict[str, list[str]] = {name: [] for name in nabirds.TABLES}
    tables["classes.txt"] = ["0 Birds", "1 Ducks, Geese, and Swans"] + [
        f"{number} {name}" for number, name in BIRDS.items()
    ]
    for i in range(32):
        number = numbers[i % 4]
        plain = f"{i:08x}aaaa4bbb8cccddddeeeeffff"
        image = f"{plain[:8]}-{plain[8:12]}-{plain[12:16]}-{plain[16:20]}-{plain[20:]}"
        path = f"{int(number):04d}/{plain}.jpg"
        tables["images.txt"].append(f"{image} {path}")
        tables["image_class_labels.txt"].append(f"{image} {number}")
        tables["train_test_split.txt"].append(f"{image} {int(i % 8 < 3 or i > 28)}")
        write_image(folder / "images" / path, i, TINY)
    for name, lines in tables.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
