"""Releases' measures of packed codes: the compiled walk and explicit rankings, by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.metrics import compat_map, pack_rows
from common.metrics.compat import measures
from common.metrics.compat.measures import as_json, parse_measure, policy_means
from utils.errors import UserError

NAMES = (
    "kalenforn@all", "dchmt@3", "mith@all", "mith@7", "deephash@-1", "deephash@1", "deephash@20",
    "fire@all", "fire@9", "fire@100000",
)  # fmt: skip


def sides(queries: int, rows: int, bits: int, kind: str, seed: int = 0):
    rng = np.random.default_rng(seed)
    codes = [rng.choice(np.array([-1, 1], np.int8), (n, bits)) for n in (queries, rows)]
    labels = [
        rng.integers(0, 5, n) if kind == "numbers" else (rng.random((n, 70)) < 0.03) * 1
        for n in (queries, rows)
    ]
    return codes[0], labels[0], codes[1], labels[1]


def brute(name: str, query, query_labels, database, database_labels) -> float:
    """Return the mAP of a policy by its definition, in a loop over queries and ranks."""
    policy, cut = name.split("@")
    values = []
    for code, label in zip(query, query_labels, strict=True):
        order = sorted(range(len(database)), key=lambda i: ((code != database[i]).sum(), i))
        shared = [np.any(label * database_labels[i]) for i in order]
        same = [np.all(label == database_labels[i]) for i in order]
        hits = shared if np.ndim(label) else same
        precisions, found = [], 0
        end = len(hits) - 1 if cut == "-1" else len(hits) if cut == "all" else int(cut)
        for rank, hit in enumerate(hits, 1):
            found += hit
            if hit and (rank if policy in ("deephash", "fire") else found) <= end:
                precisions.append(found / rank)
        nan = policy in ("kalenforn", "dchmt")
        values.append(np.mean(precisions) if precisions else math.nan if nan else 0.0)
    return float(np.mean(values))


@pytest.mark.parametrize("worth_compiled", [0, 10**9])
@pytest.mark.parametrize("kind", ["labels", "numbers"])
@pytest.mark.parametrize(("queries", "rows", "bits"), [(9, 60, 12), (3, 1, 1), (5, 40, 130)])
def test_by_brute_force(worth_compiled, kind, queries, rows, bits, monkeypatch):
    monkeypatch.setattr(measures, "WORTH_COMPILED", worth_compiled)
    inputs = sides(queries, rows, bits, kind)
    parsed = [parse_measure(name) for name in NAMES]
    means = policy_means(pack_rows(*inputs[:2]), pack_rows(*inputs[2:]), parsed)
    for measure, value in means.items():
        expected = brute(str(measure), *inputs)
        assert value == pytest.approx(expected, abs=1e-14, nan_ok=True), measure
        again = compat_map(measure.policy, *inputs, at=measure.at)
        assert value == pytest.approx(again, abs=1e-14, nan_ok=True)


def test_names():
    for name in NAMES:
        assert str(parse_measure(name)) == name
    for wrong in ("fire", "fire@", "@all", "fire@1.5", "fire@-1", "deephash@-2", "mith@0", 5, None):
        with pytest.raises(UserError):
            parse_measure(wrong)


def test_nan_is_null_in_json():
    codes, labels = np.array([[1, 1], [1, -1]]), np.array([[1, 0], [0, 1]])
    names = [parse_measure("kalenforn@all"), parse_measure("mith@all")]
    means = policy_means(pack_rows(codes, labels), pack_rows(codes[:1], labels[:1]), names)
    assert as_json(means) == {"kalenforn@all": None, "mith@all": 0.5}
    assert policy_means(pack_rows(codes, labels), pack_rows(codes, labels), []) == {}
