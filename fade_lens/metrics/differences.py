"""Means over features and differences of them: intervals, tests of the same quantity, and how many features would settle a difference.

An interval resamples features; the test of a difference permutes them. Both are about the mean, so that they seldom contradict each other.

Features that were drawn with unequal probabilities have weights, 1 / probability, up to a factor: how many features each stands for. A mean
is then weighted (Hájek 1971), a bootstrap resamples features of equal weight among themselves, for they were drawn from one stratum.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fade_lens.metrics.intervals import LEVEL, NORMAL, REPLICATES

Limits = tuple[float, float] | tuple[None, None]
Weights = Float[np.ndarray, "_"]
"""How many features each stands for, up to a factor."""

LEAST_FEATURES = 5
"""Fewer features than this give a mean without an interval, and a difference without a test."""
PERMUTATIONS = 2**13
"""All permutations are gone through where there are no more than this; else as many are drawn."""
CHUNK = 2**20
"""Numbers of permutations in memory at a time."""
DRAWN = 2**24
"""Numbers of a bootstrap in memory at a time."""
MANY = 2**14
"""Of more features than this a bootstrap draws places one by one, ten times as fast as their counts at a hundred thousand."""
MOST_FURTHER = 10**9
POWER = 0.8416212335729143
"""Deviations of a normal distribution below which 80 % of it lies."""


def mean_interval(values: Sequence[tuple[Any, float]], seed: int, weights: Mapping[Any, float] | None = None) -> Limits:
    """95 % interval of the mean of `(cluster, value)` pairs by resampling clusters; None below `LEAST_FEATURES` clusters.

    Args:
        values: of each cluster one or several.
        seed: of the bootstrap.
        weights: of clusters; 1 of those that are not in it.
    """
    number = {cluster: place for place, cluster in enumerate(dict.fromkeys(cluster for cluster, _ in values))}
    if len(number) < LEAST_FEATURES:
        return None, None
    weight = np.array([(weights or {}).get(cluster, 1.0) for cluster in number])
    cluster = np.array([number[cluster] for cluster, _ in values])
    counts = weight * np.bincount(cluster)
    sums = weight * np.bincount(cluster, [value for _, value in values])
    above, below = resampled(weight, np.random.default_rng(seed), sums, counts)
    return widened(above / below, weight)


def difference_interval(
    a: Float[np.ndarray, " feature_a"],
    b: Float[np.ndarray, " feature_b"],
    seed: int,
    weights: tuple[Weights, Weights] | None = None,
) -> Limits:
    """95 % interval of the mean of `a` minus that of `b`, each resampled by itself; None below `LEAST_FEATURES` of either."""
    if min(len(a), len(b)) < LEAST_FEATURES:
        return None, None
    random, (of_a, of_b) = np.random.default_rng(seed), weights or (np.ones(len(a)), np.ones(len(b)))
    means = [above / below for x, w in ((a, of_a), (b, of_b)) for above, below in [resampled(w, random, w * x, w)]]
    return widened(means[0] - means[1], of_a, of_b)


def strata(weights: Weights) -> Int[np.ndarray, "_"]:
    """The number of each feature's stratum: those of equal weight are of one. A feature that is alone joins the stratum of the next weight.

    >>> strata(np.array([9.0, 1.0, 3.0, 9.0, 3.0])).tolist()
    [1, 0, 0, 1, 0]
    """
    levels, counts = np.unique(weights.round(9), return_counts=True)
    return np.searchsorted(levels[counts > 1][:-1], weights.round(9))


def resampled(
    weights: Weights, random: np.random.Generator, *columns: Float[np.ndarray, " feature"]
) -> Float[np.ndarray, "column replicate"]:
    """The sum of each column over the features of each replicate, of which every stratum has as many features as it has."""
    stratum, sums = strata(weights), np.zeros((len(columns), REPLICATES))
    for own in (stratum == h for h in range(stratum.max() + 1)):
        n, some = int(own.sum()), [column[own] for column in columns]
        at_once = max(1, DRAWN // n)
        for start in range(0, REPLICATES, at_once):
            drawn = how_often(n, min(at_once, REPLICATES - start), random)
            for total, column in zip(sums, some, strict=True):
                total[start : start + at_once] += drawn @ column
    return sums


def how_often(n: int, replicates: int, random: np.random.Generator) -> Int[np.ndarray, "replicate feature"]:
    """How often each of n features is among n that are drawn with replacement."""
    if n <= MANY:
        return random.multinomial(n, np.full(n, 1 / n), replicates)
    return np.stack([np.bincount(random.integers(n, size=n), minlength=n) for _ in range(replicates)])


def widened(replicates: Float[np.ndarray, " replicate"], *weights: Weights) -> tuple[float, float]:
    """Percentiles of a bootstrap, widened for few features: by what a t interval is wider than a normal one, and by what resampling n of n varies too little."""
    tail = min(_tail(some) for some in weights)
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)


def _tail(weights: Weights) -> float:
    """The share of replicates beyond either limit, as if all strata were equally varied (Satterthwaite's degrees of freedom)."""
    from scipy.stats import norm, t

    stratum = strata(weights)
    n = np.bincount(stratum)
    variance = np.bincount(stratum, weights) ** 2 / n
    freedom = variance.sum() ** 2 / (variance**2 / (n - 1)).sum()
    shown = 1 - (variance / n).sum() / variance.sum()
    return float(norm.cdf(t.ppf((1 - LEVEL) / 2, freedom) / np.sqrt(shown)))


def deviation(values: Float[np.ndarray, " feature"], weights: Weights) -> float:
    """The root of n times the variance of the weighted mean of n features: without weights their standard deviation. NaN of fewer than two.

    >>> values = np.array([1.0, 2.0, 4.0])
    >>> round(deviation(values, np.ones(3)), 6), round(float(np.std(values, ddof=1)), 6)
    (1.527525, 1.527525)
    """
    if len(values) < 2:
        return math.nan
    stratum = strata(weights)
    n = np.bincount(stratum)
    share = weights * (values - np.average(values, weights=weights)) / weights.sum()
    left = share - (np.bincount(stratum, share) / n)[stratum]
    return math.sqrt(len(values) * float((n / np.maximum(n - 1, 1) * np.bincount(stratum, left**2)).sum()))


def sign_flip_test(differences: Float[np.ndarray, " feature"], seed: int) -> float | None:
    """Two-sided p-value of paired differences: how often the mean is as far from 0 if each has its sign by chance (Fisher 1935).

    Exact for up to 13 features that differ, else from `PERMUTATIONS` drawn with `seed`. None below `LEAST_FEATURES` features; 1 where none differs.
    Of features with weights, give the differences times their weights.

    >>> sign_flip_test(np.array([0.1, 0.2, 0.3, 0.2, 0.1]), 0)
    0.0625
    """
    if len(differences) < LEAST_FEATURES:
        return None
    n = len(differing := differences[differences != 0])

    def exactly(some: Int[np.ndarray, " flip"]) -> Float[np.ndarray, " flip"]:
        return (1 - 2 * ((some[:, None] >> np.arange(n)) & 1)) @ differing

    def drawn(size: int, random: np.random.Generator) -> Float[np.ndarray, " flip"]:
        return (1 - 2 * random.integers(0, 2, (size, n), dtype=np.int8)) @ differing

    if 2**n <= PERMUTATIONS:
        return _share(exactly(np.arange(2**n)), float(differing.sum()))
    return _sampled(drawn, n, float(differing.sum()), seed)


def label_test(
    a: Float[np.ndarray, " feature_a"],
    b: Float[np.ndarray, " feature_b"],
    seed: int,
    weights: tuple[Weights, Weights] | None = None,
) -> float | None:
    """Two-sided p-value of a difference of means: how often it is as far from 0 if chance deals the features to the two groups.

    Exact where the ways of dealing are few, else from `PERMUTATIONS` drawn with `seed`. None below `LEAST_FEATURES` of either; 1 where all
    are equal. A feature's weight goes with it.

    >>> label_test(np.arange(5.0), np.arange(5.0) + 10, 0) == 2 / 252
    True
    """
    if min(len(a), len(b)) < LEAST_FEATURES:
        return None
    of_a, of_b = weights or (np.ones(len(a)), np.ones(len(b)))
    # The groups' weights may be on scales of their own.
    (few, own), (many, others) = sorted(((a, of_a / of_a.mean()), (b, of_b / of_b.mean())), key=lambda one: len(one[0]))
    pool, weight, n = np.concatenate([few, many]), np.concatenate([own, others]), len(few) + len(many)
    # So that the smaller group's sums alone tell the difference of means.
    pool = weight * (pool - np.average(pool, weights=weight))

    def dealt(some: Int[np.ndarray, "deal feature"]) -> Float[np.ndarray, " deal"]:
        mass = weight[some].sum(axis=1)
        return pool[some].sum(axis=1) / (mass * (weight.sum() - mass))

    def drawn(size: int, random: np.random.Generator) -> Float[np.ndarray, " deal"]:
        return dealt(random.random((size, n), dtype=np.float32).argpartition(len(few), axis=1)[:, : len(few)])

    seen = float(dealt(np.arange(len(few))[None])[0])
    if math.comb(n, len(few)) <= PERMUTATIONS:
        return _share(dealt(np.array(list(combinations(range(n), len(few))))), seen)
    return _sampled(drawn, n, seen, seed)


def _sampled(draw: Callable[[int, np.random.Generator], Any], n: int, seen: float, seed: int) -> float:
    """The p-value from `PERMUTATIONS` that are drawn; what was seen is one of them."""
    random, at_once = np.random.default_rng(seed), max(1, CHUNK // n)
    sizes = [min(at_once, PERMUTATIONS - start) for start in range(0, PERMUTATIONS, at_once)]
    return _share(np.concatenate([[seen], *(draw(size, random) for size in sizes)]), seen)


def _share(sums: Float[np.ndarray, " permutation"], seen: float) -> float:
    """The share of sums that are as far from 0 as the one seen, up to rounding."""
    return float((np.abs(sums) >= abs(seen) - 1e-9 * np.abs(sums).max(initial=0.0)).mean())


def further_to_settle(difference: float, deviation: float, n: int) -> int | None:
    """About how many features, beside the `n` seen, would tell the difference from 0, if it is as large as it was seen to be.

    So many that an interval leaves 0 out with a probability of 80 %: n = ((1.96 + 0.84) · deviation / difference)². A small difference may
    be chance altogether: then no number settles it.

    Args:
        difference: of the means.
        deviation: of one feature's share in it (see `deviation`): of paired differences, or the root of both groups' summed squares.
        n: features compared, or in each group.

    Returns:
        How many more, of each group; 0: enough already. None where the difference is 0 or the deviation is not known, and where more than
        `MOST_FURTHER` would be needed: such a difference is one of rounding.

    >>> further_to_settle(0.1, 0.4, 50)
    76
    """
    if not difference or not math.isfinite(difference) or not math.isfinite(deviation):
        return None
    ratio = (NORMAL + POWER) * deviation / difference
    needed = ratio * ratio - n
    return max(0, math.ceil(needed)) if needed <= MOST_FURTHER else None
