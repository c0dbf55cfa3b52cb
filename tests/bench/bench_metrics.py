"""mAP by counting against mAP by sorting every query's distances, as the field's repositories do.

python tests/bench/bench_metrics.py     # 1,000 queries × 54,000 rows × 64 bits, 10 classes

Both run here, one after the other; the sorting loop is timed on some of the queries and scaled up.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from common.metrics import retrieval_report  # noqa: E402


def codes(labels: np.ndarray, bits: int, rng: np.random.Generator) -> np.ndarray:
    """Return noisy codes ±1 of class centres, int8 [N,K]."""
    centers = np.random.default_rng(0).choice([-1, 1], (labels.max() + 1, bits))
    noise = np.where(rng.random((len(labels), bits)) < 0.25, -1, 1)
    return (centers[labels] * noise).astype(np.int8)


def by_sorting(query: tuple, database: tuple, queries: int) -> float:
    """Return the mean AP of the first ``queries``, one argsort each."""
    values = []
    stored = database[0].astype(np.float64)
    for code, label in zip(query[0][:queries], query[1][:queries], strict=True):
        distance = (len(code) - stored @ code) / 2
        relevant = (database[1] == label)[np.argsort(distance)]
        ranks = np.flatnonzero(relevant) + 1
        values.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return float(np.mean(values))


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--database", type=int, default=54000)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--sorted-queries", type=int, default=50)
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    query_labels, labels = (rng.integers(0, 10, n) for n in (options.queries, options.database))
    query = codes(query_labels, options.bits, rng), query_labels
    database = codes(labels, options.bits, rng), labels
    retrieval_report(*query, *database)  # warm-up
    start = time.perf_counter()
    report = retrieval_report(*query, *database)
    counting = time.perf_counter() - start
    start = time.perf_counter()
    sorted_map = by_sorting(query, database, options.sorted_queries)
    sorting = (time.perf_counter() - start) * options.queries / options.sorted_queries
    print(
        f"mAP {report['map']['all']['expected']:.4f} by counting in {counting:.2f} s; by sorting "
        f"{sorted_map:.4f} (first {options.sorted_queries} queries), {sorting:.1f} s for all: "
        f"{sorting / counting:.0f}×"
    )


if __name__ == "__main__":
    main()
