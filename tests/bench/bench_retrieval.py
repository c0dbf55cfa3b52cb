"""The evaluation engine beside other ways to compute mAP, on the sizes of the field's protocols.

python tests/bench/bench_retrieval.py                        # all sizes at 64 bits
python tests/bench/bench_retrieval.py --bits 16 64 128 --markdown docs/evaluation_speed.md
python tests/bench/bench_retrieval.py --sizes coco --whole   # nobody's queries are cut

Every contender runs in a process of its own, with its time after one warm-up on a few queries, and
the peak memory of that process above what it held once the codes were there. Slow contenders are
timed on the first queries only and scaled by their number (marked *), which flatters the one that
holds matrices of all queries. Ours give mAP over tie orders, precision and recall @N, both PR
curves, NDCG and R-precision; the others give one mAP, or the nearest rows (FAISS).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))


class Size(NamedTuple):
    """A protocol's size: queries, database rows, labels, whether a row has exactly one of them.

    ``stored`` is the type in which the field's label files hold multi-hot labels.
    """

    title: str
    queries: int
    rows: int
    classes: int
    single: bool = False
    stored: torch.dtype = torch.int64


SIZES = {
    "flickr25k": Size("Flickr25K", 2_000, 18_015, 24, stored=torch.float64),
    "coco": Size("MS COCO", 5_000, 117_218, 80),
    "nuswide": Size("NUS-WIDE", 2_100, 188_321, 21, stored=torch.int8),
    "cifar100": Size("CIFAR-100", 5_000, 45_000, 100, single=True),
    "million": Size("1,000,000 rows", 1_000, 1_000_000, 10, single=True),
}


class Case(NamedTuple):
    """Codes int8 of ±1 and labels (multi-hot int8, or class numbers) of both sides."""

    query: np.ndarray
    query_labels: np.ndarray
    rows: np.ndarray
    row_labels: np.ndarray


def make_case(size: Size, bits: int) -> Case:
    """Return noisy codes of label centres: labels skewed as in photos, 2 to 3 for a row."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((size.classes, bits)).astype(np.float32)
    sides: list[np.ndarray] = []
    for n in (size.queries, size.rows):
        if size.single:
            labels = rng.integers(0, size.classes, n)
            mean = centers[labels]
        else:
            share = np.minimum(0.45 / np.arange(1, size.classes + 1) ** 0.85, 1)
            labels = (rng.random((n, size.classes)) < share).astype(np.int8)
            mean = labels.astype(np.float32) @ centers
        noisy = mean + 1.5 * rng.standard_normal((n, bits), dtype=np.float32)
        sides += [np.where(noisy < 0, -1, 1).astype(np.int8), labels]
    return Case(*sides)


STORED = {(size.classes, size.single): size.stored for size in SIZES.values()}


def share_label(query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return relevance [q,N] of some queries."""
    if query.ndim == 1:
        return query[:, None] == rows[None, :]
    return (query.astype(np.float32) @ rows.T.astype(np.float32)) > 0


def ours(backend: str) -> Callable[[Case], float]:
    """Return our whole report by one back end."""

    def run(case: Case) -> float:
        from common.metrics import retrieval_report

        return float(retrieval_report(*case, backend=backend)["map"]["all"]["expected"])

    return run


def stored_relevance(case: Case) -> torch.Tensor:
    """Relevance by a product of labels in the type of their files, as released code has it."""
    query, rows = case.query_labels, case.row_labels
    if query.ndim == 1:
        classes = int(rows.max()) + 1
        query, rows = (np.eye(classes, dtype=np.int64)[labels] for labels in (query, rows))
        stored = torch.int64
    else:
        stored = STORED[query.shape[1], False]
    sides = [torch.from_numpy(labels).to(stored) for labels in (query, rows)]
    return (sides[0] @ sides[1].T > 0).float()


def matrix_as_released(case: Case) -> float:
    """MAP from whole matrices, with labels multiplied in the type of their files."""
    return matrix_and_sort(case, stored_relevance(case))


def matrix_report(case: Case) -> float:
    """MAP, precision@N and both PR curves from the same matrices and one sort.

    Curves by rank come from running counts of a query's sorted hits, curves by radius from one
    pass over the matrices for each radius; NDCG and R-precision, which ours has too, are left out.
    """
    relevant = stored_relevance(case)
    query, rows = torch.from_numpy(case.query).float(), torch.from_numpy(case.rows).float()
    bits = query.shape[1]
    distance = 0.5 * (bits - query @ rows.T)
    _, order = torch.sort(distance)
    totals = relevant.sum(1)
    ranks = torch.arange(1, len(rows) + 1).float()
    precision, recall = torch.zeros(len(rows)), torch.zeros(len(rows))
    average = 0.0
    for hits, ranking, total in zip(relevant, order, totals.clamp_min(1), strict=True):
        sorted_hits = hits[ranking]
        found = sorted_hits.cumsum(0)
        at_rank = found / ranks
        average += float(sorted_hits @ at_rank / total)
        precision += at_rank
        recall += found / total
    for radius in range(bits + 1):
        within = (distance <= radius).float()
        found, retrieved = (within * relevant).sum(1), within.sum(1)
        _ = (found / retrieved.clamp_min(1)).mean(), (found / totals.clamp_min(1)).mean()
        _ = found.sum() / retrieved.sum().clamp_min(1), found.sum() / totals.sum()
    return average / len(query)


def matrix_and_sort(case: Case, relevant: torch.Tensor | None = None) -> float:
    """MAP from whole matrices: labels, distances, their sort; then a loop over queries."""
    query, rows = torch.from_numpy(case.query).float(), torch.from_numpy(case.rows).float()
    if relevant is None:
        relevant = torch.from_numpy(share_label(case.query_labels, case.row_labels)).float()
    distance = 0.5 * (query.shape[1] - query @ rows.T)
    _, order = torch.sort(distance)
    total = 0.0
    for hits, ranking in zip(relevant, order, strict=True):
        ranks = torch.nonzero(hits[ranking]).flatten().float() + 1
        if len(ranks):
            total += float((torch.arange(1, len(ranks) + 1) / ranks).mean())
    return total / len(query)


def loop_over_queries(case: Case) -> float:
    """MAP by one float64 product and one argsort for each query, in numpy."""
    stored = case.rows.astype(np.float64)
    total = 0.0
    for q, code in enumerate(case.query):
        distance = 0.5 * (len(code) - stored @ code)
        hits = share_label(case.query_labels[q : q + 1], case.row_labels)[0]
        ranks = np.flatnonzero(hits[np.argsort(distance)]) + 1
        if len(ranks):
            total += float(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return total / len(case.query)


def torchmetrics_map(case: Case) -> float:
    """MAP by torchmetrics' RetrievalMAP; scores shifted above 0, else it drops the pairs."""
    from torchmetrics.retrieval import RetrievalMAP

    query, rows = torch.from_numpy(case.query).float(), torch.from_numpy(case.rows).float()
    relevant = torch.from_numpy(share_label(case.query_labels, case.row_labels))
    scores = query @ rows.T + query.shape[1] + 1
    indexes = torch.arange(len(query))[:, None].expand_as(scores)
    metric = RetrievalMAP()
    metric.update(scores.flatten(), relevant.flatten(), indexes=indexes.flatten())
    return float(metric.compute())


def faiss_search(case: Case) -> float:
    """Search alone: the 100 nearest rows by FAISS, no labels, no metric."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    packed = [np.packbits(side > 0, axis=1) for side in (case.rows, case.query)]
    index = faiss.IndexBinaryFlat(packed[0].shape[1] * 8)
    index.add(packed[0])
    index.search(packed[1], 100)
    return float("nan")


def bare_count(case: Case) -> float:
    """The limit: exclusive-or, population count and one addition a pair; no labels, one core."""
    import numba

    from common.metrics import pack_rows
    from common.metrics.counting.numba_backend import _popcount
    from common.metrics.packed import planes

    @numba.njit(nogil=True)
    def count(query: np.ndarray, rows: np.ndarray, counts: np.ndarray) -> None:
        for q in range(query.shape[1]):
            for n in range(rows.shape[1]):
                distance = _popcount(query[0, q] ^ rows[0, n])
                for w in range(1, len(query)):
                    distance += _popcount(query[w, q] ^ rows[w, n])
                counts[q, distance] += 1

    sides = [planes(pack_rows(*side).codes, np.uint64) for side in (case[:2], case[2:])]
    count(*sides, np.zeros((len(case.query), case.query.shape[1] + 1), np.int64))
    return float("nan")


class Contender(NamedTuple):
    """How it is called, and the pairs of query and row that it may treat in a quick run."""

    title: str
    run: Callable[[Case], float]
    pairs: float


CONTENDERS = {
    "numba": Contender("ours, numba", ours("numba"), np.inf),
    "torch": Contender("ours, torch", ours("torch"), np.inf),
    "released": Contender("matrix and sort, labels as stored", matrix_as_released, 3e7),
    "report": Contender("matrix and sort, mAP, precision@N, PR curves", matrix_report, 3e7),
    "matrix": Contender("matrix and sort, labels in float32", matrix_and_sort, 3e7),
    "loop": Contender("loop over queries", loop_over_queries, 1e7),
    "torchmetrics": Contender("torchmetrics RetrievalMAP", torchmetrics_map, 3e6),
    "faiss": Contender("FAISS, top 100 only", faiss_search, 1e8),
    "bare": Contender("bare count, 1 core", bare_count, 1e8),
}


class Memory(threading.Thread):
    """Watches the resident memory of this process; ``ru_maxrss`` would count what came before."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.before = self.peak = self.now()

    @staticmethod
    def now() -> int:
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
        except OSError:  # not Linux
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return pages * resource.getpagesize()

    def run(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, self.now())


def measure(name: str, size: Size, bits: int, whole: bool) -> dict[str, float]:
    """Run one contender here; return seconds for all queries, MiB, and the mAP that it found."""
    case = make_case(size, bits)
    contender = CONTENDERS[name]
    limit = np.inf if whole else contender.pairs
    queries = int(max(4, min(size.queries, limit // size.rows)))
    warm = Case(*(side[:300] for side in case[:2]), *(side[:20_000] for side in case[2:]))
    contender.run(warm if limit == np.inf else Case(*(side[:300] for side in case)))
    part = Case(case.query[:queries], case.query_labels[:queries], *case[2:])
    memory = Memory()
    memory.start()
    times: list[float] = []
    while sum(times) < 2 and len(times) < 5:  # the quick ones several times, the best counts
        start = time.perf_counter()
        found = contender.run(part)
        times.append(time.perf_counter() - start)
    seconds = min(times)
    memory.done.set()
    memory.join()
    return {
        "seconds": seconds * size.queries / queries,
        "mib": (memory.peak - memory.before) / 2**20,
        "queries": queries,
        "map": found,
    }


def in_its_own_process(name: str, key: str, bits: int, whole: bool) -> dict[str, float] | None:
    """Measure one contender in a new process; None where it cannot run."""
    command = [sys.executable, __file__, "--one", name, "--sizes", key, "--bits", str(bits)]
    done = subprocess.run(
        command + ["--whole"] * whole, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"  {name}: cannot run ({done.stderr.strip().splitlines()[-1]})", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def table(key: str, bits: int, whole: bool, names: list[str]) -> list[str]:
    """Return the lines of one size's table in Markdown."""
    size = SIZES[key]
    pairs = size.queries * size.rows
    lines = [
        f"### {size.title}, {bits} bits: {size.queries:,} × {size.rows:,}, {size.classes} labels",
        "",
        "| | seconds | ours is faster | peak MiB | Gpairs/s | mAP |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    fastest = None
    for name in names:
        row = in_its_own_process(name, key, bits, whole)
        if row is None:
            continue
        fastest = fastest or row["seconds"]
        scaled = "*" if row["queries"] < size.queries else ""
        ratio = row["seconds"] / fastest
        shown = "" if row["map"] != row["map"] else f"{row['map']:.4f}{scaled}"
        lines.append(
            f"| {CONTENDERS[name].title} | {row['seconds']:.2f}{scaled} | {ratio:.1f}× | "
            f"{row['mib']:,.0f} | {pairs / row['seconds'] / 1e9:.3f} | {shown} |"
        )
        print(lines[-1], file=sys.stderr)
    return [*lines, ""]


def scaling(bits: int, file: Path) -> None:
    """Draw our time over the number of pairs, with growing database and with growing query."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from common.metrics import retrieval_report

    sizes = {
        "1,000 queries × 10⁴ to 10⁶ rows": [
            (1_000, n) for n in np.geomspace(1e4, 1e6, 9).astype(int)
        ],
        "10² to 10⁴ queries × 100,000 rows": [
            (q, 100_000) for q in np.geomspace(1e2, 1e4, 9).astype(int)
        ],
    }
    figure, axes = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    for name, cases in sizes.items():
        times = []
        for queries, rows in cases:
            case = make_case(Size("", int(queries), int(rows), 80), bits)
            seconds = []
            for _ in range(3):
                start = time.perf_counter()
                retrieval_report(*case, backend="numba")
                seconds.append(time.perf_counter() - start)
            times.append(min(seconds))
        pairs = [queries * rows for queries, rows in cases]
        print(name, dict(zip(pairs, times, strict=True)), file=sys.stderr)
        axes.loglog(pairs, times, marker="o", label=name)
    low, high = axes.get_xlim()
    axes.loglog(
        [low, high],
        [times[-1] * low / pairs[-1], times[-1] * high / pairs[-1]],
        "k:",
        label="linear",
    )
    axes.set(
        xlabel="pairs of query and row",
        ylabel="seconds",
        title=f"whole report, {bits} bits, 80 labels",
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def machine() -> str:
    """Return what it ran on, in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    return (
        f"{name}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {np.__version__}"
    )


def main() -> None:
    """Run the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--bits", nargs="+", type=int, default=[64])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--whole", action="store_true", help="all queries for every contender")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there as well")
    parser.add_argument("--scaling", metavar="FILE.png", help="only draw our time over the pairs")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        size = SIZES[options.sizes[0]]
        print(json.dumps(measure(options.one, size, options.bits[0], options.whole)))
        return
    if options.scaling:
        scaling(options.bits[0], Path(options.scaling))
        return
    lines = [f"Measured on {machine()}.", ""]
    for key in options.sizes:
        for bits in options.bits:
            lines += table(key, bits, options.whole, options.contenders)
    print("\n".join(lines))
    if options.markdown:
        Path(options.markdown).write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
