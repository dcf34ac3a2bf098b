"""Does more steering show more of the concept? An exact trend test over the steering factors, prompt by prompt."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from fade_lens._util.errors import InputError


class Trend(NamedTuple):
    """How the share of hits changes with the dose.

    Attributes:
        statistic: the sum of the doses' ranks over all hits, standardized; 0 where nothing can vary.
        p: one-sided, for a rise.
    """

    statistic: float
    p: float


def dose_response(doses: Float[np.ndarray, "dose"], expressed: Bool[np.ndarray, "dose prompt"]) -> Trend:
    """Whether the concept shows more often at higher doses than chance allows.

    The Cochran-Armitage trend test (Armitage 1955) with the doses' ranks as scores, stratified by prompt: the same prompts are
    continued at every dose, so under the null hypothesis each prompt's hits fall on its doses in every order alike. The distribution
    of the sum is exact, by convolution over the prompts; nothing is drawn and no sample is too small.

    Args:
        doses: one a row, all distinct, in any order.
        expressed: which continuations show the concept.

    Raises:
        InputError: a dose given twice, or more or fewer rows than doses.

    >>> round(dose_response(np.array([0.0, 1.0, 2.0]), np.array([[False] * 5, [False] * 5, [True] * 5])).p, 6)
    0.004115
    """
    if len(doses) != len(expressed) or len(np.unique(doses)) < len(doses):
        raise InputError(
            f"doses {doses.tolist()} must be distinct, one for each of the {len(expressed)} rows of outcomes"
        )
    n, ranks = len(doses), np.argsort(np.argsort(doses))
    observed = int(ranks @ expressed.sum(axis=1))
    hits = expressed.sum(axis=0)
    ways = _subset_sums(n)
    distribution = np.ones(1)
    for count in hits[(hits > 0) & (hits < n)].tolist():
        distribution = np.convolve(distribution, ways[count] / ways[count].sum())
    # Prompts that show the concept at every dose or at none are the same in every order.
    fixed = int((hits == n).sum()) * int(ranks.sum())
    values = np.arange(len(distribution)) + fixed
    mean = float(values @ distribution)
    spread = float(np.sqrt(((values - mean) ** 2) @ distribution))
    p = min(float(distribution[values >= observed].sum()), 1.0)
    return Trend((observed - mean) / spread if spread > 1e-9 else 0.0, p)


def _subset_sums(n: int) -> Float[np.ndarray, "size sum"]:
    """In how many ways `size` of the ranks 0 to n - 1 have each sum."""
    ways = np.zeros((n + 1, n * (n - 1) // 2 + 1))
    ways[0, 0] = 1
    for rank in range(n):
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    return ways
