"""Brute force: every order of tied rows, one after the other, in plain Python."""

import itertools
import math
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


def band(distances, relevant, cut, denominator):
    """Mean, least and greatest AP@cut over all orders."""
    values = [ap_at(ranked, cut, denominator) for ranked in orders(distances, relevant)]
    return float(sum(values) / len(values)), float(min(values)), float(max(values))


def expected_found(distances, relevant, rank):
    """Expected number of relevant rows at ranks 1..rank."""
    values = [sum(ranked[:rank]) for ranked in orders(distances, relevant)]
    return sum(values) / len(values)


def expected_ndcg(distances, relevant, cut):
    """Expected NDCG@cut with binary gain."""

    def dcg(ranked):
        return sum(hit / math.log2(rank + 1) for rank, hit in enumerate(ranked[:cut], start=1))

    ideal = dcg(sorted(relevant, reverse=True))
    values = [dcg(ranked) for ranked in orders(distances, relevant)]
    return sum(values) / len(values) / ideal if ideal else 0.0


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
