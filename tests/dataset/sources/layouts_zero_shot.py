"""AwA2, CUB and SUN in their official layouts, at small size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io

from dataset.sources import awa2, cub, sun
from tests.dataset.sources.images import write_image

TINY = (7, 6)  # pixels
AWA2_EACH, CUB_EACH, SUN_EACH = 5, 2, 2  # rows of a class


def cells(words: list[str]) -> np.ndarray:
    """Return a MATLAB cell array [n,1]."""
    array = np.empty((len(words), 1), object)
    array[:, 0] = words
    return array


def write_att_splits(
    file: Path, names: list[str], values: np.ndarray, labels: list[int], unseen: list[int]
) -> None:
    """Write ``att_splits.mat``: of seen classes the last row is for testing.

    Args:
        file: where.
        names: C, in the file's own order.
        values: [C,A], rows in that order.
        labels: class number of each row of the dataset, sorted into blocks.
        unseen: class numbers.
    """
    classes = np.array(labels)
    last = np.append(classes[1:] != classes[:-1], True)
    is_unseen = np.isin(classes, unseen)
    marks = {
        "trainval_loc": ~is_unseen & ~last,
        "test_seen_loc": ~is_unseen & last,
        "test_unseen_loc": is_unseen,
    }
    located = {
        key: (np.flatnonzero(mark)[:, None] + 1).astype(np.uint16) for key, mark in marks.items()
    }
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(
        file,
        {
            **located,
            "allclasses_names": cells(names),
            "att": (values / norms).T,
            "original_att": values.T,
        },
    )


def write_numbered(file: Path, words: list[str]) -> None:
    file.write_text("".join(f"{i:7d}\t{word}\n" for i, word in enumerate(words, 1)))


def write_awa2(root: Path) -> None:
    """AwA2: 50 animals, five photos each; classes.txt is not in alphabetical order."""
    folder = root / awa2.FOLDER
    folder.mkdir(parents=True)
    names = [f"animal+{(7 * c) % 50:02d}" for c in range(50)]
    values = np.random.default_rng(5).uniform(0, 100, (50, 85)).round(2)
    values[3, :2] = -1
    write_numbered(folder / "classes.txt", names)
    write_numbered(folder / "predicates.txt", [f"trait{a}" for a in range(85)])
    lines = ["  ".join(f"{value:6.2f}" for value in row) for row in values]
    (folder / "predicate-matrix-continuous.txt").write_text("\n".join(lines) + "\n")
    (folder / "trainclasses.txt").write_text("".join(f"{name}\n" for name in names[:40]))
    (folder / "testclasses.txt").write_text("".join(f"{name}\n" for name in names[40:]))
    listed = sorted(names)
    for c, name in enumerate(listed):
        for i in range(AWA2_EACH):
            path = root / awa2.IMAGES / name / f"{name}_{10001 + i}.jpg"
            write_image(path, AWA2_EACH * c + i, TINY)
    labels = [c for c in range(50) for _ in range(AWA2_EACH)]
    write_att_splits(
        root / "xlsa17" / "data" / "AWA2" / "att_splits.mat", names, values, labels,
        list(range(0, 50, 5)),
    )  # fmt: skip


def write_cub(root: Path) -> None:
    """CUB: 200 birds, two photos each; the last line of a photo has words too many."""
    folder = root / cub.FOLDER
    (folder / "attributes").mkdir(parents=True)
    names = [f"{c + 1:03d}.Bird_{c}" for c in range(200)]
    traits = ["has_bill_shape::dagger", "has_bill_shape::hooked_(seabird)", "has_size::small"]
    values = np.random.default_rng(6).uniform(0, 100, (200, 3)).round(4)
    files = [f"{name}/Bird_{c}_{i:04d}_{9 * c + i}.jpg" for c, name in enumerate(names)
             for i in range(CUB_EACH)]  # fmt: skip
    labels = [c for c in range(200) for _ in range(CUB_EACH)]
    table = "".join(
        f"{i} {a} {(i + a) % 2} {1 + (i + 2 * a) % 4} 5.{a}{' 0 1.25' if a == 3 else ''}\n"
        for i in range(1, len(files) + 1)
        for a in (1, 2, 3)
    )
    matrix = "".join(" ".join(map(str, row)) + "\n" for row in values.tolist())
    tables = {
        folder / "images.txt": "".join(f"{i} {file}\n" for i, file in enumerate(files, 1)),
        folder / "classes.txt": "".join(f"{c} {name}\n" for c, name in enumerate(names, 1)),
        folder / "image_class_labels.txt": "".join(
            f"{i} {c + 1}\n" for i, c in enumerate(labels, 1)
        ),
        folder / "attributes" / "class_attribute_labels_continuous.txt": matrix,
        folder / "attributes" / "image_attribute_labels.txt": table,
        root / "attributes.txt": "".join(f"{a} {trait}\n" for a, trait in enumerate(traits, 1)),
    }
    for file, text in tables.items():
        file.write_text(text)
    for number, file in enumerate(files):
        write_image(folder / "images" / file, number, TINY)
    order = np.random.default_rng(7).permutation(200)  # xlsa17 has the classes in another order
    write_att_splits(
        root / "xlsa17" / "data" / "CUB" / "att_splits.mat", [names[c] for c in order],
        values[order], labels, list(range(3, 200, 4)),
    )  # fmt: skip


def write_sun(root: Path) -> None:
    """SUN: 717 scenes, two photos each, every third scene in a folder of a folder."""
    folder = root / sun.FOLDER
    folder.mkdir(parents=True)
    scenes = [f"s{c:03d}/indoor" if c % 3 == 0 else f"s{c:03d}" for c in range(717)]
    files = [f"{'abc'[c // 239]}/{scene}/sun_{i}{c:03d}.jpg" for c, scene in enumerate(scenes)
             for i in range(SUN_EACH)]  # fmt: skip
    values = np.random.default_rng(8).integers(0, 4, (len(files), 4)) / 3
    traits = ["sailing/ boating", "natural light", "man-made", "open area"]
    scipy.io.savemat(folder / "images.mat", {"images": cells(files)})
    scipy.io.savemat(folder / "attributes.mat", {"attributes": cells(traits)})
    scipy.io.savemat(folder / "attributeLabels_continuous.mat", {"labels_cv": values})
    for number, file in enumerate(files):
        write_image(root / sun.IMAGES / file, number, TINY)
    labels = [c for c in range(717) for _ in range(SUN_EACH)]
    write_att_splits(
        root / "xlsa17" / "data" / "SUN" / "att_splits.mat",
        [scene.replace("/", "_") for scene in scenes], values.reshape(717, SUN_EACH, 4).mean(1),
        labels, list(range(0, 717, 10)),
    )  # fmt: skip
