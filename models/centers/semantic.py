"""Hash centres that keep a distance: minimal-distance centres, and SHC's semantic ones.

SHC seeks C centres c_i of K bits whose inner products follow the similarity S of the classes,
under a least Hamming distance d::

    min  mean_ij (S_ij - c_i·c_j / K)²  +  (μ / C²) Σ_{i≠j} c_i·c_j      s.t.  dist(c_i, c_j) ≥ d

where d comes from the bound of Gilbert and Varshamov. With V(r) = Σ_{i≤r} binom(K,i) the number of
codes within distance r of one, it is the least d with V(d-1) ≥ 2ᴷ/C: one more than the bound
guarantees, so such centres need not exist. With more classes than codes d is 1, which no centres
keep: some classes share one.

Both kinds of centres come from annealing (:mod:`models.centers.annealing`). First codes of distance
d are sought, or of the largest one below it that is found; then fit and distance together, from
several random starts as far as time allows. Codes of a smaller distance are never returned.

Sources: SHC (arXiv:2507.08404), stage 2. Centres of a least distance: "Deep Hashing with
Minimal-Distance-Separated Hash Centers", L. Wang, Y. Pan, C. Liu, H. Lai, J. Yin, Y. Liu, CVPR
2023.

Deviations
    * Both papers and SHC's code relax one code after the other (ℓp-box ADMM); SHC's then moves
      whole codes, as long as no pair comes too close. The search finds fits that are better, in
      seconds.
    * SHC's code starts from the rows of a Hadamard matrix, which are further apart than d where
      there are few classes, and stays close to them; the problem as written requires d alone.
    * μ = 0 here. The code's 0.625 is multiplied by 10⁻⁴, which changes nothing that can be seen;
      the value itself would outweigh every similarity.
    * Distances are over pairs of different centres; the code's figures count a centre and itself.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Generator, Tensor

from models.centers.annealing import CodeSearch, geometric
from models.centers.hash_centers import center_distances, hadamard_centers, random_signs
from utils.errors import UserError

WORK = 2e9
"""Steps of one search at effort 1, some nanoseconds each: two to five seconds on one core."""

_SWEEPS = (20, 2000)  # in one start, at least and at most
_STARTS = 8  # at most
_DRAW = 25  # steps that drawing a move is worth; weighing it takes one for each class
_PENALTY = (1, 256)  # λ at the start and at the end of a search, of w = 1
_HARD = 4096  # λ that no fit outweighs
_HEAT = (0.2, 0.005)  # temperatures, of the deviation of what flips change
_SETTLE = 20  # sweeps without heat at the end
_EXCHANGES = (20, 1000)  # proposed to every class
_APART = (30, 400)  # sweeps of a search for distance alone, which needs no heat
_LOOKS = 50  # its parts: it ends after the one in which the distance was found


@dataclasses.dataclass(frozen=True)
class CenterReport:
    """Distances of centres, and how they follow a similarity.

    Attributes:
        min, mean, max: Hamming distance over pairs of different centres.
        variance: of these distances.
        objective: mean over all C² entries of (S_ij - c_i·c_j / K)².
        correlation: of S_ij and c_i·c_j over pairs i < j (Pearson); NaN where either is constant.
    """

    min: float
    mean: float
    max: float
    variance: float
    objective: float
    correlation: float


def gilbert_varshamov(bits: int, n_classes: int) -> int:
    """Return the least d with V(d-1) ≥ 2ᴷ/C, the least distance of SHC's centres.

    At least 1, out of reach with more classes than codes (:func:`sphere_packing`).

    >>> gilbert_varshamov(16, 100), gilbert_varshamov(64, 196)
    (4, 23)
    """
    distance, ball = 1, 1
    while ball * n_classes < 2**bits:
        ball += math.comb(bits, distance)
        distance += 1
    return distance


def sphere_packing(bits: int, n_classes: int) -> int:
    """Return the largest d with V(⌊(d-1)/2⌋) ≤ 2ᴷ/C: no C codes can be further apart.

    At most K + 1, where no distance is excluded; 0 with more classes than codes, of which two are
    equal.

    >>> sphere_packing(16, 100), sphere_packing(8, 100), sphere_packing(8, 555)
    (6, 2, 0)
    """
    if n_classes > 2**bits:
        return 0
    radius, ball = 0, 1
    while radius < bits and (ball + math.comb(bits, radius + 1)) * n_classes <= 2**bits:
        radius += 1
        ball += math.comb(bits, radius)
    return min(2 * radius + 2, bits + 1)


def most_distance(bits: int, n_classes: int) -> int:
    """Return a bound on the least distance of C codes: the smaller of packing and Plotkin.

    Plotkin: a bit differs in at most ⌊C/2⌋⌈C/2⌉ of the pairs.
    """
    if n_classes < 2:
        return bits
    separations = bits * (n_classes // 2) * ((n_classes + 1) // 2)
    plotkin = separations // (n_classes * (n_classes - 1) // 2)
    return min(plotkin, sphere_packing(bits, n_classes), bits)


def semantic_centers(
    similarity: Tensor,
    bits: int,
    generator: Generator,
    *,
    distance: int | None = None,
    mu: float = 0.0,
    effort: float = 1.0,
) -> Tensor:
    """Return centres [C,K] of ±1 whose inner products follow the similarity of the classes.

    Args:
        similarity: S [C,C], at most 1 in size; an asymmetric one acts as its symmetric part.
        bits: K.
        generator: decides the result.
        distance: d, by default :func:`gilbert_varshamov`. Where it is out of reach, the largest
            distance that was reached is kept instead.
        mu: μ.
        effort: work in multiples of :data:`WORK`.

    Raises:
        UserError: a similarity that is not square or not finite, or a distance above K.
    """
    similarity = similarity.detach().cpu().double()
    if similarity.ndim != 2 or len(similarity) != similarity.shape[-1] or not len(similarity):
        raise UserError(
            f"A class similarity of shape {list(similarity.shape)} is not accepted; [C,C] is "
            "needed."
        )
    if not bool(similarity.isfinite().all()):
        raise UserError("The class similarity has NaN or infinite entries; numbers are needed.")
    if distance is None:
        distance = min(gilbert_varshamov(bits, len(similarity)), bits)
    if not 0 <= distance <= bits:
        raise UserError(
            f"Centres of {bits} bits cannot be asked for a distance of {distance}; give 0 to "
            f"{bits}, or none for the bound of Gilbert and Varshamov."
        )
    # μ Σ K g = Σ ((S - μK/2) - g)² up to what does not depend on the codes
    desired = bits * (similarity - mu * bits / 2)
    separated = separated_codes(len(similarity), bits, distance, generator, effort)
    reached = min(distance, _least_distance(separated))
    return _fitted(desired, separated, reached, generator, effort)


def mds_centers(n_classes: int, bits: int, generator: Generator, *, effort: float = 1.0) -> Tensor:
    """Return centres [C,K] of ±1 with as large a least distance as a search finds.

    It starts from CSQ's centres or, if these are closer, from the distance of
    :func:`gilbert_varshamov`, and tries one more as long as it succeeds. If it did, the other
    distances are then made as even as the least one allows.
    """
    start = hadamard_centers(n_classes, bits, generator)
    distance = gilbert_varshamov(bits, n_classes)
    gilbert = separated_codes(n_classes, bits, distance, generator, effort)
    start = max(start, gilbert, key=_least_distance)
    best = _raised(start, most_distance(bits, n_classes), generator, effort)
    if best is start and start is not gilbert:
        return best
    simplex = torch.full((n_classes, n_classes), -bits / max(n_classes - 1, 1))
    search = CodeSearch(best, simplex, _least_distance(best), generator)
    search.sweep(1, [_HARD] * _SETTLE, [0] * _SETTLE)
    return search.codes


def separated_codes(
    n_classes: int, bits: int, distance: int, generator: Generator, effort: float = 1.0
) -> Tensor:
    """Return codes [C,K] of ±1 whose least distance is ``distance``, or the largest found below."""
    start = random_signs(n_classes, bits, generator)
    distance = min(distance, most_distance(bits, n_classes))
    codes = _dispersed(start, distance, generator, effort)
    if _least_distance(codes) >= distance:
        return codes
    return _raised(start, distance, generator, effort)


def center_report(centers: Tensor, similarity: Tensor) -> CenterReport:
    """Return distances of centres [C,K] and how they follow a similarity [C,C]."""
    centers, similarity = centers.cpu().double(), similarity.cpu().double()
    count, bits = centers.shape
    products = centers @ centers.T / bits
    row, column = torch.triu_indices(count, count, offset=1)
    distances = (bits - bits * products[row, column]) / 2
    if count < 2:
        distances = torch.full((1,), float(bits), dtype=torch.float64)
    pairs = torch.stack([similarity[row, column], products[row, column]])
    constant = count < 3 or bool((pairs.std(1) < 1e-9).any())
    return CenterReport(
        min=distances.min().item(),
        mean=distances.mean().item(),
        max=distances.max().item(),
        variance=distances.var(correction=0).item(),
        objective=(similarity - products).square().mean().item(),
        correlation=math.nan if constant else torch.corrcoef(pairs)[0, 1].item(),
    )


def _fitted(
    desired: Tensor, separated: Tensor, distance: int, generator: Generator, effort: float
) -> Tensor:
    """Return the codes of least misfit found at ``distance``; ``separated`` are some that keep it.

    Where the distance is nearly the largest there is, no other codes that keep it may be found;
    then it still matters which class gets which.
    """
    count, bits = separated.shape
    work = _work(count, bits, effort)
    sweeps = _within(work, _SWEEPS)
    best = CodeSearch(separated, desired, distance, generator)
    best.exchange(geometric(*_HEAT, _within(_work(count, 1, effort) / 10, _EXCHANGES)))
    best.sweep(1, [_HARD] * _SETTLE, [0] * _SETTLE)
    for _ in range(_within(work / sweeps, (1, _STARTS))):
        start = random_signs(count, bits, generator)
        search = CodeSearch(start, desired, distance, generator)
        scale = search.scale
        heat = [scale * share for share in geometric(*_HEAT, sweeps)]
        search.sweep(1, geometric(*_PENALTY, sweeps), heat)
        search.sweep(1, [_HARD] * _SETTLE, [0] * _SETTLE)
        if not search.too_close and search.misfit < best.misfit:
            best = search
    return best.codes


def _raised(codes: Tensor, distance: int, generator: Generator, effort: float) -> Tensor:
    """Return codes whose least distance was raised by one as often as it could be."""
    while _least_distance(codes) < distance:
        further = _dispersed(codes, _least_distance(codes) + 1, generator, effort)
        if _least_distance(further) <= _least_distance(codes):
            break
        codes = further
    return codes


def _dispersed(codes: Tensor, distance: int, generator: Generator, effort: float) -> Tensor:
    """Return ``codes`` after a search for a least distance, which it may not have reached.

    Moves that change nothing are taken too, so that the search does not stop early.
    """
    count, bits = codes.shape
    search = CodeSearch(codes, torch.zeros(count, count), distance, generator)
    for part in torch.zeros(_within(_work(count, bits, effort) / 2, _APART)).chunk(_LOOKS):
        if not search.too_close:
            break
        search.sweep(0, [1] * len(part), part.tolist())
    return search.codes


def _work(n_classes: int, bits: int, effort: float) -> float:
    """Return the number of sweeps that the effort pays for."""
    return effort * WORK / (n_classes * (n_classes + _DRAW) * bits)


def _within(count: float, bounds: tuple[int, int]) -> int:
    return min(max(round(count), bounds[0]), bounds[1])


def _least_distance(codes: Tensor) -> int:
    return round(center_distances(codes)[0])
