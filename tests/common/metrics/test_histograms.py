import numpy as np
import pytest
import torch

from common.metrics import count_histograms
from common.metrics import histograms as module


def random_side(generator, rows, bits, classes, multi_hot):
    codes = torch.randint(0, 2, (rows, bits), generator=generator) * 2 - 1
    if multi_hot:
        return codes, torch.rand(rows, classes, generator=generator) < 0.3
    return codes, torch.randint(0, classes, (rows,), generator=generator)


def by_loops(queries, query_labels, rows, row_labels):
    n = np.zeros((len(queries), queries.shape[1] + 1), int)
    r = np.zeros_like(n)
    for i, (code, label) in enumerate(zip(queries, query_labels, strict=True)):
        for other, other_label in zip(rows, row_labels, strict=True):
            distance = int((code != other).sum())
            n[i, distance] += 1
            r[i, distance] += bool(
                (label & other_label).any() if label.ndim else label == other_label
            )
    return n, r


@pytest.mark.parametrize("multi_hot", [False, True])
@pytest.mark.parametrize(
    ("queries", "rows", "bits"), [(1, 1, 1), (1, 9, 1), (4, 23, 7), (3, 8, 1000)]
)
def test_counts_equal_loops(queries, rows, bits, multi_hot):
    generator = torch.Generator().manual_seed(queries + rows)
    query = random_side(generator, queries, bits, 4, multi_hot)
    database = random_side(generator, rows, bits, 4, multi_hot)
    histograms = count_histograms(*query, *database)
    n, r = by_loops(*query, *database)
    np.testing.assert_array_equal(histograms.rows, n)
    np.testing.assert_array_equal(histograms.relevant, r)
    assert histograms.rows.dtype == histograms.relevant.dtype == torch.int64
    assert (histograms.bits, histograms.queries, histograms.database) == (bits, queries, rows)


@pytest.mark.parametrize("multi_hot", [False, True])
@pytest.mark.parametrize("memory_mb", [1e-6, 0.01, 0.1, 1, 1e6])
def test_chunks_change_no_integer(memory_mb, multi_hot, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    query = random_side(generator, 13, 24, 5, multi_hot)
    database = random_side(generator, 101, 24, 5, multi_hot)
    whole = count_histograms(*query, *database)
    monkeypatch.setattr(module, "_TILE_CPU", (17, 60))
    parts = count_histograms(*query, *database, memory_mb=memory_mb)
    assert torch.equal(parts.rows, whole.rows)
    assert torch.equal(parts.relevant, whole.relevant)


@pytest.mark.parametrize("bits", [1, 64, 1000, 100_000])
@pytest.mark.parametrize("memory_mb", [1, 256])
def test_a_tile_keeps_within_memory_and_exact_integers(bits, memory_mb):
    for device in ("cpu", "cuda"):
        queries, rows = module._tile_shape(
            5000, 180_000, bits, bits + 80, torch.device(device), memory_mb * 2**20
        )
        assert queries * 2 * (bits + 1) <= 2**24 or queries == 1
        bytes_used = queries * rows * 16 + 4 * rows * (bits + 80) + queries * 4 * (bits + 80)
        assert bytes_used <= memory_mb * 2**20


def test_code_and_label_dtypes_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    query = random_side(generator, 3, 12, 4, True)
    database = random_side(generator, 30, 12, 4, True)
    whole = count_histograms(*query, *database)
    for dtype in (torch.int8, torch.float16, torch.float64):
        again = count_histograms(*(part.to(dtype) for part in (*query, *database)))
        assert torch.equal(again.relevant, whole.relevant)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = count_histograms(*(part.float() for part in (*query, *database)))
    assert torch.equal(again.rows, whole.rows)


def test_more_than_256_shared_labels_count_as_one():
    codes = torch.ones(1, 3)
    labels = torch.ones(1, 300, dtype=torch.int8)
    histograms = count_histograms(codes, labels, codes, labels)
    assert histograms.relevant.tolist() == [[1, 0, 0, 0]]
