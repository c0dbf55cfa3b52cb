r"""TwDH: Two-Step Discrete Hashing for Cross-Modal Retrieval.

J. Tu, X. Liu, Y. Hao, R. Hong, M. Wang. IEEE TMM 2024, doi:10.1109/TMM.2024.3381828.

One long code of L bits is trained towards hash centres; every short code follows from it by a fixed
transform, so that one training serves every length. The head is DCMHT's ``attention`` head: pairs
P ∈ [0,1]^{2L}, (p₀, p₁) of each bit sum to 1. For every short length s, Q_s = softmax over pairs of
P M_s, with centres A_s and transforms M_s of :mod:`models.centers.twdh_transforms`. The target of a
row is t = sign(Σ A_c) over its labels, where that is 0 a random vector, drawn once per call and
length for all rows and both modalities. With bce the mean binary cross-entropy to the two-way
target, q(P) = 1 - mean((2P-1)²), and means over both modalities::

    L = bce(P,t) + quan_alpha · q(P) + low_rate · Σ_s [ bce(Q_s,t_s) + q(Q_s) ]

low_rate is 0 as released: short codes are never trained for. Then the long network depends on no
short length, and the runner ``twdh`` trains it once for all of them. ``encode`` gives p₁ - p₀ of
the run's length; ``bits`` equal to ``model.long_bits`` gives the long code.

Deviations from the released code
    * Transforms are fitted by ridge regression, not by the released recipe, which fails at 64 bits.
      Flickr8k, L = 512, mAP on held-out training rows (i2t/t2i, long code .665/.691), means of five
      sets of short centres: 16 bits .574/.584 against .565/.572, 32 bits .628/.647 against
      .619/.638, 64 bits .645/.668 against .610/.626. ``runner.transform=released`` is the authors'
      recipe; :mod:`models.centers.twdh_transforms` has all of them, and why it fails.
    * Centres and transforms are made from the run's seed and training labels; theirs are files for
      three datasets, which ``model.files=DIR runner.transform=files`` reads.
    * Short centres are random rows of the Hadamard matrix. Of their files some have that, one the
      first rows in order (half of whose 64 bits repeat the other half), some random codes.
    * Rows without label have no target: they are left out of bce (a NaN target there).
    * The tie vector follows from the seed and the step, so a resumed run draws the same ones.
    * The epoch is selected by the long code: what is trained, and shared by every length.
    * The softmax over two is computed as a sigmoid, whose gradient stays exact in float32 where a
      pair saturates. ``runner.transform=released`` keeps the softmax, which the rounding of that
      recipe hangs on (:func:`~models.centers.twdh_transforms.plain_pair_softmax`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.registry import LOSSES, MODELS
from models.base import (
    MODALITIES,
    Backbone,
    Batch,
    HashLoss,
    HashModel,
    Outputs,
    Problem,
    Progress,
    Terms,
)
from models.centers.twdh_files import TwDHFiles
from models.centers.twdh_transforms import long_centers, projection, short_centers, two_way
from models.cross_modal.dcmht import AttentionHead
from models.layers.pair_softmax import pair_softmax, pairs_to_code
from models.losses.pair_terms import masked_mean
from utils.errors import UserError

SHORT_BITS = (16, 32, 64)


@dataclasses.dataclass(frozen=True)
class TwDHModelConfig:
    """Keys of ``model`` with ``name: twdh``."""

    long_bits: int = 512  # L, a power of two
    short_bits: tuple[int, ...] = SHORT_BITS  # lengths with a transform; the run's own is added
    attention_heads: int = 8  # no effect on what is computed
    files: str | None = None  # folder of the authors' centres and transforms of one dataset


def short_lengths(listed: Sequence[int], bits: int, long_bits: int) -> list[int]:
    """Return the short lengths of a run in order: those listed, and its own unless it is L."""
    return sorted({*listed, bits} - {long_bits})


@MODELS.register(
    "twdh",
    config=TwDHModelConfig,
    provides=(
        *(f"{m}_{output}" for m in MODALITIES for output in ("code", "long_pairs", "short_pairs")),
        "long_vote",
        "short_vote",
    ),
)
class TwDH(HashModel):
    """TwDH (TMM 2024): a long code, and short ones of any length by fixed transforms.

    Under several processes the batch statistics are of each process's own rows, and the running
    ones of the first process's, so training ends a little elsewhere than in one.

    Attributes:
        lengths: the short lengths, ascending.
    """

    config: TwDHModelConfig
    long_centers: Tensor

    def __init__(self, config: TwDHModelConfig, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        bits = config.long_bits
        self.lengths = short_lengths(config.short_bits, problem.bits, bits)
        for length in self.lengths:
            if not 1 <= length < bits:
                raise UserError(
                    f"Short codes of {length} bits are not accepted; bits and model.short_bits "
                    f"must lie between 1 and model.long_bits={bits}."
                )
        self.heads = nn.ModuleDict({m: self._head(m) for m in self.modalities})
        # a generator for each length, so that no length depends on the other lengths
        seed = int(torch.randint(2**31, (1,), generator=problem.generator))
        classes, generator = problem.n_classes, torch.Generator()
        self.files = None if config.files is None else TwDHFiles(config.files)
        if self.files is None:
            centers = long_centers(classes, bits, generator.manual_seed(seed))
        else:
            centers = self.files.long_centers(classes, bits)
        self.register_buffer("long_centers", centers)
        for length in self.lengths:
            if self.files is None:
                centers = short_centers(classes, length, generator.manual_seed(seed + length))
            else:
                centers = self.files.short_centers(classes, length)
            self.register_buffer(f"short_centers_{length}", centers)
            self.register_buffer(f"transform_{length}", projection(self.long_centers, centers))

    def _head(self, modality: str) -> nn.Module:
        width, config = self.backbone.widths[modality], self.config
        return AttentionHead(width, config.long_bits, config.attention_heads, modality)

    def short_centers(self, length: int) -> Tensor:
        """Return the centres [C,s] of a short length."""
        return self.get_buffer(f"short_centers_{length}")

    def transform(self, length: int) -> Tensor:
        """Return the transform [2L,2s] of a short length; the closed ``projection`` at first."""
        return self.get_buffer(f"transform_{length}")

    def set_transform(self, length: int, matrix: Tensor) -> None:
        """Use ``matrix`` [2L,2s] for a short length."""
        self.transform(length).copy_(matrix)

    def set_bits(self, bits: int) -> None:
        """Let codes be ``bits`` long: one of :attr:`lengths`, or L for the long code."""
        self.problem = dataclasses.replace(self.problem, bits=bits)

    def long_pairs(self, batch: Batch, modality: str) -> Tensor:
        """Return P [B,2L]."""
        return self.heads[modality](self.backbone(batch, modality).pooled)

    def short_pairs(self, long_pairs: Tensor, length: int) -> Tensor:
        """Return Q_s [B,2s]; P itself where ``length`` is L."""
        if length == self.config.long_bits:
            return long_pairs
        return pair_softmax(long_pairs @ self.transform(length))

    def forward(self, batch: Batch) -> Outputs:
        """Return pairs, codes and the votes of the labels.

        ``<modality>_long_pairs`` [B,2L], ``<modality>_short_pairs`` [B,2Σs] for all short lengths
        in ascending order, ``<modality>_code`` = p₁ - p₀ [B,K] of the run's length, ``long_vote``
        [B,L] and ``short_vote`` [B,Σs], the sums of the centres of each row's labels.
        """
        outputs = Outputs()
        for modality in self.modalities:
            pairs = self.long_pairs(batch, modality)
            short = {length: self.short_pairs(pairs, length) for length in self.lengths}
            bits = self.problem.bits
            code = pairs if bits == self.config.long_bits else short[bits]
            outputs[f"{modality}_long_pairs"] = pairs
            outputs[f"{modality}_short_pairs"] = torch.cat([pairs[:, :0], *short.values()], 1)
            outputs[f"{modality}_code"] = code[:, 1::2] - code[:, 0::2]
        label = batch.label.to(self.long_centers.dtype)
        outputs["long_vote"] = label @ self.long_centers
        centers = [self.short_centers(length) for length in self.lengths]
        outputs["short_vote"] = label @ torch.cat([self.long_centers[:, :0], *centers], 1)
        return outputs

    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return p₁ - p₀ [B,K] of the run's length, ties below 0."""
        pairs = self.long_pairs(batch, modality)
        return pairs_to_code(self.short_pairs(pairs, self.problem.bits))

    def protocol_notes(self, auxiliary: Mapping[str, str]) -> dict[str, Any]:
        """State where centres come from, if not from the seed."""
        return {} if self.files is None else {"centres": f"files in '{self.files.folder}'"}


@dataclasses.dataclass(frozen=True)
class TwDHLossConfig:
    """Keys of ``loss`` with ``name: twdh``."""

    quan_alpha: float = 0.5  # weight of the long code's quantiser
    low_rate: float = 0.0  # weight of the short codes' terms
    short_bits: tuple[int, ...] = SHORT_BITS  # the model's; only read where low_rate is not 0


@LOSSES.register(
    "twdh",
    config=TwDHLossConfig,
    needs=(
        *(f"{m}_{output}" for m in MODALITIES for output in ("long_pairs", "short_pairs")),
        "long_vote",
        "short_vote",
    ),
)
class TwDHLoss(HashLoss):
    """TwDH (TMM 2024): pairs of both modalities towards the voted hash centre."""

    config: TwDHLossConfig

    def __init__(self, config: TwDHLossConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.bits = problem.bits
        self.tie_seed = int(torch.randint(2**31, (1,), generator=problem.generator))

    def get_extra_state(self) -> Tensor:
        """Return what a checkpoint has to hold beside buffers: the seed of the tie breaks."""
        return torch.tensor(self.tie_seed)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore what :meth:`get_extra_state` returned."""
        self.tie_seed = int(state)

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return the terms of :meth:`terms`, with the targets of the batch's labels.

        Raises:
            UserError: low_rate is not 0 and the loss's short lengths are not the model's.
        """
        labelled = (batch.label.sum(1) > 0).to(outputs.long_vote.dtype)
        return self.terms(outputs, self.targets(outputs, progress), labelled)

    def targets(self, outputs: Outputs, progress: Progress) -> dict[int, Tensor]:
        """Return length → two-way target [B,2K]: the long one first, short ones if they count."""
        long_bits = outputs.long_vote.shape[1]
        votes = {long_bits: outputs.long_vote}
        lengths = short_lengths(self.config.short_bits, self.bits, long_bits)
        if self.config.low_rate and lengths:
            if sum(lengths) != outputs.short_vote.shape[1]:
                raise UserError(
                    f"loss.short_bits={list(self.config.short_bits)} is not accepted with "
                    "loss.low_rate: they are not the model's; give loss.short_bits the value of "
                    "model.short_bits."
                )
            short = outputs.short_vote.split(lengths, 1)
            votes.update(zip(lengths, short, strict=True))
        ties = self.tie_breaks(list(votes), progress)
        return {
            bits: two_way(torch.where(vote == 0, tie.to(vote), vote.sign()))
            for (bits, vote), tie in zip(votes.items(), ties, strict=True)
        }

    def tie_breaks(self, lengths: Sequence[int], progress: Progress) -> list[Tensor]:
        """Return a random ±1 vector for each length; they follow from the seed and the step."""
        # NumPy's, since PyTorch's generators read 32 bits of a seed only
        generator = np.random.default_rng([self.tie_seed, progress.step])
        return [torch.from_numpy(generator.choice([-1.0, 1.0], length)) for length in lengths]

    def terms(self, outputs: Outputs, targets: Mapping[int, Tensor], labelled: Tensor) -> Terms:
        """Return ``bce_<modality>``, ``quan_<modality>``, ``short_bce_<s>``, ``short_quan_<s>``.

        Args:
            outputs: the model's pairs.
            targets: length → two-way target [B,2K], the long one first; lengths that are not there
                have no terms.
            labelled: [B], 0 for rows that have no target.
        """
        (_, long_target), *short = targets.items()
        terms, config = Terms(), self.config
        for modality in MODALITIES:
            pairs = outputs[f"{modality}_long_pairs"]
            terms[f"bce_{modality}"] = likelihood(pairs, long_target, labelled) / 2
            terms[f"quan_{modality}"] = config.quan_alpha * quantization(pairs) / 2
        if not short:
            return terms
        widths = [target.shape[1] for _, target in short]
        both = [outputs[f"{modality}_short_pairs"].split(widths, 1) for modality in MODALITIES]
        for (bits, target), image, text in zip(short, *both, strict=True):
            bce = likelihood(image, target, labelled) + likelihood(text, target, labelled)
            terms[f"short_bce_{bits}"] = config.low_rate * bce / 2
            quan = quantization(image) + quantization(text)
            terms[f"short_quan_{bits}"] = config.low_rate * quan / 2
        return terms


def likelihood(pairs: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of pairs [B,2K], over the rows that have a target."""
    return masked_mean(F.binary_cross_entropy(pairs, target, reduction="none").mean(1), labelled)


def quantization(pairs: Tensor) -> Tensor:
    """Return 1 - mean((2P-1)²) of pairs [B,2K]: 0 exactly when every pair is one-hot."""
    return 1 - (2 * pairs - 1).pow(2).mean()
