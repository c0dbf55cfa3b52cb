"""CIFAR-100: Krizhevsky, 2009; 60,000 pictures of 32 px in 100 classes, in the binary files.

Rows: the training file, then the test file. Labels: the 100 fine classes; the twenty coarse ones
are not used.
"""

from __future__ import annotations

from dataset.preparation import rules
from dataset.preparation.prepared_dataset import prepared
from dataset.preparation.protocol import Protocol
from dataset.preparation.source import OfficialFile
from dataset.sources import list_protocols
from dataset.sources.cifar_records import RecordSource

FOLDER = "cifar-100-binary"
FILES = (f"{FOLDER}/train.bin", f"{FOLDER}/test.bin")
NAMES = f"{FOLDER}/fine_label_names.txt"
_ALL = {"rows": 60_000, "classes": 100}


@prepared
class Cifar100(RecordSource):
    """CIFAR-100: 60,000 small pictures, 100 classes; by `main.py prepare cifar100`."""

    name = "cifar100"
    title = "CIFAR-100"
    files = (
        # size and checksum: as in tensorflow-datasets 4.9.10, url_checksums/cifar100.txt
        OfficialFile(
            "cifar-100-binary.tar.gz",
            unpacks=(*FILES, NAMES),
            url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            page="https://www.cs.toronto.edu/~kriz/cifar.html",
            size=168_513_733,
            checksum="sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            unpacked_size=185_000_000,
        ),
    )
    record_files, names_file, label_bytes = FILES, NAMES, 2
    protocols = (
        Protocol(
            "shc", "SHC, by the counts of a reproduction: its own lists are not released",
            rules.per_class, 0, query=50, train=100, train_in_database=False,
            published={**_ALL, "train": 10_000, "query": 5000, "database": 45_000},
            per_class={"train": 100, "query": 50, "database": 450},
            stated=list_protocols.SHC,
        ),
        Protocol(
            "official", "the publisher's halves: train and database, queries",
            rules.by_subsets(train="train", query="test", database="train"),
            published={**_ALL, "train": 50_000, "query": 10_000, "database": 50_000},
            per_class={"train": 500, "query": 100, "database": 500},
        ),
    )  # fmt: skip
