"""Official layouts at small size: real file names and formats, drawn pictures.

A new dataset enters its writer in ``WRITERS``; ``test_every_source.py`` then takes it through
prepare, verify and two training steps.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from dataset.sources import flickr25k, nuswide
from tests.dataset.sources.images import write_image
from tests.dataset.sources.layouts_images import (
    write_cifar10,
    write_cifar100,
    write_nabirds,
    write_stanford_cars,
)
from tests.dataset.sources.layouts_zero_shot import write_awa2, write_cub, write_sun

ROWS = 60


def pack(archive: Path, *folders: Path, base: Path) -> None:
    """Zip folders under their names below ``base`` and remove them."""
    with zipfile.ZipFile(archive, "w") as opened:
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    opened.write(path, path.relative_to(base).as_posix())
                    path.unlink()


def write_coco(root: Path, rows: int = ROWS) -> None:
    """COCO 2017: two folders of pictures, four files of annotations; row 0 has no instance."""
    kinds = [(1, "person"), (3, "car"), (17, "cat"), (18, "dog"), (90, "toothbrush")]
    (root / "annotations").mkdir(parents=True)
    for part, ids in (("train2017", range(rows - 10)), ("val2017", range(rows - 10, rows))):
        numbers = [7 + 3 * i for i in ids]
        images = [
            {"id": n, "file_name": f"{n:012d}.jpg", "height": 20, "width": 24} for n in numbers
        ]
        notes = [
            {
                "id": 10 * n + k,
                "image_id": n,
                "category_id": kinds[(i + k) % 5][0],
                "iscrowd": k % 2,
            }
            for i, n in zip(ids, numbers, strict=True)
            for k in range(0 if i == 0 else 1 + i % 2)
        ]
        captions = [
            {
                "id": 10 * n + j,
                "image_id": n,
                "caption": f"A thing of kind {i % 5}, told {j} times. \n",
            }
            for i, n in zip(ids, numbers, strict=True)
            for j in reversed(range(5))
        ]
        categories = [
            {"supercategory": "x", "id": number, "name": name} for number, name in reversed(kinds)
        ]
        head = {"info": {"year": 2017}, "licenses": [], "images": images[::-1]}
        files = {
            f"instances_{part}.json": {**head, "annotations": notes, "categories": categories},
            f"captions_{part}.json": {**head, "annotations": captions},
        }
        for name, content in files.items():
            (root / "annotations" / name).write_text(json.dumps(content), encoding="utf-8")
        for n in numbers:
            write_image(root / part / f"{n:012d}.jpg", n)


def write_flickr25k(root: Path, rows: int = ROWS) -> None:
    """MIRFlickr-25K: im1.jpg…, a file of tags each, 38 lists of numbers; row 1 has no label."""
    folder = root / flickr25k.ANNOTATIONS
    folder.mkdir(parents=True)
    for c, name in enumerate(flickr25k.LABELS):
        members = [n for n in range(2, rows + 1) if n % 24 == c or n % 5 == c % 5 == 0]
        (folder / f"{name}.txt").write_text("".join(f"{n}\r\n" for n in members))
        if name in flickr25k.CLEAR:
            (folder / f"{name}_r1.txt").write_text("".join(f"{n}\r\n" for n in members[::2]))
    tags = root / flickr25k.IMAGES / "meta" / "tags"
    tags.mkdir(parents=True)
    for n in range(1, rows + 1):
        write_image(root / flickr25k.IMAGES / f"im{n}.jpg", n)
        words = [] if n % 7 == 0 else [["nikon", "beach"][n % 2], f"only{n}"]
        (tags / f"tags{n}.txt").write_text("".join(f"{word}\r\n" for word in words))


def write_nuswide(root: Path, rows: int = ROWS) -> None:
    """NUS-WIDE: a list with backslashes, a file of 0/1 per concept, tags by Flickr's numbers."""
    numbers = [1_000_000 + 17 * i for i in range(rows)]
    words = ["actor" if i % 2 else "zoo" for i in range(rows)]
    names = [
        f"{word}\\{i:04d}_{n}.jpg" for i, (word, n) in enumerate(zip(words, numbers, strict=True))
    ]
    (root / "ImageList").mkdir(parents=True)
    (root / "ImageList" / "Imagelist.txt").write_text("".join(f"{name}\r\n" for name in names))
    concepts = [*nuswide.CONCEPTS_21, *(f"concept{c}" for c in range(60))]
    folder = root / "Groundtruth" / "AllLabels"
    folder.mkdir(parents=True)
    for c, concept in enumerate(concepts):
        bits = [
            int(i > 0 and (i % 81 == c or i % 21 == c or (i + c) % 19 == 0)) for i in range(rows)
        ]
        (folder / f"Labels_{concept}.txt").write_text("".join(f"{bit}\n" for bit in bits))
    tags = root / "NUS_WID_Tags"
    tags.mkdir()
    lines = [f"{n}\t {'' if i % 6 == 5 else f'sky  tag{i}'}\n" for i, n in enumerate(numbers)]
    (tags / "All_Tags.txt").write_text("".join(reversed(lines)))
    (tags / "TagList1k.txt").write_text("sky\nnature\n")
    for name, n in zip(names, numbers, strict=True):
        write_image(root / "Flickr" / name.replace("\\", "/"), n)


WRITERS: dict[str, Callable[[Path], None]] = {
    "coco": write_coco,
    "flickr25k": write_flickr25k,
    "nuswide": write_nuswide,
    "awa2": write_awa2,
    "cub": write_cub,
    "sun": write_sun,
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "stanford_cars": write_stanford_cars,
    "nabirds": write_nabirds,
}

_IN_ALL = ["dataset.split.query=6", "dataset.split.train=24"]
_ONE_EACH = ["dataset.split.query=1", "dataset.split.train=1"]
SMALL: dict[str, list[str]] = {
    "coco": _IN_ALL,
    "flickr25k": _IN_ALL,
    "nuswide": _IN_ALL,
    "awa2": _ONE_EACH,
    "cub": _ONE_EACH,
    "sun": _ONE_EACH,
    "cifar10": _ONE_EACH,
    "cifar100": _ONE_EACH,
}
"""Settings under which the default protocol can be drawn from so few rows."""
