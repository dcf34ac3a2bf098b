"""Means over features and differences of them: intervals, tests of the same quantity, and how many features would settle a difference.

An interval resamples features; the test of a difference permutes them. Both are about the mean, so that they seldom contradict each other.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fade_lens.metrics.intervals import LEVEL, NORMAL, REPLICATES

Limits = tuple[float, float] | tuple[None, None]

LEAST_FEATURES = 5
"""Fewer features than this give a mean without an interval, and a difference without a test."""
PERMUTATIONS = 2**13
"""All permutations are gone through where there are no more than this; else as many are drawn."""
CHUNK = 2**20
"""Numbers of permutations in memory at a time."""
POWER = 0.8416212335729143
"""Deviations of a normal distribution below which 80 % of it lies."""


def mean_interval(values: Sequence[tuple[Any, float]], seed: int) -> Limits:
    """95 % interval of the mean of `(cluster, value)` pairs by resampling clusters; None below `LEAST_FEATURES` clusters."""
    number = {cluster: place for place, cluster in enumerate(dict.fromkeys(cluster for cluster, _ in values))}
    n = len(number)
    if n < LEAST_FEATURES:
        return None, None
    cluster = np.array([number[cluster] for cluster, _ in values])
    counts = np.bincount(cluster).astype(np.float64)
    sums = np.bincount(cluster, [value for _, value in values])
    drawn = resampled(n, np.random.default_rng(seed))
    return widened((drawn @ sums) / (drawn @ counts), n)


def difference_interval(a: Float[np.ndarray, " feature_a"], b: Float[np.ndarray, " feature_b"], seed: int) -> Limits:
    """95 % interval of the mean of `a` minus that of `b`, each resampled by itself; None below `LEAST_FEATURES` of either."""
    least = min(len(a), len(b))
    if least < LEAST_FEATURES:
        return None, None
    random = np.random.default_rng(seed)
    return widened(resampled(len(a), random) @ a / len(a) - resampled(len(b), random) @ b / len(b), least)


def resampled(n: int, random: np.random.Generator) -> Int[np.ndarray, "replicate feature"]:
    """How often each of `n` features is in each replicate."""
    return random.multinomial(n, np.full(n, 1 / n), REPLICATES)


def widened(replicates: Float[np.ndarray, " replicate"], n: int) -> tuple[float, float]:
    """Percentiles of a bootstrap, which are too narrow for few clusters, by what a t interval is wider than a normal one."""
    from scipy.stats import norm, t

    tail = norm.cdf(np.sqrt(n / (n - 1)) * t.ppf((1 - LEVEL) / 2, n - 1))
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)


def sign_flip_test(differences: Float[np.ndarray, " feature"], seed: int) -> float | None:
    """Two-sided p-value of paired differences: how often the mean is as far from 0 if each has its sign by chance (Fisher 1935).

    Exact for up to 13 features that differ, else from `PERMUTATIONS` drawn with `seed`. None below `LEAST_FEATURES` features; 1 where none differs.

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


def label_test(a: Float[np.ndarray, " feature_a"], b: Float[np.ndarray, " feature_b"], seed: int) -> float | None:
    """Two-sided p-value of a difference of means: how often it is as far from 0 if chance deals the features to the two groups.

    Exact where the ways of dealing are few, else from `PERMUTATIONS` drawn with `seed`. None below `LEAST_FEATURES` of either; 1 where all
    are equal.

    >>> label_test(np.arange(5.0), np.arange(5.0) + 10, 0) == 2 / 252
    True
    """
    if min(len(a), len(b)) < LEAST_FEATURES:
        return None
    few, many = sorted((a, b), key=len)
    pool, n = np.concatenate([few, many]), len(few) + len(many)
    pool = pool - pool.mean()  # so that the smaller group's sum alone tells the difference of means

    def drawn(size: int, random: np.random.Generator) -> Float[np.ndarray, " deal"]:
        return pool[random.random((size, n), dtype=np.float32).argpartition(len(few), axis=1)[:, : len(few)]].sum(
            axis=1
        )

    if math.comb(n, len(few)) <= PERMUTATIONS:
        return _share(pool[np.array(list(combinations(range(n), len(few))))].sum(axis=1), float(pool[: len(few)].sum()))
    return _sampled(drawn, n, float(pool[: len(few)].sum()), seed)


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
        deviation: of one feature's share in it: the standard deviation of paired differences, or the root of both groups' summed variances.
        n: features compared, or in each group.

    Returns:
        How many more, of each group; 0: enough already. None where the difference is 0 or the deviation is not known.

    >>> further_to_settle(0.1, 0.4, 50)
    76
    """
    if not difference or not math.isfinite(difference) or not math.isfinite(deviation):
        return None
    return max(0, math.ceil(((NORMAL + POWER) * deviation / difference) ** 2) - n)
