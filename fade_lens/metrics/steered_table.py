"""Which continuations express a concept: tables of ratings by steering factor and prompt, and what is counted from them.

The best of several factors is chosen on other prompts than those at which it is measured: see `fade_lens.metrics.fade.faithfulness`.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens._util.errors import InputError

UNRATED = -1
"""The rating of a text that the judge was asked about and did not rate."""
NOT_ASKED = -2
"""Of a continuation at which the judge was not asked, for the factor is not the one that is measured."""
RATINGS = (("rated_2", 2), ("rated_1", 1), ("rated_0", 0), ("unrated", UNRATED))
"""The keys of `Metric.counts` and the rating that each counts."""
SPLITS = 100
"""Random halvings of the prompts over which Faithfulness is averaged."""


def outcomes(
    untouched: Bool[np.ndarray, "prompt"], steered: Bool[np.ndarray, "split prompt"]
) -> Float[np.ndarray, "outcome"]:
    """Prompts whose continuation expresses the concept (both times, only steered, only untouched, never), mean over splits."""
    cells = (steered & untouched, steered & ~untouched, ~steered & untouched, ~steered & ~untouched)
    return np.array([cell.mean(axis=0).sum() for cell in cells])


def lift(outcomes: Float[np.ndarray, "replicate outcome"]) -> Float[np.ndarray, "replicate"]:
    """(R_f − R_0) / (1 − R_0) from `outcomes`."""
    _, steered, untouched, never = outcomes.T
    return (steered - untouched) / (steered + never)


def cross_fit(
    expressed: Bool[np.ndarray, "factor prompt"], rng: np.random.Generator
) -> Int[np.ndarray, "split prompt"]:
    """For each halving and prompt, the steered factor that is best on the half *without* that prompt."""
    n = expressed.shape[1]
    first = rng.permuted(np.tile(np.arange(n) < n // 2, (SPLITS, 1)), axis=1)
    hits = expressed[1:].T.astype(np.float64)
    by_first, by_second = 1 + np.argmax(first @ hits, axis=1), 1 + np.argmax(~first @ hits, axis=1)
    return np.where(first, by_second[:, None], by_first[:, None])


def leading(ratings: Mapping[float, Int[np.ndarray, "_"]]) -> float:
    """The steering factor whose further prompts are worth rating: the best on the prompts at which all factors are rated.

    The smallest of the best in magnitude, as in `faithfulness`, which see for `ratings`; without a steered factor, 0.

    >>> leading({0.0: np.array([0, 0, 0]), 1.0: np.array([0, 2, 0]), 2.0: np.array([2, 2, 0])})
    2.0
    """
    factors, table = table_of(ratings)
    if len(factors) < 2:
        return 0.0
    return float(factors[best_factor(table[:, : common_prompts(factors, table)])])


def best_factor(table: Int[np.ndarray, "factor prompt"]) -> int:
    """The row of the steered factor with the most hits, the first of the best."""
    return 1 + int(np.argmax((table[1:] == 2).sum(axis=1)))


def common_prompts(
    factors: Float[np.ndarray, "factor"], table: Int[np.ndarray, "factor prompt"], preset: str = "default"
) -> int:
    """How many of the first prompts are rated at every factor; the rest must be rated at 0 and the best factor, and nowhere else.

    Raises:
        InputError: otherwise, or where a preset needs all factors at all prompts.
    """
    lengths = (table != NOT_ASKED).sum(axis=1)
    common, n = int(lengths.min()), table.shape[1]
    if common < n:
        measured = {0, best_factor(table[:, :common])}
        if preset == "paper" or any(length != (n if f in measured else common) for f, length in enumerate(lengths)):
            by_factor = {f"{factor:g}": int(length) for factor, length in zip(factors, lengths, strict=True)}
            raise InputError(
                f"ratings has different numbers of prompts by factor: {by_factor}; give each factor the same prompts, -1 where "
                "unrated, or (not in preset 'paper') more of them to factor 0 and to that which is best on the prompts of all"
            )
    return common


def table_of(
    ratings: Mapping[float, Int[np.ndarray, "_"]],
) -> tuple[Float[np.ndarray, "factor"], Int[np.ndarray, "factor prompt"]]:
    """Factors from the smallest magnitude up (positive first), and their ratings, NOT_ASKED where a row has ended."""
    factors = sorted(ratings, key=lambda factor: (abs(factor), -factor))
    if not factors or factors[0] != 0:
        raise InputError(f"ratings has factors {factors}; factor 0, the untouched model, must be one of them")
    table = np.full((len(factors), max(map(len, ratings.values()))), NOT_ASKED)
    for row, factor in zip(table, factors, strict=True):
        check_ratings(f"ratings[{factor:g}]", ratings[factor])
        row[: len(ratings[factor])] = ratings[factor]
    return np.array(factors, dtype=np.float64), table


def unsteerable(factors: Float[np.ndarray, "factor"], table: Int[np.ndarray, "factor prompt"]) -> str | None:
    """Why Faithfulness cannot be computed of a table, or None."""
    rated = (table != UNRATED).any(axis=1)
    if len(factors) < 2:
        return "no steering factor other than 0"
    if table.shape[1] < 2:
        return f"{table.shape[1]} prompt: choosing the factor and measuring it need at least 2"
    if not rated[0]:
        return "no continuation of the untouched model is rated"
    if not rated[1:].any():
        return "no steered continuation is rated"
    return None


def check_ratings(name: str, ratings: Int[np.ndarray, "text"]) -> None:
    """Raise `InputError` for what is no rating."""
    if (unknown := np.setdiff1d(ratings, [UNRATED, 0, 1, 2])).size:
        raise InputError(f"{name} holds {unknown[:5].tolist()}; ratings are 0, 1, 2 or {UNRATED} (unrated)")
