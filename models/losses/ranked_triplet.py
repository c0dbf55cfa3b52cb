"""A triplet loss over all triples of a batch, weighted by the gain in the ranking.

With o_ij the number of labels that rows i and j share, S_ij = 1 where o_ij > 0, and o_(r) the
entries of a row in descending order (r = 1..B, the row itself included)::

    w_ij  = (2^{o_ij} - 1) / Z_i         Z_i = Σ_r (2^{o_(r)} - 1) / log₂(r + 1)
    t_apn = [ (w_ap - w_an) S_ap (1 - S_an) (D_ap - D_an + margin) ]₊
    loss  = Σ_apn t_apn / #{t_apn > 1e-16}

Z is the discounted cumulative gain of the ideal ranking. All B³ triples count, those whose anchor
is its own positive too. DIMCH and UMoED use it on distances of sets and of codes.

The cube is never built. Since w_an = 0 where S_an = 0, a triple is w_ap [D_ap - D_an + margin]₊:
for an anchor, the negatives that a positive is in conflict with are those below D_ap + margin, a
prefix of the negatives in order of distance. Sorting gives the length of that prefix for every
positive and, the other way round, the weight of all positives in conflict with a negative. With
these factors the sum is linear in D, and so is its gradient: O(B² log B) time, O(B²) memory.

Deviation from the formula: where no triple exceeds 1e-16 the sum is divided by 1, not by 1e-16. A
hinge within rounding of 0 may be counted by one way of computing it and not by another.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-16  # a triple counts in the divisor above this


def dcg_weight(label: Tensor) -> Tensor:
    """Return the gain of each pair over the ideal gain of its row, w.

    Args:
        label: [B,C] multi-hot labels of any real, integer or bool dtype.

    Returns:
        [B,B] in float64 if the labels are, else float32: at least 0, and 0 where no label is
        shared. A row without labels has weight 0 with every row.

    >>> dcg_weight(torch.tensor([[1, 0], [0, 1]]))
    tensor([[1., 0.],
            [0., 1.]])
    """
    label = label.to(torch.float64 if label.dtype == torch.float64 else torch.float32)
    shared = label @ label.mT  # [B,B]
    largest = shared.amax(1, keepdim=True)
    # divided by 2^largest in both terms: many shared labels would leave the range of float32
    gain = torch.exp2(shared - largest) - torch.exp2(-largest)
    rank = torch.arange(2, len(label) + 2, device=label.device, dtype=gain.dtype)
    ideal = (gain.sort(1, descending=True).values / rank.log2()).sum(1, keepdim=True)  # [B,1]
    return torch.where(ideal > 0, gain / ideal, 0.0)


def ranked_triplet(distance: Tensor, similar: Tensor, weight: Tensor, margin: float) -> Tensor:
    """Return the mean of the weighted triplet loss over the triples in conflict.

    Args:
        distance: [B,B] D, of anchors (rows) to candidates (columns).
        similar: [B,B] S, 1 where anchor and candidate share a label, else 0.
        weight: [B,B] w of the positives, see :func:`dcg_weight`; ``similar`` itself leaves all
            triples alike.
        margin: by how much a negative has to be farther than a positive.

    Returns:
        A scalar; 0 (with gradient 0) where no triple is in conflict.
    """
    total, count = conflict_sum(distance, similar, weight, margin)
    return total / count.clamp_min(1)


def conflict_sum(
    distance: Tensor, similar: Tensor, weight: Tensor, margin: float
) -> tuple[Tensor, Tensor]:
    """Return the sum of all t_apn and how many of them exceed 1e-16.

    The arguments are those of :func:`ranked_triplet`.

    Returns:
        Two scalars, the count in the dtype of ``distance`` and without gradient.
    """
    weight = weight.to(distance.dtype) * similar.to(distance.dtype)
    push, pull, count = _conflicts(distance.detach(), similar > 0, weight, margin)
    total = ((push - pull) * distance).sum() + margin * push.sum()
    return total, count


@torch.no_grad()
def _conflicts(
    distance: Tensor, positive: Tensor, weight: Tensor, margin: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return how often each distance enters the sum, weighted, and the number of triples.

    Returns:
        push [B,B]: Σ_n w_ap over the negatives in conflict, 0 for what is no positive;
        pull [B,B]: Σ_p w_ap over the positives in conflict, 0 for what is no negative;
        the number of t_apn above 1e-16.
    """
    negatives, order = distance.masked_fill(positive, torch.inf).sort(1)
    reach = (distance + margin).masked_fill(~positive, -torch.inf)
    below = torch.searchsorted(negatives, reach)  # [B,B] negatives with D_an < D_ap + margin
    counted = torch.searchsorted(negatives, reach - FLOOR / weight)
    push = weight * below

    below, by_reach = below.sort(1)
    # summed from the end, so that it is exactly 0 beyond the last positive
    farther = weight.gather(1, by_reach).flip(1).cumsum(1).flip(1)
    farther = torch.cat([farther, farther.new_zeros(len(farther), 1)], 1)  # [B,B+1]
    rank = torch.arange(distance.shape[1], device=distance.device).expand_as(below).contiguous()
    first = torch.searchsorted(below, rank, right=True)  # the first positive that reaches it
    pull = torch.zeros_like(weight).scatter(1, order, farther.gather(1, first))
    return push, pull, counted.sum().to(distance.dtype)
