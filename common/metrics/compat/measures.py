"""``kalenforn@all``, ``deephash@5000``: policies with a cut by name, of packed codes of ±1.

Among codes of ±1 every policy ranks by Hamming distance, equal distances by row number, so that one
walk over the pairs gives all measures: the rank of a row is the number of nearer rows, and of rows
at its distance before it. Nothing is sorted, and no ranking is held.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from common.codes import unpack_codes
from common.distributed import gather_rows, local_share
from common.metrics.compat.policies import POLICIES, Policy, check_cut, policy_mean, precisions
from common.metrics.compat.rankings import check_pairs
from common.metrics.counting.dispatch import WORTH_COMPILED
from common.metrics.labels import check_comparable
from common.metrics.packed import PackedRows
from utils.errors import UserError, unknown_name


@dataclasses.dataclass(frozen=True)
class Measure:
    """The mAP of a policy at a cut.

    Attributes:
        policy: a name of :data:`common.metrics.compat.policies.POLICIES`.
        at: k; None is the whole database, -1 all but the farthest row.
    """

    policy: str
    at: int | None

    @property
    def rule(self) -> Policy:
        """The policy itself."""
        return POLICIES[self.policy]

    def __str__(self) -> str:
        return f"{self.policy}@{'all' if self.at is None else self.at}"


def parse_measure(text: object) -> Measure:
    """Return the measure that ``policy@cut`` names.

    Raises:
        UserError: another form, an unknown policy, or a cut that the policy does not have.

    >>> parse_measure("deephash@-1")
    Measure(policy='deephash', at=-1)
    """
    name, separator, cut = str(text).strip().partition("@")
    if separator and name not in POLICIES:
        raise unknown_name("policy", name, tuple(POLICIES))
    if not re.fullmatch(r"all|-?[0-9]{1,18}", cut):
        raise UserError(
            f"'{text}' names no measure; a policy, @ and a cut are needed, 'all' or a number of "
            f"rows, for example kalenforn@all or fire@1000 (policies: {', '.join(POLICIES)})."
        )
    measure = Measure(name, None if cut == "all" else int(cut))
    try:
        check_cut(measure.rule, measure.at)
    except UserError as error:
        raise UserError(
            f"'{text}' is not accepted: its cut is 'all' or a whole number from 1"
            + (", or -1 for all but the farthest row." if measure.rule.cut == "slice" else ".")
        ) from error
    return measure


def policy_means(
    query: PackedRows, database: PackedRows, measures: Sequence[Measure], *, memory_mb: float = 256
) -> dict[Measure, float]:
    """Return measure → mAP as :func:`common.metrics.compat.policies.compat_map` of the same codes.

    Under several processes, all of which hold all codes, each walks over a share of the queries.
    Small problems are ranked explicitly (loading compiled code would take longer), within
    ``memory_mb``; in larger ones each thread holds 29 bytes for each database row, beside a copy of
    packed codes and labels. 5,000 queries, 117,218 rows, 64 bits and 80 classes take 8 s on one
    core, one measure as well as seven.

    Raises:
        UserError: codes or labels that do not fit together.
    """
    check_comparable((query.bits, database.bits), (query.classes, database.classes))
    if not measures:
        return {}
    share = query.select(local_share(len(query)))
    if not len(share):
        values = torch.zeros(len(measures), 0, dtype=torch.float64)
    elif len(query) * len(database) < WORTH_COMPILED:
        values = _ranked(share, database, measures, memory_mb)
    else:
        values = _walked(share, database, measures)
    gathered = gather_rows(values.T.contiguous()).T
    return {m: policy_mean(m.rule, of) for m, of in zip(measures, gathered, strict=True)}


def as_json(means: Mapping[Measure, float]) -> dict[str, float | None]:
    """Return the means by the names of their measures; NaN becomes None."""
    return {str(measure): None if mean != mean else mean for measure, mean in means.items()}


def _ranked(
    query: PackedRows, database: PackedRows, measures: Sequence[Measure], memory_mb: float
) -> Tensor:
    """Return AP float64 [M,Q], by explicit rankings."""
    pairs = check_pairs(_codes(query), _labels(query), _codes(database), _labels(database))
    blocks = [
        torch.stack([precisions(m.rule, m.at, ranked, relevant) for m in measures])
        for ranked, relevant in pairs.ranked(None, memory_mb)
    ]
    return torch.cat(blocks, dim=1)


def _walked(query: PackedRows, database: PackedRows, measures: Sequence[Measure]) -> Tensor:
    """Return AP float64 [M,Q], by the compiled walk."""
    from common.metrics.compat.numba_walk import average_precisions

    rows = len(database)
    limits = [rows - 1 if m.at == -1 else rows if m.at is None else m.at for m in measures]
    by_rank = [m.rule.cut != "relevant" for m in measures]
    return torch.from_numpy(
        average_precisions(query, database, np.array(limits, np.int64), np.array(by_rank))
    )


def _codes(rows: PackedRows) -> np.ndarray:
    return unpack_codes(rows.codes, rows.bits)


def _labels(rows: PackedRows) -> np.ndarray:
    if rows.classes is None:
        return rows.labels
    return np.unpackbits(rows.labels.astype(np.uint8), 1, rows.classes, "little")
