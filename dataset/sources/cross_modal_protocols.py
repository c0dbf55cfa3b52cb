"""The protocols of cross-modal hashing: rows permuted, all that are no query are the database.

``dcmht``, ``dcmht_first`` and ``twdh`` read the files of DCMHT's scripts, which DSPH, DNPH and the
toolkit share; ``mith`` those of MITH's, which VTPH shares. The two differ in the rows, their order,
what a text is and the seed.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from dataset.preparation import rules
from dataset.preparation.protocol import Order, Protocol, Stated, Texts

MITH_TEXTS = "mith"
"""Name of the texts that MITH's scripts make, among ``Rows.variants``."""

RULE = (
    "one permutation: first the queries, next the training rows, all but the queries are the "
    "database"
)
GENERATOR = "numpy.random.RandomState"
_NOTE = "rows in {}: MITH's all_imgs.txt, which decides their order, is not released"
_UNCUT = "TwDH states mAP@5000 of an uncut ranking"


@dataclasses.dataclass(frozen=True)
class Kind:
    """What one family of scripts makes of a dataset.

    Attributes:
        rows: published number of rows.
        query: query rows.
        train: training rows.
        texts: what a text is.
        words: the order of the rows, in words.
        labels: how labels are used, in words.
        order: of the rows; None: that of the index.
        keep: the subset that rows belong to; None: all.
        unlabelled: what becomes of rows without a label, in words.
    """

    rows: int
    query: int
    train: int
    texts: Texts
    words: str
    labels: str
    order: Order | None = None
    keep: str | None = None
    unlabelled: str = "left out"


def mith(
    rows: int, query: int, train: int, texts: Texts, words: str, *, keep: str | None = None,
    unlabelled: str = "left out",
) -> Kind:  # fmt: skip
    """Return what MITH's scripts make of a dataset; ``words``: the order in which we take rows."""
    return Kind(
        rows, query, train, texts, words, "columns of all_labels.txt", keep=keep,
        unlabelled=unlabelled,
    )  # fmt: skip


def protocols(
    classes: int, dcmht: Kind, mith: Kind, columns: tuple[str, ...] | None = None
) -> tuple[Protocol, ...]:
    """Return the four protocols.

    Args:
        classes: published number of classes.
        dcmht: what DCMHT's scripts make of the dataset.
        mith: what MITH's scripts make of it.
        columns: see ``Protocol.classes``.
    """

    def permuted(name: str, papers: str, seed: int, kind: Kind, note: str = "") -> Protocol:
        stated = Stated(kind.words, RULE, GENERATOR, unlabelled=kind.unlabelled, labels=kind.labels)
        return Protocol(
            name, papers, rules.permutation, seed, kind.query, kind.train, classes=columns,
            keep=kind.keep, note=note, order=kind.order, texts=kind.texts, stated=stated,
            published={
                "rows": kind.rows, "classes": classes, "train": kind.train, "query": kind.query,
                "database": kind.rows - kind.query,
            },
        )  # fmt: skip

    first = dataclasses.replace(dcmht, query=5120, train=10240)
    return (
        permuted("dcmht", "DCMHT (later code), DSPH, DNPH, DIMCH, UMoED", 1814, dcmht),
        permuted("dcmht_first", "DCMHT (first code, defaults)", 1814, first),
        permuted("mith", "MITH, VTPH", 1, mith, _NOTE.format(mith.words)),
        permuted("twdh", "TwDH", 1814, dcmht, _UNCUT),
    )


def listed_tags(tags: Sequence[str], listed: set[str]) -> tuple[str, ...]:
    """Return the text that MITH's scripts make of a photo's tags: those listed, joined by blanks.

    Their program stops at a tag that is not listed; here it is left out.

    >>> listed_tags(["sky", "im-1234", "new york"], {"new york", "sky"})
    ('sky new york',)
    """
    kept = [tag for tag in tags if tag in listed]
    return (" ".join(kept),) if kept else ()


def choices(counts: Sequence[int], generator: random.Random) -> list[int]:
    """Return one of ``count`` captions for every access, as the releases draw them.

    >>> choices([5, 1, 7], random.Random(1))
    [1, 0, 2]
    """
    return [generator.randint(0, count - 1) for count in counts]


def one_sentence(texts: Sequence[Sequence[str]], seed: int = 1) -> tuple[tuple[str, ...], ...]:
    """Return the one text of every row that MITH's script makes of COCO's captions.

    One caption of every row is drawn, rows without a label included, and cut at its first full
    stop. Blanks at its ends go.
    """
    drawn = iter(choices([len(row) for row in texts if row], random.Random(seed)))
    cut = (row[next(drawn)].partition(".")[0].strip() if row else "" for row in texts)
    return tuple((text,) if text else () for text in cut)
