"""Whether methods differ: intervals, paired tests, ranks over datasets.

Two things vary, and each has a paired test by Student's t. *Seeds*: differences of mAP of two
methods with the same seed; their spread is taken from all methods of the column that have the same
seeds. *Queries*: differences of a query's AP, averaged over the seeds that both have. In a table's
column (dataset, direction, code length) every method is compared with the best; p values of each
test are corrected for the number of comparisons by Holm's rule: sorted p_(1) ≤ .. ≤ p_(m) become
the maximum over j ≤ i of min(1, (m - j + 1) p_(j)).

A method is *distinguishable* from the best only if every test that can be made says so at 5 %. With
one seed only queries are tested, which says nothing of how training varies.

Over datasets (Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 2006):
methods are ranked within each dataset by mAP averaged over directions and code lengths; average
ranks that are less than the critical difference q sqrt(k (k + 1) / 6 N) apart (Nemenyi; k methods,
N datasets, q from the studentised range) are not distinguishable.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

LEVEL = 0.05


def half_width(values: Sequence[float]) -> float | None:
    """Return half the width of the 95 % t interval of the mean, None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    quantile = float(stdtrit(len(values) - 1, 1 - LEVEL / 2))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def paired_test(differences: Sequence[float] | np.ndarray) -> float | None:
    """Return the two-sided p value of a paired t test, or None for fewer than two differences."""
    values = np.asarray(differences, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return None
    return _t_test(values.mean(), values.std(ddof=1) / math.sqrt(len(values)), len(values) - 1)


def _t_test(difference: float, error: float, freedom: int) -> float:
    """Return the two-sided p value of a difference with a standard error."""
    if error <= 1e-12 * max(abs(difference), 1.0):  # all alike
        return 1.0 if abs(difference) <= 1e-12 else 0.0
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -(abs(difference) / error)))


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's rule, in the given order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(values)
    largest = 0.0
    for smaller, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - smaller) * values[index]))
        corrected[index] = largest
    return corrected


@dataclasses.dataclass(frozen=True)
class Sample:
    """Scores of one method in one column.

    Attributes:
        maps: seed → mAP.
        queries: seed → AP of each query [Q], where the run has it.
        split: hash of the query and database rows; queries of different ones are not paired.
    """

    maps: Mapping[int, float]
    queries: Mapping[int, np.ndarray]
    split: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a method compares with the best of its column; p values are corrected.

    Attributes:
        p_seeds, p_queries: None where the test cannot be made, and for the best itself.
    """

    p_seeds: float | None
    p_queries: float | None

    @property
    def alike(self) -> bool | None:
        """Whether it is not distinguishable from the best; None: no test can be made."""
        tests = [p for p in (self.p_seeds, self.p_queries) if p is not None]
        return any(p >= LEVEL for p in tests) if tests else None


def against_best(samples: Sequence[Sample]) -> list[Verdict]:
    """Compare each method of a column with the best one, in the given order."""
    best = max(range(len(samples)), key=lambda i: statistics.fmean(samples[i].maps.values()))
    others = [i for i in range(len(samples)) if i != best]
    over_queries = {i: _query_test(samples[best], samples[i]) for i in others}
    query_tests = {i: p for i, p in over_queries.items() if p is not None}
    by_seed, by_query = (
        dict(zip(tests, holm(list(tests.values())), strict=True))
        for tests in (_seed_tests(samples, best, others), query_tests)
    )
    return [Verdict(by_seed.get(i), by_query.get(i)) for i in range(len(samples))]


def _seed_tests(samples: Sequence[Sample], best: int, others: list[int]) -> dict[int, float]:
    """Return the p values over seeds of the others against the best, where they can be tested.

    Methods with all of the best's seeds share one estimate of how seeds differ: the residual of
    mAP ~ method + seed, with (m - 1)(n - 1) degrees of freedom. Three seeds leave a single pair
    two, with which even a gap of .2 would pass for chance.
    """
    seeds = sorted(samples[best].maps)
    complete = [i for i in others if samples[i].maps.keys() >= set(seeds)]
    tests: dict[int, float] = {}
    if len(complete) > 1 and len(seeds) > 1:
        table = np.array([[samples[i].maps[s] for s in seeds] for i in (best, *complete)])
        means = table.mean(1)
        residual = table - means[:, None] - table.mean(0) + table.mean()
        freedom = len(complete) * (len(seeds) - 1)
        error = math.sqrt(2 * (residual**2).sum() / freedom / len(seeds))
        for j, i in enumerate(complete, 1):
            tests[i] = _t_test(means[0] - means[j], error, freedom)
    for i in others:
        common = sorted(samples[best].maps.keys() & samples[i].maps.keys())
        differences = [samples[best].maps[s] - samples[i].maps[s] for s in common]
        if i not in tests and (p := paired_test(differences)) is not None:
            tests[i] = p
    return tests


def _query_test(one: Sample, two: Sample) -> float | None:
    seeds = sorted(one.queries.keys() & two.queries.keys())
    if not seeds or one.split != two.split:
        return None
    if len({len(sample.queries[seed]) for sample in (one, two) for seed in seeds}) > 1:
        return None
    means = [np.mean([sample.queries[seed] for seed in seeds], axis=0) for sample in (one, two)]
    return paired_test(means[0] - means[1])


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Average ranks over datasets, best first.

    Attributes:
        ranks: method → average rank, 1 is best.
        datasets: their number N.
        difference: the critical difference.
        p: of Friedman's test that all rank alike, or None for two methods.
        groups: largest sets of methods, by name, that are not distinguishable.
    """

    ranks: Mapping[str, float]
    datasets: int
    difference: float
    p: float | None
    groups: Sequence[tuple[str, ...]]


def ranking(scores: Mapping[str, Mapping[str, float]]) -> Ranking | None:
    """Return the ranking of dataset → method → score (higher is better).

    Only methods that every dataset has are ranked; None for fewer than two of them or of datasets.
    """
    if len(scores) < 2:
        return None
    names = sorted(set.intersection(*(set(row) for row in scores.values())))
    if len(names) < 2:
        return None
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    table = np.array([[row[name] for name in names] for row in scores.values()])
    average = np.stack([rankdata(-row) for row in table]).mean(0)
    k, n = len(names), len(scores)
    quantile = float(studentized_range.ppf(1 - LEVEL, k, 10_000)) / math.sqrt(2)
    difference = quantile * math.sqrt(k * (k + 1) / (6 * n))
    varies = k > 2 and bool((table != table[:, :1]).any())
    p = float(friedmanchisquare(*table.T).pvalue) if varies else None
    order = sorted(range(k), key=lambda i: average[i])
    ranks = {names[i]: float(average[i]) for i in order}
    return Ranking(ranks, n, difference, p, _groups(ranks, difference))


def _groups(ranks: Mapping[str, float], difference: float) -> list[tuple[str, ...]]:
    names = list(ranks)
    groups: list[tuple[str, ...]] = []
    for start, name in enumerate(names):
        group = tuple(n for n in names[start:] if ranks[n] - ranks[name] < difference)
        if len(group) > 1 and not any(set(group) <= set(g) for g in groups):
            groups.append(group)
    return groups
