import numpy as np
import pytest
import torch

from common.metrics import count_grades, count_histograms, pack_rows
from common.metrics.counting import torch_backend as torch_module
from utils.errors import UserError

BACKENDS = ("torch", "numba")


def random_side(rng, rows, bits, classes, multi_hot):
    codes = rng.choice([-1, 1], (rows, bits))
    if multi_hot:
        return codes, rng.random((rows, classes)) < 0.3
    return codes, rng.integers(0, classes, rows)


def case(queries, rows, bits, classes=4, multi_hot=True, seed=0):
    rng = np.random.default_rng(seed)
    return (
        random_side(rng, queries, bits, classes, multi_hot),
        random_side(rng, rows, bits, classes, multi_hot),
    )


def by_loops(query, database, levels):
    counts = np.zeros((len(query[0]), query[0].shape[1] + 1, levels), int)
    for i, (code, label) in enumerate(zip(*query, strict=True)):
        for other, other_label in zip(*database, strict=True):
            grade = (label & other_label).sum() if label.ndim else label == other_label
            counts[i, (code != other).sum(), int(grade)] += 1
    return counts


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("multi_hot", [False, True])
@pytest.mark.parametrize(
    ("queries", "rows", "bits", "classes"),
    [(1, 1, 1, 1), (1, 9, 1, 4), (4, 23, 7, 33), (3, 8, 1000, 4), (5, 40, 48, 70), (2, 50, 100, 9)],
)
def test_counts_equal_loops(queries, rows, bits, classes, multi_hot, backend):
    query, database = case(queries, rows, bits, classes, multi_hot, seed=queries + rows)
    packed = pack_rows(*query), pack_rows(*database)
    graded = count_grades(*packed, backend=backend)
    expected = by_loops(query, database, graded.counts.shape[2])
    np.testing.assert_array_equal(graded.counts, expected)
    histograms = count_histograms(*packed, backend=backend)
    np.testing.assert_array_equal(histograms.rows, expected.sum(2))
    np.testing.assert_array_equal(histograms.relevant, expected[:, :, 1:].sum(2))
    assert histograms.rows.dtype == histograms.relevant.dtype == torch.int64
    assert (histograms.bits, histograms.queries, histograms.database) == (bits, queries, rows)


@pytest.mark.parametrize("bits", [8, 32, 64, 65, 128, 200])
@pytest.mark.parametrize("classes", [5, 80])
@pytest.mark.parametrize("multi_hot", [False, True])
@pytest.mark.parametrize("rows", [30_001, 70_000])  # counted in pairs of rows; odd and even
def test_back_ends_agree_to_the_last_integer(bits, classes, multi_hot, rows):
    packed = [pack_rows(*side) for side in case(7, rows, bits, classes, multi_hot)]
    graded = [count_grades(*packed, backend=backend).counts for backend in BACKENDS]
    assert torch.equal(*graded)
    relevant = [count_histograms(*packed, backend=backend).relevant for backend in BACKENDS]
    assert torch.equal(*relevant)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("multi_hot", [False, True])
@pytest.mark.parametrize("memory_mb", [1e-6, 0.01, 0.1, 1, 1e6])
def test_chunks_change_no_integer(memory_mb, multi_hot, backend, monkeypatch):
    query, database = (pack_rows(*side) for side in case(13, 10_101, 24, 5, multi_hot))
    whole = count_histograms(query, database)
    monkeypatch.setattr(torch_module, "_TILE_CPU", (170, 600))
    parts = count_histograms(query, database, backend=backend, memory_mb=memory_mb)
    assert torch.equal(parts.rows, whole.rows)
    assert torch.equal(parts.relevant, whole.relevant)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_a_database_may_come_in_blocks(backend):
    query, database = (pack_rows(*side) for side in case(6, 1_000, 24))
    blocks = (database.select(slice(top, top + 333)) for top in range(0, 1_000, 333))
    parts = count_histograms(query, blocks, backend=backend)
    whole = count_histograms(query, database)
    assert torch.equal(parts.rows, whole.rows)
    assert torch.equal(parts.relevant, whole.relevant)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_integer(threads):
    query, database = (pack_rows(*side) for side in case(40, 3_000, 16))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        counted = count_grades(query, database, backend="numba").counts
    finally:
        torch.set_num_threads(before)
    assert torch.equal(counted, count_grades(query, database, backend="torch").counts)


def test_large_class_numbers_are_told_apart():
    numbers = np.array([1, 1 + 2**32, 1 + 2**33])
    rows = pack_rows(np.ones((3, 4)), numbers)
    for backend in BACKENDS:
        assert count_histograms(rows, rows, backend=backend).total_relevant.tolist() == [1, 1, 1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_than_256_shared_labels(backend):
    rows = pack_rows(np.ones((1, 3)), np.ones((1, 300), dtype=np.int8))
    assert count_histograms(rows, rows, backend=backend).relevant.tolist() == [[1, 0, 0, 0]]
    assert count_grades(rows, rows, backend=backend).counts[0, 0].nonzero().tolist() == [[300]]


@pytest.mark.parametrize("bits", [1, 64, 1000, 100_000])
@pytest.mark.parametrize("memory_mb", [1, 256])
def test_a_tile_keeps_within_memory_and_exact_integers(bits, memory_mb):
    keys = 2 * (bits + 1)
    for device in ("cpu", "cuda"):
        queries, rows = torch_module._tile_shape(
            5000, 180_000, keys, bits + 80, torch.device(device), memory_mb * 2**20
        )
        assert queries * keys <= 2**24 or queries == 1
        bytes_used = queries * rows * 16 + 4 * rows * (bits + 80) + queries * 4 * (bits + 80)
        assert bytes_used <= memory_mb * 2**20


def test_autocast_rounds_nothing():
    query, database = (pack_rows(*side) for side in case(3, 300, 300, 80))
    whole = count_grades(query, database)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = count_grades(query, database)
    assert torch.equal(again.counts, whole.counts)


ONE = pack_rows([[1, -1]], [[1, 0]])


@pytest.mark.parametrize(
    ("database", "options", "word"),
    [
        (pack_rows([[1, -1, 1]], [[1, 0]]), {}, "2 bits and database codes 3"),
        (pack_rows([[1, -1]], [[1]]), {}, "2 classes and database labels 1"),
        (pack_rows([[1, -1]], [1]), {}, "same kind"),
        ([], {}, "no rows"),
        (ONE, {"backend": "cuda"}, "back end 'cuda'"),
        (ONE, {"device": "meta"}, "'meta' cannot be used"),
        (ONE, {"device": "abacus"}, "abacus"),
        (ONE, {"memory_mb": 0}, "memory_mb"),
        (ONE, {"memory_mb": float("inf")}, "memory_mb"),
    ],
)
def test_what_cannot_be_counted_is_refused(database, options, word):
    with pytest.raises(UserError, match=word):
        count_histograms(ONE, database, **options)
