"""Search for codes: C codes of K bits whose inner products fit given ones and that keep a distance.

With c_i of ±1, h_ij = c_i·c_j (so that the Hamming distance is (K - h_ij)/2), desired products t_ij
and a least distance d, simulated annealing lowers ::

    w Σ_{i<j} (t_ij - h_ij)²  +  λ Σ_{i<j} [h_ij - (K - 2d)]₊²

A move flips one bit of a code, or two at once; two keep the parity of distances, without which the
search hardly leaves tight sets of even distances. Another move exchanges the codes of two classes,
which is the only possible one where codes are as far apart as can be. All products are stored, so
that a move costs O(C) to evaluate and O(C) to make. As λ grows and the temperature falls, fit is
traded for distance.

The sweeps are compiled by numba. All numbers in them are whole multiples of 2⁻¹⁰ far below 2⁵³, so
sums are exact in any order of summation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

Array = Any  # of the types that numba infers

RESOLUTION = 2**10
"""Desired products are rounded to whole fractions of this."""

_DRAWS = 2**20  # moves drawn at once


class CodeSearch:
    """Codes under search, with their products and the desired ones."""

    def __init__(self, codes: Tensor, desired: Tensor, distance: int, generator: Generator) -> None:
        """Start from given codes.

        Args:
            codes: [C,K] of ±1.
            desired: [C,C] inner products t, between -K and K; asymmetric ones are averaged.
            distance: least Hamming distance d of two codes, 0..K.
            generator: draws the moves.
        """
        count, self.bits = codes.shape
        self.generator = generator
        self._codes = codes.T.contiguous().double().numpy().copy()  # [K,C]
        self._products = codes.double() @ codes.double().T
        both = (desired.double() + desired.double().T) / 2
        self._desired = (both * RESOLUTION).round() / RESOLUTION
        for matrix in (self._products, self._desired):
            matrix.fill_diagonal_(-self.bits)  # no pair: fits, and is never too close
        self._limit = float(self.bits - 2 * distance)
        self._shape = (count, self.bits)

    @property
    def codes(self) -> Tensor:
        """The codes [C,K] of ±1 in float32."""
        return torch.from_numpy(self._codes.T.copy()).float()

    @property
    def too_close(self) -> int:
        """How many pairs are closer than the least distance."""
        return int((self._products > self._limit).sum()) // 2

    @property
    def misfit(self) -> float:
        """Σ (t_ij - h_ij)² over all i ≠ j."""
        return float((self._desired - self._products).square().sum())

    @property
    def scale(self) -> float:
        """Deviation of what the single flips would change in the misfit, a natural temperature."""
        codes = torch.from_numpy(self._codes)  # [K,C]
        change = 4 * codes * (codes @ (self._desired - self._products))
        return max(float(change.std(correction=0)), 1.0)

    def sweep(
        self, weight: float, penalties: Iterable[float], temperatures: Iterable[float]
    ) -> None:
        """Propose K moves for every code, once for each entry of the two lists.

        Args:
            weight: w, a small whole number.
            penalties: λ, rounded to whole numbers.
            temperatures: 0 takes no move that makes anything worse.
        """
        rounded = torch.tensor([float(p) for p in penalties], dtype=torch.float64).round()
        heat = torch.tensor([float(t) for t in temperatures], dtype=torch.float64)
        together = max(1, _DRAWS // (self._shape[0] * self.bits))
        for part, temperature in zip(rounded.split(together), heat.split(together), strict=True):
            size = (len(part), *self._shape)
            first = torch.randint(0, self.bits, size, generator=self.generator, dtype=torch.int32)
            # K and above: no second bit
            second = torch.randint(
                0, 2 * self.bits, size, generator=self.generator, dtype=torch.int32
            )
            draws = torch.empty(size, dtype=torch.float64).exponential_(generator=self.generator)
            _compiled(sweep_in_place)(
                self._codes, self._products.numpy(), self._desired.numpy(), float(weight),
                self._limit, part.numpy(), (temperature[:, None, None] * draws).numpy(),
                first.numpy(), second.numpy(),
            )  # fmt: skip

    def exchange(self, temperatures: Iterable[float]) -> None:
        """Propose an exchange of codes to every class, once for each temperature; keeps distances.

        Temperatures are in units of the deviation of what exchanges would change.
        """
        count = self._shape[0]
        heat = torch.tensor([float(t) for t in temperatures], dtype=torch.float64)
        size = (len(heat), count)
        partner = torch.randint(0, count, size, generator=self.generator, dtype=torch.int32)
        draws = torch.empty(size, dtype=torch.float64).exponential_(generator=self.generator)
        both = self._desired @ self._products
        fit = both.diagonal()
        unit = float((2 * (fit[:, None] + fit - both - both.T)).std(correction=0))
        order = torch.arange(count, dtype=torch.int64).numpy()
        _compiled(exchange_in_place)(
            order, self._products.numpy(), self._desired.numpy(),
            (unit * heat[:, None] * draws).numpy(), partner.numpy(),
        )  # fmt: skip
        self._codes = self._codes[:, order].copy()


@functools.cache
def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    import numba

    flags = {"reassoc", "nsz", "contract", "nnan"}  # vector sums; exact, see above
    return numba.njit(nogil=True, cache=True, fastmath=flags)(function)


def sweep_in_place(
    codes: Array, products: Array, desired: Array, weight: float, limit: float, penalty: Array,
    largest_rise: Array, first: Array, second: Array,
) -> None:  # fmt: skip
    """Try moves and make those that raise the sum by no more than allowed.

    Args:
        codes: float64 [K,C] of ±1, changed in place.
        products: [C,C] with -K on the diagonal, changed in place.
        desired: [C,C] with -K on the diagonal.
        weight: w.
        limit: K - 2d.
        penalty: λ of every sweep [S].
        largest_rise: largest rise that a move may cause [S,C,K].
        first: bit that a move flips [S,C,K].
        second: bit that it flips as well [S,C,K]; K and above for none.
    """
    bits, count = codes.shape
    for s in range(len(penalty)):
        for i in range(count):
            row, aim = products[i], desired[i]
            for n in range(bits):
                k, m = first[s, i, n], second[s, i, n]
                one, other = codes[k], codes[m % bits]
                x = one[i]
                y = 0.0 if m >= bits or m == k else other[i]
                change = 0.0
                for j in range(count):
                    step = x * one[j] + y * other[j]  # the product falls by twice as much
                    before = max(row[j] - limit, 0.0)
                    after = max(row[j] - 2 * step - limit, 0.0)
                    change += 4 * weight * step * (aim[j] - row[j] + step)
                    change += penalty[s] * (after * after - before * before)
                flips = x * x + y * y
                if change - 4 * weight * flips * flips > largest_rise[s, i, n]:
                    continue
                for j in range(count):
                    row[j] -= 2 * (x * one[j] + y * other[j])
                row[i] = -bits
                one[i] = -x
                if y != 0:
                    other[i] = -y
            for j in range(count):
                products[j, i] = row[j]


def exchange_in_place(
    order: Array, products: Array, desired: Array, largest_rise: Array, partner: Array
) -> None:
    """Exchange codes of two classes where that raises the misfit by no more than allowed.

    Args:
        order: int64 [C], whose code each class has; changed in place.
        products: [C,C] with -K on the diagonal, changed in place.
        desired: [C,C] with -K on the diagonal.
        largest_rise: largest rise that a move may cause [S,C].
        partner: the other class of a move [S,C].
    """
    count = len(order)
    for s in range(len(largest_rise)):
        for i in range(count):
            m = partner[s, i]
            if m == i:
                continue
            change = 0.0
            for j in range(count):
                change += (desired[i, j] - desired[m, j]) * (products[i, j] - products[m, j])
            # not the pairs of i and m with each other and with themselves
            none = desired[i, i]
            change -= 2 * (desired[i, m] - none) * (products[i, m] - none)
            if 2 * change > largest_rise[s, i]:
                continue
            for j in range(count):
                products[i, j], products[m, j] = products[m, j], products[i, j]
            for j in range(count):
                products[j, i], products[j, m] = products[j, m], products[j, i]
            order[i], order[m] = order[m], order[i]


def geometric(start: float, end: float, count: int) -> list[float]:
    """Return ``count`` numbers from ``start`` to ``end``, each the same multiple of the last."""
    return np.geomspace(start, end, count).tolist()
