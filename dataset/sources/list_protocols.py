"""Protocols by lists: of DeepHash-pytorch, of cisip-FIRe, and of releases that publish none.

Pictures without official files, which the dataset ``lists`` reads, have their protocols here
(:data:`LISTED_SETS`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from dataset.preparation import rules
from dataset.preparation.protocol import ListFiles, Protocol, ProtocolSet, Stated

FILES = ListFiles("train.txt", "test.txt", "database.txt")
NONE_SEEN = "none seen in the lists at hand"

DEEPHASH = Stated(
    "lists", "lists train.txt, test.txt, database.txt", numbers=("query", "train", "database"),
    unlabelled=NONE_SEEN, labels="bits of the list",
)  # fmt: skip
FIRE = Stated(
    "lists train.txt, test.txt, database.txt of its data folder", "lists", numbers=(),
    contains_train=None, contains_query=None, unlabelled=None, labels="all labels",
)  # fmt: skip
SHC = Stated(
    "that of the dataset's files", "as dataset.split.name says: the release's lists are missing",
    numbers=(),
    contains_train=None, contains_query=None, unlabelled=None, labels="one-hot",
)  # fmt: skip


def fire(classes: int, stated: Stated = FIRE, columns: tuple[str, ...] | None = None) -> Protocol:
    """Return the protocol of cisip-FIRe; ``columns``: see ``Protocol.classes``."""
    return Protocol(
        "fire", "OrthoHash, CSQ as cisip-FIRe runs them", rules.by_lists, classes=columns,
        keep_unlabelled=True, lists=FILES, published={"classes": classes}, stated=stated,
        note="lists of cisip-FIRe's data folder, which are not in its repository",
    )  # fmt: skip


def by_lists(papers: str, published: Mapping[str, int], stated: Stated) -> Protocol:
    """Return the protocol ``lists`` of pictures that are known by their lists alone."""
    return Protocol(
        "lists", papers, rules.by_lists, keep_unlabelled=True, lists=FILES, published=published,
        stated=stated,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ListedSet(ProtocolSet):
    """Pictures by published lists, without official files that a source here reads."""

    name: str
    protocols: tuple[Protocol, ...]


_ONE_HOT = dataclasses.replace(DEEPHASH, unlabelled="cannot occur", labels="one-hot")

LISTED_SETS = (
    ListedSet("imagenet100", (
        by_lists(
            "HashNet's lists, which DeepHash-pytorch uses",
            {"classes": 100, "train": 13_000, "query": 5000, "database": 128_503},
            _ONE_HOT,
        ),
        fire(100, dataclasses.replace(FIRE, unlabelled="cannot occur", labels="one-hot")),
    )),
    ListedSet("voc2012", (
        by_lists(
            "DeepHash-pytorch's lists",
            {"classes": 20, "train": 4000, "query": 1000, "database": 6540},
            dataclasses.replace(DEEPHASH, contains_train=False),
        ),
    )),
)  # fmt: skip
"""What ``dataset=lists`` reads and ``dataset.protocol`` names, as ``imagenet100/lists``."""
