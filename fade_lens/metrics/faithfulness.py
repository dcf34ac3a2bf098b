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

    Faithfulness = max(R_f − R_0, 0) / (1 − R_0), R_f the share of continuations rated 2 at steering factor f (FADE).

    The reference takes the largest R_f of all factors. That is biased up: it is the largest of several noisy shares. Here the
    factor is chosen on one half of the prompts (the smallest of the best) and measured on the other half. This is done both ways
    and averaged over `SPLITS` random halvings. The difference to the baseline is taken prompt by prompt. Only the final mean is
    clipped at 0, since clipping each half would bring back the bias.

    Not every factor needs all prompts. All factors are rated at the first prompts; the later ones may be rated at factor 0 and at
    the factor that is best on the first (`leading`) alone. That factor was chosen without the later prompts, so they need no
    halving: only the first prompts are cross-fitted.

    The interval's lower limit comes from the held-out table of (baseline, steered) outcomes. It errs low, for it may hold a worse
    factor. The upper limit comes from the same table of the factor that is best on the prompts at which all are rated. It errs
    high. As another factor may be the best in truth, the upper limit is no lower than the `OTHERS` quantile of any. Limits are
    clipped at 0 like the value.

    Args:
        ratings: for each factor the ratings (2, 1, 0, or −1 unrated) of the continuations of the same prompts in the same order;
            factor 0 is the unsteered model. An unrated continuation counts as not expressing the concept.
        arithmetic: "paper" takes the maximum over all factors, and leaves unrated continuations out of the denominator.
        seed: of halvings and interval.

    Returns:
        A value in [0, 1], with an interval from `MIN_PROMPTS` prompts on. Undefined without a steered factor, with fewer than 2
        prompts, without any rating at factor 0 or at the others, and where every continuation of the unsteered model expresses
        the concept (1 − R_0 = 0). `details` are:

        - signed: the mean before clipping. It is 0 on average for a feature without effect. It is a little below the truth where
          several factors are about as good, or where rating stopped because the interval was narrow;
        - maximum: the reference's value on the prompts that are rated at every factor;
        - factor: the factor at which most prompts are measured, and factor_share: the share of these prompts, mean over halvings;
        - rate_0, rate_factor: R at factor 0 and at that factor.

    Raises:
        InputError: an unknown arithmetic, no factor 0, a rating that is none, numbers of prompts that do not go together.

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
    """How many prompts' continuations express the concept both times, only steered, only unsteered, never; mean over splits.

    >>> outcomes(np.array([True, False, False]), np.array([[True, True, False]])).tolist()
    [1.0, 1.0, 0.0, 1.0]
    """
    cells = (steered & unsteered, steered & ~unsteered, ~steered & unsteered, ~steered & ~unsteered)
    return np.array([cell.mean(axis=0).sum() for cell in cells])


def lift(outcomes: Float[np.ndarray, "replicate outcome"]) -> Float[np.ndarray, "replicate"]:
    """(R_f − R_0) / (1 − R_0) from `outcomes`; NaN where every continuation of the unsteered model expresses the concept.

    >>> lift(np.array([[1.0, 1.0, 0.0, 1.0]])).tolist()
    [0.5]
    """
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

    Args:
        ratings: as in `faithfulness`.

    Returns:
        Of several that are best the smallest in magnitude; 0 without a steered factor.

    Raises:
        InputError: as `faithfulness`.

    >>> leading({0.0: np.array([0, 0, 0]), 1.0: np.array([0, 2, 0]), 2.0: np.array([2, 2, 0])})
    2.0
    """
    factors, table = table_of(ratings)
    if len(factors) < 2:
        return 0.0
    return float(factors[best_factor(table[:, : common_prompts(factors, table)])])


def best_factor(table: Int[np.ndarray, "factor prompt"]) -> int:
    """The row of the steered factor with the most continuations rated 2; of several the first.

    >>> best_factor(np.array([[0, 0], [0, 2], [2, 2]]))
    2
    """
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
    """Factors from the smallest magnitude up (positive first), and their ratings, NOT_ASKED where a row has ended.

    Raises:
        InputError: no factor 0, or a rating that is none.
    """
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
