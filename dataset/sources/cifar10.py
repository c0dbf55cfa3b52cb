"""CIFAR-10: Krizhevsky, 2009; 60,000 pictures of 32 px in ten classes, in the binary files.

Rows: the five training batches, then the test batch. Protocols ``cifar10…`` have their names in
DeepHash-pytorch, which draws them without a seed, ``fire_ep1`` is protocol 1 of cisip-FIRe.
"""

from __future__ import annotations

from dataset.preparation import rules
from dataset.preparation.prepared_dataset import prepared
from dataset.preparation.protocol import Protocol, Stated
from dataset.preparation.source import OfficialFile
from dataset.sources.cifar_records import RecordSource

FOLDER = "cifar-10-batches-bin"
FILES = tuple(
    f"{FOLDER}/{n}.bin" for n in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
)
NAMES = f"{FOLDER}/batches.meta.txt"
_ALL = {"rows": 60_000, "classes": 10}
_ORDER = "official training pictures, then test pictures"


def _deephash(rule: str, contains_train: bool) -> Stated:
    generator = "numpy.random.permutation of every class in turn"
    return Stated(_ORDER, rule, generator, contains_train=contains_train)


@prepared
class Cifar10(RecordSource):
    """CIFAR-10: 60,000 small pictures, ten classes; by `main.py prepare cifar10`."""

    name = "cifar10"
    title = "CIFAR-10"
    files = (
        # size and checksum: as in tensorflow-datasets 4.9.10, url_checksums/cifar10.txt
        OfficialFile(
            "cifar-10-binary.tar.gz",
            unpacks=(*FILES, NAMES),
            url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            page="https://www.cs.toronto.edu/~kriz/cifar.html",
            size=170_052_171,
            checksum="sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            unpacked_size=185_000_000,
        ),
    )
    record_files, names_file, label_bytes = FILES, NAMES, 1
    protocols = (
        Protocol(
            "cifar10", "DPSH, HashNet, DHN, DTSH, GreedyHash as DeepHash-pytorch runs them",
            rules.in_turn("rest"), 0,
            query=100, train=500, train_in_database=False,
            published={**_ALL, "train": 5000, "query": 1000, "database": 54_000},
            per_class={"train": 500, "query": 100, "database": 5400},
            stated=_deephash(
                "of every class {query} queries, {train} training rows, the rest database", False
            ),
        ),
        Protocol(
            "cifar10-1", "DSH as DeepHash-pytorch runs it", rules.in_turn("train, rest"), 0,
            query=100, train=500,
            published={**_ALL, "train": 5000, "query": 1000, "database": 59_000},
            per_class={"train": 500, "query": 100, "database": 5900},
            stated=_deephash(
                "of every class {query} queries, {train} training rows; training rows and the "
                "rest are the database", True,
            ),
        ),
        Protocol(
            "cifar10-2", "GreedyHash, second figure in DeepHash-pytorch",
            rules.in_turn("train"), 0, query=1000, train=5000,
            published={**_ALL, "train": 50_000, "query": 10_000, "database": 50_000},
            per_class={"train": 5000, "query": 1000, "database": 5000},
            stated=_deephash(
                "of every class {query} queries; {train} training rows, which are the database",
                True,
            ),
        ),
        Protocol(
            "fire_ep1", "OrthoHash, CSQ as cisip-FIRe runs them (protocol 1)",
            rules.in_turn("by class"), 0, query=100, train=500,
            published={**_ALL, "train": 5000, "query": 1000, "database": 59_000},
            per_class={"train": 500, "query": 100, "database": 5900},
            stated=Stated(
                _ORDER,
                "of every class {query} queries; all others are the database, the first {train} "
                "of them train",
                "numpy.random.shuffle of every class in turn",
            ),
        ),
    )  # fmt: skip
