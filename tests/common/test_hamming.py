import pytest
import torch

from common.hamming import hamming_distance


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
