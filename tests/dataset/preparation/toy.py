"""A dataset with official files, small enough to count by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from dataset.preparation import rules
from dataset.preparation.prepared_dataset import PreparedConfig
from dataset.preparation.protocol import ListFiles, Protocol
from dataset.preparation.rows import Attributes, Rows
from dataset.preparation.source import OfficialFile, Source
from tests.dataset.sources.layouts import write_image

CLASSES = ("ant", "bee", "cow", "dog")
N = 24


class Toy(Source):
    """24 pictures of four animals, six each; two classes seen. Row 0 of the table is a header."""

    name, title, licence = "toy", "Toy", "none"
    files = (
        OfficialFile("pictures.zip", unpacks=("pictures",), url="http://127.0.0.1:9/pictures.zip"),
        OfficialFile("rows.txt", into="meta", page="https://example.org"),
        OfficialFile("attributes.txt", into="meta", page="https://example.org"),
        OfficialFile("more.zip", unpacks=("more",), needed=False),
    )
    protocols = (
        Protocol(
            "per_class", "one paper", rules.per_class, 1, 1, 2,
            published={"rows": 24, "classes": 4, "train": 8, "query": 4, "database": 20},
            per_class={"query": 1, "train": 2, "database": 5},
        ),
        Protocol(
            "unseen", "another", rules.seen_unseen, 1, 2, 3, train_in_database=False, seen="seen",
            published={"train": 6, "query": 4, "database": 14},
        ),
        Protocol(
            "marked", "a third", rules.by_subsets("first", "second", rules.REST),
            published={"train": 12, "query": 4},
        ),
        Protocol(
            "released", "a fourth", rules.by_subsets("first", "second", ("first", "second")),
            overlap=True, note="queries stand in the database",
        ),
        Protocol(
            "lists", "lists", rules.by_lists,
            lists=ListFiles("train.txt", "test.txt", "database.txt", database_needed=False),
        ),
        Protocol(
            "two", "two classes", rules.permutation, 5, 2, 4, classes=("dog", "bee"), keep="odd"
        ),
    )  # fmt: skip

    def read(self, root: Path) -> Rows:
        lines = [line.split("\t") for line in (root / "meta" / "rows.txt").read_text().splitlines()]
        labels = np.zeros((len(lines), len(CLASSES)), np.uint8)
        for row, (_, kind) in enumerate(lines):
            if kind:
                labels[row, CLASSES.index(kind)] = 1
        marks = np.arange(len(lines))
        return Rows(
            keys=tuple(path.removesuffix(".jpg") for path, _ in lines),
            paths=tuple(f"pictures/{path}" for path, _ in lines),
            labels=labels,
            class_names=CLASSES,
            attributes=self.attributes(root)[0],
            class_sets={"seen": ("dog", "ant")},
            subsets={"first": marks < 12, "second": marks >= 20, "odd": marks % 2 == 1},
            extras={"number": marks[:, None].astype(np.float32)},
        )

    def attributes(self, root: Path) -> tuple[Attributes, ...]:
        lines = (root / "meta" / "attributes.txt").read_text().splitlines()
        names = tuple(line.split()[0] for line in lines)
        values = np.array([line.split()[1:] for line in lines], np.float32)
        return (Attributes(names, ("legs", "wings"), values),)


@dataclasses.dataclass(frozen=True)
class ToyConfig(PreparedConfig):
    source = Toy()


def write_toy(root: Path) -> Path:
    """Write the official layout; the attributes are in an order of their own."""
    for i in range(N):
        write_image(root / "pictures" / f"{i}.jpg", i)
    (root / "meta").mkdir()
    lines = [f"{i}.jpg\t{CLASSES[i % 4]}\n" for i in range(N)]
    (root / "meta" / "rows.txt").write_text("".join(lines))
    (root / "meta" / "attributes.txt").write_text("dog 4 0\nant 6 0\nbee 6 4\ncow 4 1\n")
    return root
