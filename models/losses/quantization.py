"""The quantization term of several losses: outputs are drawn to ±1."""

from __future__ import annotations

from torch import Tensor


def quantization_loss(output: Tensor) -> Tensor:
    """Return the mean of (|u| - 1)² over the entries u of real-valued codes [B,K], a scalar.

    It is the squared distance of a code to its sign.
    """
    return (output.abs() - 1).pow(2).mean()
