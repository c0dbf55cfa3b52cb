"""Brute force: every order of tied rows, one after the other, in plain Python."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np


def orders(distances, relevant):
    """Yield the relevance in ranked order for every permutation of every group of tied rows."""
    groups = [
        [bool(r) for d, r in zip(distances, relevant, strict=True) if d == level]
        for level in sorted(set(distances))
    ]
    for arrangement in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [hit for group in arrangement for hit in group]


def ap_at(ranked, cut, denominator):
    """AP@cut of one order, straight from its definition."""
    hits, total = 0, Fraction(0)
    for rank, hit in enumerate(ranked[:cut], start=1):
        if hit:
            hits += 1
            total += Fraction(hits, rank)
    divisor = {
        "retrieved": hits,
        "min": min(sum(ranked), cut),
        "total": sum(ranked),
    }[denominator]
    return total / divisor if divisor else Fraction(0)


def over_orders(distances, relevant, value):
    """Mean, least and greatest ``value(ranked)`` over all orders; exact if the values are."""
    times = Counter(tuple(ranked) for ranked in orders(distances, relevant))
    values = {ranked: value(ranked) for ranked in times}
    mean = sum(n * values[ranked] for ranked, n in times.items()) / times.total()
    return mean, min(values.values()), max(values.values())


def first_k(ranked, k):
    """AP over the first k relevant rows, wherever they rank."""
    ranks = [rank for rank, hit in enumerate(ranked, start=1) if hit][:k]
    total = sum((Fraction(j, rank) for j, rank in enumerate(ranks, start=1)), Fraction(0))
    return total / len(ranks) if ranks else Fraction(0)


def dcg(ranked, cut):
    """Gain 1 per relevant row, discounted by log2(1 + rank)."""
    return math.fsum(hit / math.log2(rank + 1) for rank, hit in enumerate(ranked[:cut], start=1))


def distance_rows(query_codes, database_codes):
    """(K - a·b)/2 of all pairs, exact, summed bit by bit."""
    rows = database_codes.tolist()
    return [
        [sum(Fraction(1 - a * b, 2) for a, b in zip(query, row, strict=True)) for row in rows]
        for query in query_codes.tolist()
    ]


def relevant_rows(query_labels, database_labels):
    """Who shares a label, or has the same class number."""
    if query_labels.ndim == 1:
        return [[bool(a == b) for b in database_labels] for a in query_labels]
    rows = database_labels.tolist()
    return [
        [any(a and b for a, b in zip(query, row, strict=True)) for row in rows]
        for query in query_labels.tolist()
    ]


def band(distances, relevant, cut, denominator):
    """Mean, least and greatest AP@cut over all orders."""
    values = over_orders(distances, relevant, lambda ranked: ap_at(ranked, cut, denominator))
    return tuple(float(value) for value in values)


def expected_found(distances, relevant, rank):
    """Expected number of relevant rows at ranks 1..rank."""
    return float(over_orders(distances, relevant, lambda ranked: Fraction(sum(ranked[:rank])))[0])


def expected_ndcg(distances, relevant, cut):
    """Expected NDCG@cut with binary gain."""
    ideal = dcg(sorted(relevant, reverse=True), cut)
    mean = over_orders(distances, relevant, lambda ranked: dcg(ranked, cut))[0]
    return mean / ideal if ideal else 0.0


def small_case(rng, bits=3, rows=6, classes=2):
    """Random codes and class numbers with many ties: (query codes, labels, database ...)."""
    sides = []
    for n in (1, rows):
        codes = rng.choice(np.array([-1, 1], np.int8), (n, bits))
        sides += [codes, rng.integers(0, classes, n)]
    return sides


def distances_of(query_codes, query_labels, database_codes, database_labels):
    """Distances and relevance of the first query by comparing bit by bit."""
    distances = [int((query_codes[0] != row).sum()) for row in database_codes]
    relevant = [bool(label == query_labels[0]) for label in database_labels]
    return distances, relevant
