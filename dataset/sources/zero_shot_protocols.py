"""The protocols of zero-shot hashing: train on seen classes, query with unseen ones.

``pixel``: n random rows of each class are its training rows (seen) or queries (unseen), all others
the database. ``proposed``: the rows that xlsa17 marks; its unseen part yields queries and, with its
test rows of seen classes, the database. ``pixel_released``: the leaking draw of PIXEL's release.
``lists``: list files in PZSH's format.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dataset.preparation import rules
from dataset.preparation.protocol import Protocol, Selection, Stated
from dataset.sources import list_protocols, xlsa17
from dataset.splits import SplitConfig, SplitManifest, make_split
from utils.errors import UserError

STANDARD = "standard"
"""Name of the set of classes that the dataset's authors (or the papers) train on."""

_IN_PART = "in part (independent shuffles)"
PZSH = Stated(
    "train, test and database lists that are not in the repository", "lists",
    numbers=("query", "train", "database"), contains_train=None,
)  # fmt: skip
FIELDS = {"train": 3, "query": 2, "database": 2}
"""Of a line of PZSH's lists that its (later) release reads."""
_LEAK = "queries and training rows stand in the database too, as PIXEL's released code draws them"


def protocols(
    *, rows: int, classes: int, seen: int, train: int, query: int,
    trainval: int, test_seen: int, test_unseen: int, unseen: int,
) -> tuple[Protocol, ...]:  # fmt: skip
    """Return the four protocols with the numbers that papers state.

    Args:
        rows: N.
        classes: C.
        seen: classes that are trained on, in the standard split.
        train: training rows of each seen class.
        query: queries of each unseen class.
        trainval: rows of this part of xlsa17's proposed split.
        test_seen: the same.
        test_unseen: the same.
        unseen: classes that the proposed split does not train on.
    """
    sizes, used = {"rows": rows, "classes": classes}, seen * train + (classes - seen) * query
    published = {
        **sizes, "train": seen * train, "query": (classes - seen) * query, "database": rows - used
    }  # fmt: skip
    proposed = {
        **sizes, "train": trainval, "query": unseen * query,
        "database": test_seen + test_unseen - unseen * query,
    }  # fmt: skip
    drawn = Protocol(
        "pixel", "PIXEL, PZSH", rules.seen_unseen, 0, query, train, train_in_database=False,
        seen=STANDARD, published=published, per_class={"train": train, "query": query},
    )  # fmt: skip
    released = Stated(
        "rows of each class by number, shuffled",
        "each part shuffles the files of a class anew: first {train} of a seen class train, first "
        "{query} of an unseen class ask, all but the first {train} of every class are the database",
        "numpy.random.RandomState", numbers=("query", "train", "database"),
        contains_train=_IN_PART, contains_query=_IN_PART, seen_classes=seen,
    )  # fmt: skip
    return (
        drawn,
        Protocol(
            "proposed", "split by Xian et al., TPAMI 2019; queries drawn as in PIXEL", by_marks, 0,
            query, train_in_database=False, seen=xlsa17.CLASS_SET, published=proposed,
            per_class={"query": query},
        ),
        dataclasses.replace(
            drawn, name="pixel_released", papers="PIXEL (released code)", draw=as_released,
            note=_LEAK, overlap=True, stated=released,
        ),
        Protocol(
            "lists", "PZSH, by list files of path, labels and features", rules.by_lists,
            seen=STANDARD, lists=dataclasses.replace(list_protocols.FILES, fields=FIELDS),
            published=published,
            stated=dataclasses.replace(PZSH, painted=(classes - seen) * train),
        ),
    )  # fmt: skip


def by_marks(selection: Selection, protocol: Protocol) -> SplitManifest:
    """Rows that xlsa17 marks; of each unseen class ``query`` random rows are queries."""
    rows = np.flatnonzero(selection.subset("trainval") | selection.subset("test_unseen"))
    numbers = SplitConfig("seen_unseen", protocol.seed, protocol.query, protocol.train, False)
    drawn = make_split(numbers, selection.labels[rows], selection.seen_classes)
    return SplitManifest(
        train=rows[drawn.train],
        query=rows[drawn.query],
        database=np.union1d(rows[drawn.database], np.flatnonzero(selection.subset("test_seen"))),
        rule=f"xlsa17's proposed split, queries per unseen class, seed {protocol.seed}",
    )


def as_released(selection: Selection, protocol: Protocol) -> SplitManifest:
    """The draw of PIXEL's release: each part shuffles the rows of every class again.

    The database is the remainder of another shuffle of each class, so that it contains queries and
    training rows by chance.
    """
    random = np.random.RandomState(protocol.seed)
    parts: dict[str, list[np.ndarray]] = {"train": [], "query": [], "database": []}
    seen = set(selection.seen_classes)
    for c, name in enumerate(selection.class_names):
        part, count = ("train", protocol.train) if c in seen else ("query", protocol.query)
        rows = np.flatnonzero(selection.labels[:, c])
        if count is None or not 0 < count < len(rows):
            raise UserError(
                f"dataset.split.{part}={count}: 1 to {len(rows) - 1} rows are needed of class "
                f"'{name}', which has {len(rows)}."
            )
        parts[part].append(random.permutation(rows)[:count])
        parts["database"].append(random.permutation(rows)[count:])
    if not parts["train"] or not parts["query"]:
        raise UserError("The split pixel_released needs seen and unseen classes.")
    joined = {part: np.sort(np.concatenate(rows)) for part, rows in parts.items()}
    return SplitManifest(**joined, rule=f"parts shuffled independently, seed {protocol.seed}")
