r"""ITQ: Iterative Quantization. Y. Gong, S. Lazebnik. CVPR 2011; PAMI 35(12), 2013.

Project to K dimensions, then rotate so that signs lose least: from a random orthogonal R, repeat
B = sign(V R), R = U Wᵀ from the singular value decomposition Vᵀ B = U Σ Wᵀ (minimising ‖B - V R‖²).

Images alone: V are the first K principal components of the training features. Images and texts:
both are whitened with (C + λ tr(C)/D I)^{-1/2}, λ = 0.1, and projected on the K leading canonical
directions (CCA, from the singular value decomposition of the whitened cross-covariance), each
scaled by its canonical correlation; R is fitted on the rows of both modalities together. Without
the scaling more bits are worse, since noise directions weigh as much as correlated ones.

Deviation: where K exceeds the number of directions, the remaining columns are random directions;
the paper has no such case.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Generator, Tensor

from common.registry import MODELS
from models.base import TrainFeatures
from models.shallow.lsh import FittedProjection


@dataclasses.dataclass(frozen=True)
class ITQConfig:
    """Keys of ``model`` with ``name: itq``."""

    iterations: int = 50  # of the rotation
    ridge: float = 0.1  # λ of the whitening; cross-modal only


@MODELS.register("itq", config=ITQConfig, provides=("image_code", "text_code"))
class ITQ(FittedProjection):
    """ITQ (CVPR 2011): PCA (or CCA for two modalities) and the rotation that signs harm least."""

    config: ITQConfig

    def fit(self, features: TrainFeatures) -> None:
        """Compute means, projections and rotation from the training features, in float64."""
        values = {m: features.of(m).double() for m in self.modalities}
        means = {m: value.mean(0) for m, value in values.items()}
        centred = {m: value - means[m] for m, value in values.items()}
        generator, bits = self.problem.generator, self.problem.bits
        if len(centred) == 1:
            bases = {m: principal_directions(value, bits) for m, value in centred.items()}
        else:
            first, second = centred
            pair = canonical_directions(centred[first], centred[second], bits, self.config.ridge)
            bases = dict(zip(centred, pair, strict=True))
        bases = {m: _with_random_columns(basis, bits, generator) for m, basis in bases.items()}
        projected = torch.cat([centred[m] @ bases[m] for m in centred])
        rotation = itq_rotation(projected, self.config.iterations, generator)
        for m, basis in bases.items():
            self.set_projection(m, means[m], basis @ rotation)


def principal_directions(centred: Tensor, bits: int) -> Tensor:
    """Return the first ``bits`` principal directions [D,≤K] of centred rows [N,D]."""
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending
    return vectors.flip(1)[:, :bits]


def canonical_directions(
    first: Tensor, second: Tensor, bits: int, ridge: float
) -> tuple[Tensor, Tensor]:
    """Return canonical directions [D₁,≤K], [D₂,≤K] of centred pairs, scaled by correlation."""
    rows = len(first)
    whiten_first, whiten_second = _whitening(first, ridge), _whitening(second, ridge)
    cross = whiten_first @ (first.T @ second / rows) @ whiten_second
    left, correlations, right = torch.linalg.svd(cross, full_matrices=False)
    left, right, scale = left[:, :bits], right.T[:, :bits], correlations[:bits]
    return whiten_first @ left * scale, whiten_second @ right * scale


def itq_rotation(projected: Tensor, iterations: int, generator: Generator) -> Tensor:
    """Return the rotation [K,K] after ``iterations`` of ITQ on rows [N,K], from a random start."""
    bits = projected.shape[1]
    rotation, _ = torch.linalg.qr(torch.randn(bits, bits, generator=generator).to(projected.dtype))
    for _ in range(iterations):
        codes = torch.where(projected @ rotation >= 0, 1.0, -1.0).to(projected.dtype)
        left, _, right = torch.linalg.svd(projected.T @ codes)
        rotation = left @ right
    return rotation


def _whitening(centred: Tensor, ridge: float) -> Tensor:
    """Return (C + λ tr(C)/D I)^{-1/2} [D,D] of the covariance C."""
    covariance = centred.T @ centred / len(centred)
    width = len(covariance)
    eye = torch.eye(width, dtype=covariance.dtype)
    values, vectors = torch.linalg.eigh(covariance + ridge * covariance.trace() / width * eye)
    return vectors * values.clamp_min(1e-12).rsqrt() @ vectors.T


def _with_random_columns(basis: Tensor, bits: int, generator: Generator) -> Tensor:
    missing = bits - basis.shape[1]
    if missing <= 0:
        return basis
    scale = basis.norm(dim=0).min() if basis.numel() else torch.tensor(1.0)
    columns = torch.randn(len(basis), missing, generator=generator).to(basis.dtype)
    return torch.cat([basis, columns / columns.norm(dim=0) * scale], 1)
