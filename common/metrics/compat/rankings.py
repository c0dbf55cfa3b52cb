"""Codes and labels of two sides as explicit rankings, block by block of queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from common.metrics.compat.stable_order import stable_order
from common.metrics.labels import as_labels, check_comparable
from common.pairwise import hamming_distance, pairwise_cosine, pairwise_euclidean, share_label
from utils.errors import UserError

_BYTES_PER_PAIR = 64  # distance, keys, order, hits, their cumulated number, precisions


@dataclasses.dataclass(frozen=True)
class RankedPairs:
    """Checked inputs: codes float64 [Q,K], [N,K]; labels float32 [·,C] or int64 [·]; a distance."""

    query: Tensor
    database: Tensor
    query_labels: Tensor
    database_labels: Tensor
    distance: str

    def ranked(self, order: Any, memory_mb: float = 256) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the order, int64 [q,N], and the relevance by row, bool [q,N], of every block.

        A block's pairs fit into ``memory_mb``, or it is one query.
        """
        queries, rows = len(self.query), len(self.database)
        if order is not None:
            order = torch.as_tensor(order)
            if list(order.shape) != [queries, rows] or order.is_floating_point():
                raise UserError(
                    f"An order is [{queries},{rows}] integers, the database rows from "
                    f"nearest to farthest per query, but got {order.dtype} {list(order.shape)}."
                )
        if not memory_mb > 0:
            raise UserError(f"memory_mb is {memory_mb}; a number of MiB above 0 is needed.")
        step = max(1, int(memory_mb * 2**20) // (_BYTES_PER_PAIR * rows))
        for top in range(0, queries, step):
            block = slice(top, top + step)
            if order is None:
                yield stable_order(self._distances(block)), self._relevant(block)
            else:
                yield _permutation(order[block]), self._relevant(block)

    def _relevant(self, block: slice) -> Tensor:
        """Return which rows are relevant to a block of queries, bool [q,N]."""
        labels = self.query_labels[block]
        if labels.ndim == 1:
            return labels[:, None] == self.database_labels
        return share_label(labels, self.database_labels) > 0

    def _distances(self, block: slice) -> Tensor:
        """Return the distances of a block of queries, float64 [q,N]."""
        query = self.query[block]
        if self.distance == "cosine":
            return 1 - pairwise_cosine(query, self.database)
        if self.distance == "euclidean":
            return pairwise_euclidean(query, self.database)
        return hamming_distance(query, self.database)


def check_pairs(
    query_codes: Any,
    query_labels: Any,
    database_codes: Any,
    database_labels: Any,
    distance: str = "inner",
    zero_mean: bool = False,
) -> RankedPairs:
    """Check codes and labels, and return them with the distance to rank by.

    Codes and labels are those of :func:`common.metrics.compat.policies.compat_map`, the others
    those of :class:`common.metrics.compat.policies.Policy`.

    Raises:
        UserError: no rows, values that are not finite, codes of nothing but 0 and 1, or different
            numbers of bits, rows or classes.
    """
    query, query_labels = _side("query", query_codes, query_labels)
    database, database_labels = _side("database", database_codes, database_labels)
    classes = [s.shape[1] if s.ndim == 2 else None for s in (query_labels, database_labels)]
    check_comparable((query.shape[1], database.shape[1]), (classes[0], classes[1]))
    bits = all(bool(((codes == 0) | (codes == 1)).all()) for codes in (query, database))
    if bits and not (query.all() and database.all()):
        raise UserError(
            "The codes hold nothing but 0 and 1, and here 0 is an undecided bit; give ±1 or bool."
        )
    if zero_mean:
        mean = database.mean(0)
        query, database = query - mean, database - mean
    if distance == "hamming":
        query, database = query.sign(), database.sign()
    return RankedPairs(query, database, query_labels, database_labels, distance)


def _side(side: str, codes: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Return the checked codes float64 [N,K] and labels of one side; an error names the side."""
    try:
        values = torch.as_tensor(codes).detach().cpu()
    except (TypeError, ValueError) as error:
        raise UserError(f"The {side} codes are no array of numbers; [N,K] is needed.") from error
    if values.ndim != 2 or 0 in values.shape or values.is_complex():
        raise UserError(
            f"The {side} codes are {values.dtype} {list(values.shape)}; real numbers [N,K] with at "
            "least one row and one bit are needed."
        )
    if values.dtype == torch.bool:
        values = 2 * values.double() - 1
    elif not values.dtype.is_signed:
        raise UserError(
            f"The {side} codes are {values.dtype}, perhaps packed; give them as ±1 or bool."
        )
    values = values.double()
    if not values.isfinite().all():
        raise UserError(f"The {side} codes hold NaN or infinity; every value must be finite.")
    try:
        checked = torch.from_numpy(as_labels(labels))
    except UserError as error:
        raise UserError(f"In the {side}: {error}") from error
    if len(values) != len(checked):
        raise UserError(
            f"The {side} has {len(values)} rows of codes and {len(checked)} of labels; each row of "
            "codes needs one of labels."
        )
    return values, checked if checked.ndim == 1 else checked.float()


def _permutation(ranked: Tensor) -> Tensor:
    """Return orders as int64 [q,N], or refuse one that does not name each row once."""
    ranked = ranked.long().cpu()
    rows = ranked.shape[1]
    if bool(((ranked >= 0) & (ranked < rows)).all()):
        seen = torch.zeros(ranked.shape, dtype=torch.bool).scatter_(1, ranked, True)
        if bool(seen.all()):
            return ranked
    raise UserError(f"An order must name each of the rows 0..{rows - 1} once per query.")
