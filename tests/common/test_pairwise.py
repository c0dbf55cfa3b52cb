import pytest
import torch

from common.pairwise import (
    hamming_distance,
    label_overlap,
    pairwise_cosine,
    pairwise_euclidean,
    share_label,
)


@pytest.mark.parametrize("bits", [1, 16, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int8, torch.int64])
def test_hamming_counts_differing_bits(bits, dtype):
    generator = torch.Generator().manual_seed(bits)
    a = (torch.randint(0, 2, (3, bits), generator=generator) * 2 - 1).to(dtype)
    b = (torch.randint(0, 2, (5, bits), generator=generator) * 2 - 1).to(dtype)
    expected = (a[:, None] != b[None]).sum(-1)
    assert torch.equal(hamming_distance(a, b).long(), expected)
    assert hamming_distance(a[:1], b[:1]).shape == (1, 1)


def test_a_zero_counts_half_a_bit():
    assert hamming_distance(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]])).item() == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_euclidean_value_and_gradient(dtype):
    a = torch.randn(4, 6, dtype=dtype, requires_grad=True)
    b = torch.randn(5, 6, dtype=dtype, requires_grad=True)
    distance = pairwise_euclidean(a, b)
    expected = ((a[:, None] - b[None]) ** 2).sum(-1).sqrt()
    torch.testing.assert_close(distance, expected)
    ours = torch.autograd.grad(distance.square().sum() + distance.sum(), (a, b))
    theirs = torch.autograd.grad(expected.square().sum() + expected.sum(), (a, b))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_euclidean_gradient_at_coincident_rows_is_zero(dtype):
    a = torch.randn(1, 6, dtype=dtype).repeat(3, 1).requires_grad_()
    distance = pairwise_euclidean(a, a)
    assert distance.abs().max() == 0
    (gradient,) = torch.autograd.grad(distance.sum(), a)
    assert gradient.abs().max() == 0
    b = torch.randn(2, 6, dtype=dtype)
    mixed = torch.cat([a.detach()[:1], b]).requires_grad_()
    (gradient,) = torch.autograd.grad(pairwise_euclidean(mixed, mixed).sum(), mixed)
    assert gradient.isfinite().all()


def test_euclidean_is_exact_for_nearly_equal_rows():
    a = torch.full((1, 64), 100.0, dtype=torch.float64)
    assert pairwise_euclidean(a, a + 1e-9).item() == pytest.approx(8e-9, rel=1e-4)


def test_cosine():
    a, b = torch.randn(4, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    expected = torch.cosine_similarity(a[:, None], b[None], dim=-1)
    torch.testing.assert_close(pairwise_cosine(a, b), expected)
    zero = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    similarity = pairwise_cosine(zero, b)
    assert similarity.abs().max() == 0
    assert torch.autograd.grad(similarity.sum(), zero)[0].isfinite().all()


every_label_dtype = pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.float32, torch.float64]
)


def drawn_labels():
    """Return labels [6,4] and [3,4]; row 2 of the first has none."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 2, (6, 4), generator=generator)
    b = torch.randint(0, 2, (3, 4), generator=generator)
    a[2] = 0
    return a, b


def result_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


@every_label_dtype
def test_share_label(dtype):
    a, b = drawn_labels()
    shared = share_label(a.to(dtype), b.to(dtype))
    assert shared.dtype == result_dtype(dtype)
    for i in range(6):
        for j in range(3):
            assert bool(shared[i, j]) == any(x and y for x, y in zip(a[i], b[j], strict=True))
    assert shared[2].sum() == 0


def test_share_label_of_many_int8_labels_does_not_overflow():
    ones = torch.ones(1, 256, dtype=torch.int8)
    assert share_label(ones, ones).item() == 1


@every_label_dtype
def test_label_overlap(dtype):
    a, b = drawn_labels()
    overlap = label_overlap(a.to(dtype), b.to(dtype))
    assert overlap.dtype == result_dtype(dtype)
    for i in range(6):
        for j in range(3):
            first, second = set(a[i].nonzero()[:, 0].tolist()), set(b[j].nonzero()[:, 0].tolist())
            expected = len(first & second) / max(len(first | second), 1)
            assert overlap[i, j].item() == pytest.approx(expected)
    assert label_overlap(a.to(dtype), a.to(dtype)).diagonal().tolist() == [1, 1, 0, 1, 1, 1]
