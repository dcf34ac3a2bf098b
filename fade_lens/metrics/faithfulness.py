"""Faithfulness: a pure function of ratings by steering factor and prompt, and what is counted from such a table.

The best of several factors is chosen on other prompts than those at which it is measured: see `faithfulness`.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens._util.errors import InputError
from fade_lens._util.reasons import Reason
from fade_lens.metrics.intervals import PSEUDO, REPLICATES, percentiles
from fade_lens.metrics.labelled import RATINGS, UNRATED, check_ratings
from fade_lens.metrics.metric import Arithmetic, Metric, around, check_arithmetic

NOT_ASKED = -2
"""Of a continuation at which the judge was not asked, for the factor is not the one that is measured."""
SPLITS = 100
"""Random halvings of the prompts over which Faithfulness is averaged."""
OTHERS = 0.9
"""How sure it is that a steering factor which did not look best is not better than the upper limit of Faithfulness."""
MIN_PROMPTS = 10
"""Fewer prompts than this give a Faithfulness without an interval."""


def faithfulness(
    ratings: Mapping[float, Int[np.ndarray, "_"]],
    *,
    arithmetic: Arithmetic = "default",
    seed: int = 0,
) -> Metric:
    """Does steering the feature make the model write the concept?

    Faithfulness = max(R_f − R_0, 0) / (1 − R_0), R_f the share of continuations rated 2 at steering factor f.

    The reference takes the largest R_f of all factors, which is biased up: the largest of several noisy shares. Here the factor is
    chosen on one half of the prompts (the smallest of the best) and measured on the other, both ways, averaged over `SPLITS`
    random halvings. The difference to the baseline is taken prompt by prompt; only the final mean is clipped at 0, since clipping
    each half would bring back the bias. `details["signed"]` is the mean before clipping: 0 on average for a feature without
    effect, and a little below the truth where several factors are about as good, or where rating stopped because the interval was
    narrow. `details["maximum"]` is the reference's value on the prompts that are rated at every factor, `details["factor_share"]` the share of
    prompts that are measured at `details["factor"]`, mean over the halvings.

    `ratings` holds, for each factor, the ratings of the continuations of the same prompts in the same order; factor 0 is the
    unsteered model. Unrated (−1) continuations count as not expressing the concept; in `"paper"`, which takes the maximum over
    all factors, they leave the denominator.

    Not every factor needs all prompts: the rows may end after the first few, at which all factors are rated, but for those of
    factor 0 and of the factor that is best there (`leading`). Which one that is was then chosen without the later prompts, so these
    need no halving: they are measured at it, and only the first few are cross-fitted.

    The interval's lower limit comes from the held-out table of (baseline, steered) outcomes, its upper limit from the same table of the factor
    that is best on all prompts at which all are rated: the first errs low, for it may hold a worse factor, the second errs high. Another factor
    may be the best in truth, so the upper limit is no lower than the `OTHERS` quantile of any. Below `MIN_PROMPTS` prompts there is none.
    Limits are clipped at 0 like the value.

    Undefined without a steered factor, with fewer than 2 prompts, without any rating at factor 0 or at the others, and where every
    baseline continuation expresses the concept (1 − R_0 = 0).

    >>> faithfulness({0.0: np.array([0, 0, 0, 0]), 2.0: np.array([2, 2, 2, 0])}).value
    0.75
    """
    check_arithmetic(arithmetic)
    factors, table = table_of(ratings)
    common = common_prompts(factors, table, arithmetic)
    n = table.shape[1]
    counts = {"prompts": n}
    for factor, row in zip(factors, table, strict=True):
        counts |= {f"{name}_{factor:g}": int((row == rating).sum()) for name, rating in RATINGS}
    if reason := unsteerable(factors, table[:, :common]):
        return Metric(None, reason, counts=counts)
    expressed = table == 2
    out_of = (table != NOT_ASKED) & ((table != UNRATED) | (arithmetic != "paper"))
    rates = expressed.sum(axis=1) / np.maximum(out_of.sum(axis=1), 1)
    if rates[0] == 1:
        reason = Reason(
            "saturated", "every continuation of the unsteered model already expresses the concept (1 - R_0 = 0)"
        )
        return Metric(None, reason, counts=counts, details={"rate_0": 1.0})

    shared = expressed[:, :common].sum(axis=1) / np.maximum(out_of[:, :common].sum(axis=1), 1)
    maximum = max(float((shared.max() - shared[0]) / (1 - shared[0])), 0.0) if shared[0] < 1 else 0.0
    first, later = expressed[:, :common], expressed[:, common:]
    best = 1 + int(np.argmax(rates[1:])) if arithmetic == "paper" else best_factor(table[:, :common])
    rng = np.random.default_rng(seed)
    chosen = cross_fit(first, rng)
    held_out = outcomes(first[0], np.take_along_axis(first, chosen, axis=0)) + outcomes(later[0], later[best][None])
    signed = float(lift(held_out[None])[0])
    picks = np.bincount(chosen.ravel(), minlength=len(factors)) / SPLITS
    picks[best] += n - common
    picks /= n
    choice = best if arithmetic == "paper" or common < n else int(np.argmax(picks))
    value = maximum if arithmetic == "paper" else max(signed, 0.0)
    details: dict[str, float | None] = {
        "signed": signed,
        "maximum": maximum,
        "factor": float(factors[choice]),
        "factor_share": float(picks[choice]),
        "rate_0": float(rates[0]),
        "rate_factor": float(rates[choice]),
    }
    if n < MIN_PROMPTS:
        few = f"{n} prompts; an interval needs at least {MIN_PROMPTS}"
        return Metric(value, None, None, counts, details, few)
    low, _ = percentiles(lift(rng.dirichlet(held_out + PSEUDO / 4, REPLICATES)))
    in_sample = outcomes(expressed[0], expressed[best][None])
    _, high = percentiles(lift(rng.dirichlet(in_sample + PSEUDO / 4, REPLICATES)))
    for row in np.delete(first[1:], best - 1, axis=0):
        other = outcomes(first[0], row[None])
        high = max(high, float(np.quantile(lift(rng.dirichlet(other + PSEUDO / 4, REPLICATES)), OTHERS)))
    return Metric(value, None, around(value, (max(low, 0.0), max(high, 0.0))), counts, details)


def outcomes(
    unsteered: Bool[np.ndarray, "prompt"], steered: Bool[np.ndarray, "split prompt"]
) -> Float[np.ndarray, "outcome"]:
    """Prompts whose continuation expresses the concept (both times, only steered, only unsteered, never), mean over splits."""
    cells = (steered & unsteered, steered & ~unsteered, ~steered & unsteered, ~steered & ~unsteered)
    return np.array([cell.mean(axis=0).sum() for cell in cells])


def lift(outcomes: Float[np.ndarray, "replicate outcome"]) -> Float[np.ndarray, "replicate"]:
    """(R_f − R_0) / (1 − R_0) from `outcomes`."""
    _, steered, unsteered, never = outcomes.T
    return (steered - unsteered) / (steered + never)


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
    factors: Float[np.ndarray, "factor"], table: Int[np.ndarray, "factor prompt"], arithmetic: str = "default"
) -> int:
    """How many of the first prompts are rated at every factor; the rest must be rated at 0 and the best factor, and nowhere else.

    Raises:
        InputError: otherwise, or where the arithmetic needs all factors at all prompts.
    """
    lengths = (table != NOT_ASKED).sum(axis=1)
    common, n = int(lengths.min()), table.shape[1]
    if common < n:
        measured = {0, best_factor(table[:, :common])}
        if arithmetic == "paper" or any(length != (n if f in measured else common) for f, length in enumerate(lengths)):
            by_factor = {f"{factor:g}": int(length) for factor, length in zip(factors, lengths, strict=True)}
            raise InputError(
                f"ratings has different numbers of prompts by factor: {by_factor}; give each factor the same prompts, -1 where "
                "unrated, or (not in arithmetic 'paper') more of them to factor 0 and to that which is best on the prompts of all"
            )
    return common


def table_of(
    ratings: Mapping[float, Int[np.ndarray, "_"]],
) -> tuple[Float[np.ndarray, "factor"], Int[np.ndarray, "factor prompt"]]:
    """Factors from the smallest magnitude up (positive first), and their ratings, NOT_ASKED where a row has ended."""
    factors = sorted(ratings, key=lambda factor: (abs(factor), -factor))
    if not factors or factors[0] != 0:
        raise InputError(f"ratings has factors {factors}; factor 0, the unsteered model, must be one of them")
    table = np.full((len(factors), max(map(len, ratings.values()))), NOT_ASKED)
    for row, factor in zip(table, factors, strict=True):
        check_ratings(f"ratings[{factor:g}]", ratings[factor])
        row[: len(ratings[factor])] = ratings[factor]
    return np.array(factors, dtype=np.float64), table


def unsteerable(factors: Float[np.ndarray, "factor"], table: Int[np.ndarray, "factor prompt"]) -> Reason | None:
    """Why Faithfulness cannot be computed of a table, or None."""
    rated = (table != UNRATED).any(axis=1)
    if len(factors) < 2:
        return Reason("no_factors", "no steering factor other than 0")
    if table.shape[1] < 2:
        return Reason("few_prompts", f"{table.shape[1]} prompt: choosing the factor and measuring it need at least 2")
    if not rated[0]:
        return Reason("unrated", "no continuation of the unsteered model is rated")
    if not rated[1:].any():
        return Reason("unrated", "no steered continuation is rated")
    return None
