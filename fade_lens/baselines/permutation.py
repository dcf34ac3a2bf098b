"""What each description's scores are worth beside the other descriptions and features of its run: percentiles, p-values, swaps.

The null: descriptions dealt out to the run's features at random. Every pair of a feature and a description that was *not* given to
it is a draw from it, at no judge call. Two descriptions of one feature, and equal texts, are no nulls of each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens._util.brief import Brief
from fade_lens._util.wording import same_words
from fade_lens.baselines.cross_scores import NAMES, CrossScores, cross_scores
from fade_lens.data.descriptions import Description
from fade_lens.scorers.evidence import RatedEvidence

LEAST = 4
"""Fewer different descriptions than this are not compared: a permutation p-value could not fall below 1 / 7 or so."""
MOST = 2000
"""Features that are compared with one another; of more, each is compared within its part of the run."""
SPREAD = 0.05
"""Least spread that scores are standardized by: of scores that hardly differ, small differences would look large."""
SIGNIFICANT = 0.05
"""A description whose own p-value is at most this is called wrong only if it takes part in an exchange."""
MARGIN = 4.0
"""How much better, in spreads of the null, a feature must fit a description that has no place to go to (see `better_rows`)."""
EXCHANGE_MARGIN = 2.0
"""How much better for one that takes part in an exchange; `MARGIN` is asked of all that take part, on average."""
FIT = 0.4
"""Least score (mean of the two kinds of evidence) of a feature that is called the better one."""


@dataclass(frozen=True)
class PermutationTest(Brief):
    """One description beside the others of its run.

    Attributes:
        clarity_percentile: share, in percent, of the other descriptions' Clarity on the same feature that is below this one's, ties
            counting half; so are `responsiveness_percentile` and `purity_percentile`. 50 is chance.
        n_null: how many other descriptions these percentiles rest on.
        statistic: the three scores together, in spreads of the null (see `fit_statistic`).
        p_value: of the pairs of a feature and a description not given to it, this one among them, the share that fits at least as well.
        q_value: the false discovery rate (Benjamini and Hochberg) at which the description counts as fitting.
        better_feature: a feature of the run that the description fits far better (a swap or a wrong label), else None.
        better_statistic: that feature's statistic.
        copied: whether that feature has the same description, which was then copied from it.
        suggested_feature: the feature that the description gets if the run's descriptions are dealt out anew so that all fit best.
        reason: why the values are None.
    """

    clarity_percentile: float | None = None
    responsiveness_percentile: float | None = None
    purity_percentile: float | None = None
    n_null: int = 0
    statistic: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    better_feature: int | None = None
    better_statistic: float | None = None
    copied: bool = False
    suggested_feature: int | None = None
    reason: str | None = None


def compare(cross: CrossScores, descriptions: Sequence[Description]) -> tuple[PermutationTest, ...]:
    """Each description beside the others of its run, in the order of `cross`' columns."""
    null = null_pairs(cross, descriptions)
    if len({same_words(d.text) for d in descriptions}) < LEAST or len(cross.features) < LEAST:
        return (PermutationTest(reason=f"fewer than {LEAST} different descriptions and features to compare"),) * len(
            descriptions
        )
    statistic = fit_statistic(cross)
    rows, columns = cross.own_rows, np.arange(len(descriptions))
    own = statistic[rows, columns]
    p_values = pooled_p_values(own, statistic[null])
    better, suggested = better_rows(cross, statistic, p_values, null)
    # A pair that belongs together after all is no null for the others.
    moved = np.flatnonzero(better >= 0)
    unrelated = null.copy()
    unrelated[better[moved], moved] = False
    p_values = pooled_p_values(own, statistic[unrelated])
    found: list[PermutationTest] = []
    for column, row in enumerate(rows.tolist()):
        others = null[row]
        clear, responsive, pure = (
            percentile(float(matrix[row, column]), matrix[row][others])
            for matrix in (getattr(cross, name) for name in NAMES)
        )
        one = PermutationTest(
            clear, responsive, pure, int(others.sum()), suggested_feature=cross.features[suggested[column]]
        )
        if np.isnan(own[column]):
            found.append(replace(one, suggested_feature=None, reason="none of the three metrics is defined"))
            continue
        other = int(better[column])
        found.append(
            replace(
                one,
                statistic=float(own[column]),
                p_value=float(p_values[column]),
                better_feature=cross.features[other] if other >= 0 else None,
                better_statistic=float(statistic[other, column]) if other >= 0 else None,
                copied=other >= 0 and not null[other, column],
            )
        )
    return with_q_values(found)


def beside_the_others(
    descriptions: Sequence[Description],
    natural: Float[np.ndarray, "text feature"],
    synthetic: Float[np.ndarray, "written feature"],
    written: Sequence[Int[np.ndarray, "_"]],
    rated: Sequence[RatedEvidence],
) -> tuple[CrossScores | None, tuple[PermutationTest, ...]]:
    """Every description beside the others, and the matrices behind it.

    Runs of over `MOST` descriptions are compared `MOST` features at a time, so that time and memory grow with the run and not
    with its square; their matrices are not kept (None).

    Args:
        descriptions: the run's descriptions; their features are the first columns of `natural` and `synthetic`.
        natural: largest activations of the corpus' texts.
        synthetic: those of the written texts; `written` gives the rows of each description's texts.
        rated: what the judge rated for each description.
    """
    features = tuple(dict.fromkeys(d.index for d in descriptions))
    found: dict[int, PermutationTest] = {}
    cross = None
    for start in range(0, len(features), MOST):
        block = slice(start, min(start + MOST, len(features)))
        within = set(features[block])
        chosen = [place for place, d in enumerate(descriptions) if d.index in within]
        some = [descriptions[place] for place in chosen]
        cross = cross_scores(
            natural[:, block],
            synthetic[:, block],
            [written[place] for place in chosen],
            [rated[place] for place in chosen],
            features[block],
            [d.index for d in some],
        )
        found |= dict(zip(chosen, compare(cross, some), strict=True))
    compared = with_q_values([found[place] for place in range(len(descriptions))])
    return (cross if len(features) <= MOST and len(descriptions) <= 2 * MOST else None), compared


def null_pairs(cross: CrossScores, descriptions: Sequence[Description]) -> Bool[np.ndarray, "feature description"]:
    """Which descriptions are nulls of which features: all whose words are not among those given to the feature."""
    words = [same_words(d.text) for d in descriptions]
    number = {text: place for place, text in enumerate(dict.fromkeys(words))}
    columns = np.array([number[text] for text in words])
    null = np.ones((len(cross.features), len(descriptions)), dtype=bool)
    for row, column in zip(cross.own_rows.tolist(), columns.tolist(), strict=True):
        null[row, columns == column] = False
    return null


def fit_statistic(cross: CrossScores) -> Float[np.ndarray, "feature description"]:
    """How well each description fits each feature, in spreads of the null: `combined` of the standardized scores.

    Each score is standardized twice, among the descriptions of the same feature (a dense feature scores with many) and among the
    features of the same description (a vague text scores with many, one found on few texts scores by luck), and the two are averaged. Centre
    and spread are median and scaled median absolute deviation over the whole row or column, so that a few true matches do not
    move them and every pair is treated alike: dealt out at random, a description's own statistic is one of the pool's.
    """
    standard = dict[str, Float[np.ndarray, "feature description"]]()
    for name in NAMES:
        scores = getattr(cross, name).astype(np.float64)
        known = ~np.isnan(scores).all(axis=0)
        if known.any():
            scores[:, known] = (_standardized(scores[:, known], 0) + _standardized(scores[:, known], 1)) / 2
        standard[name] = scores
    return combined(**standard)


def combined(
    clarity: Float[np.ndarray, "feature description"],
    responsiveness: Float[np.ndarray, "feature description"],
    purity: Float[np.ndarray, "feature description"],
) -> Float[np.ndarray, "feature description"]:
    """Mean of two kinds of evidence: Clarity (written texts), and the mean of Responsiveness and Purity, which rest on the same rated texts.

    Where only one kind is defined it stands alone; NaN where none is.
    """
    rated = (responsiveness + purity) / 2
    both = (clarity + rated) / 2
    return np.where(np.isnan(rated), clarity, np.where(np.isnan(clarity), rated, both))


def _standardized(
    scores: Float[np.ndarray, "feature description"], axis: int
) -> Float[np.ndarray, "feature description"]:
    centred = scores - np.nanmedian(scores, axis=axis, keepdims=True)
    spread = 1.4826 * np.nanmedian(np.abs(centred), axis=axis, keepdims=True)
    return centred / np.maximum(spread, SPREAD)


def pooled_p_values(
    own: Float[np.ndarray, "description"], null: Float[np.ndarray, "pair"]
) -> Float[np.ndarray, "description"]:
    """(1 + number of null pairs that fit at least as well) / (1 + number of null pairs), NaN for NaN.

    >>> pooled_p_values(np.array([3.0, 0.0]), np.array([0.0, 1.0, 2.0]))
    array([0.25, 1.  ])
    """
    ordered = np.sort(null[~np.isnan(null)])
    above = len(ordered) - np.searchsorted(ordered, own, "left")
    return np.where(np.isnan(own), np.nan, (1 + above) / (1 + len(ordered)))


def benjamini_hochberg(p_values: Float[np.ndarray, "test"]) -> Float[np.ndarray, "test"]:
    """q-values: the least false discovery rate at which each test is a discovery (Benjamini and Hochberg 1995); NaN for NaN.

    >>> benjamini_hochberg(np.array([0.01, 0.04, np.nan, 0.5])).round(3)
    array([0.03, 0.06,  nan, 0.5 ])
    """
    from scipy.stats import false_discovery_control

    q_values = np.full(len(p_values), np.nan)
    tested = ~np.isnan(p_values)
    q_values[tested] = false_discovery_control(p_values[tested])
    return q_values


def with_q_values(found: Sequence[PermutationTest]) -> tuple[PermutationTest, ...]:
    """The comparisons with the q-values of all their p-values together."""
    p_values = np.array([np.nan if one.p_value is None else one.p_value for one in found], dtype=np.float64)
    return tuple(
        one if np.isnan(q) else replace(one, q_value=float(q))
        for one, q in zip(found, benjamini_hochberg(p_values), strict=True)
    )


def percentile(own: float, others: Float[np.ndarray, "other"]) -> float | None:
    """Percent of `others` below `own`, ties counting half; None where `own` or all others are NaN."""
    from scipy.stats import percentileofscore

    others = others[~np.isnan(others)]
    if np.isnan(own) or not len(others):
        return None
    return min(float(percentileofscore(others, own, kind="mean")), 100.0)  # rounding may bring it above


def better_rows(
    cross: CrossScores,
    statistic: Float[np.ndarray, "feature description"],
    p_values: Float[np.ndarray, "description"],
    null: Bool[np.ndarray, "feature description"],
) -> tuple[Int[np.ndarray, "description"], Int[np.ndarray, "description"]]:
    """For each description the row of the feature that it fits far better than its own, or −1; and the row it is dealt to anew.

    False alarms cost a reader's trust. A description is called wrong where

    - it takes part in an exchange: dealing the run's descriptions out anew (`assignment`) moves it, to a feature that it fits better by
      `EXCHANGE_MARGIN`; or
    - it does not stand out on its own feature (p-value above `SIGNIFICANT`) and the feature it fits best, whatever description that one
      has, is better by `MARGIN`,

    and only if the other feature's score is itself at least `FIT` and above the own one.

    Features that have the same description are no nulls, yet may be the answer: a label copied from one of them fits it best, and is
    then dealt to it, for there is nothing to exchange.
    """
    rows, columns = cross.own_rows, np.arange(len(cross.owners))
    candidates = np.where(np.isnan(statistic), -np.inf, statistic)
    candidates[rows, columns] = -np.inf
    best = candidates.argmax(axis=0)
    own = statistic[rows, columns]
    fit = combined(*(getattr(cross, name).astype(np.float64) for name in NAMES))
    suggested = assignment(statistic, rows)
    found = np.full(len(rows), -1)
    with np.errstate(invalid="ignore"):
        for other, allowed, margin in (
            (best, p_values > SIGNIFICANT, MARGIN),
            (np.where(null[best, columns], suggested, best), null[suggested, columns], EXCHANGE_MARGIN),
        ):
            gain = candidates[other, columns] - own
            fits = (fit[other, columns] >= FIT) & (fit[other, columns] > fit[rows, columns])
            found = np.where(allowed & (gain >= margin) & fits, other, found)
    copied = (found >= 0) & ~null[found, columns]
    return found, np.where(copied, found, suggested)


def assignment(
    statistic: Float[np.ndarray, "feature description"], rows: Int[np.ndarray, "description"]
) -> Int[np.ndarray, "description"]:
    """The row that each description gets if all are dealt out anew among the places of all, so that they fit best in sum.

    A description that moves must be worth `MARGIN`: without that bonus for its own place, ones that fit nothing would wander.
    """
    from scipy.optimize import linear_sum_assignment

    worth = np.nan_to_num(statistic, nan=0.0)[rows]
    worth[rows[:, None] == rows] += MARGIN
    places, columns = linear_sum_assignment(worth, maximize=True)
    found = np.empty_like(rows)
    found[columns] = rows[places]
    return found
