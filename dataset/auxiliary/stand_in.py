"""What stands in for generated captions and pictures that are not there: drawn at random."""

from __future__ import annotations

import dataclasses

import numpy as np

from dataset.auxiliary.pseudo_images import PSEUDO, with_rows
from dataset.base import WITHOUT_QUERIES, AuxiliaryInputs, HashDataset
from dataset.drawn_images import DrawnImages
from dataset.splits import PARTS

SOURCE = "drawn at random in place of generated ones"
SEED, OF_UNSEEN = 0x5A1, 1


def with_stand_ins(dataset: HashDataset) -> HashDataset:
    """Return the dataset with all auxiliary inputs and rows that ``main.py generate`` may make."""
    split, names = dataset.split, dataset.class_names
    rows = np.unique(np.concatenate([getattr(split, part) for part in PARTS]))
    caption = [f"a picture of {names[int(c)]}" for c in dataset.labels.argmax(1)]
    query, train = np.unique(split.query), np.unique(np.concatenate([split.train, split.val]))
    auxiliary = {
        "second": AuxiliaryInputs(rows, SOURCE, [caption[r] for r in rows], parts=WITHOUT_QUERIES),
        "virtual": AuxiliaryInputs(
            query, SOURCE, [caption[r] for r in query], DrawnImages(len(query), SEED),
            parts=("query",),
        ),
        PSEUDO: AuxiliaryInputs(
            train, SOURCE, [caption[r] for r in train], DrawnImages(len(train), SEED + 1),
            parts=("train",), ahead=True,
        ),
    }  # fmt: skip
    unseen = np.setdiff1d(np.arange(len(names)), dataset.seen_classes or range(len(names)))
    if len(unseen):
        added = np.repeat(unseen, OF_UNSEEN)
        labels = np.eye(len(names), dtype=np.float32)[added]
        prompts = [f"a picture of {names[c]}" for c in added]
        first = len(dataset)
        dataset = with_rows(dataset, DrawnImages(len(added), SEED + 2), labels, prompts, SOURCE)
        pseudo, new = auxiliary[PSEUDO], np.arange(first, first + len(added))
        assert pseudo.texts is not None
        auxiliary[PSEUDO] = dataclasses.replace(
            pseudo,
            rows=np.concatenate([pseudo.rows, new]),
            texts=[*pseudo.texts, *prompts],
            images=DrawnImages(len(pseudo.rows) + len(new), SEED + 1),
        )
    return dataclasses.replace(dataset, auxiliary={**dataset.auxiliary, **auxiliary})
