"""The quantization term: the squared distance of codes to their signs."""

import torch

from models.losses.quantization import quantization_loss


def test_it_is_the_mean_squared_distance_to_the_signs():
    code = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = (code - code.sign()).square().mean()
    torch.testing.assert_close(quantization_loss(code), expected)
    assert quantization_loss(code.sign()) == 0
