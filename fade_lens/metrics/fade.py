"""Clarity, Responsiveness and Purity: pure functions from numbers to values with intervals (Faithfulness has its own module).

Definitions after FADE (Puri et al., Findings of ACL 2025, arXiv 2502.16994). Two kinds of arithmetic:

- `"default"`: signed, weighted by inverse inclusion probability, the steering factor chosen and measured on different prompts;
- `"paper"`: the reference implementation's arithmetic, digit for digit (absolute Gini, no weights, maximum over all factors).

A metric that cannot be computed has value None and a reason in words; nothing is guessed and nothing is dropped uncounted.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from fade_lens._util.reasons import Reason
from fade_lens.metrics.intervals import Rows, Statistic, sample_interval
from fade_lens.metrics.labelled import UNRATED, LabelledTexts, counts_of
from fade_lens.metrics.metric import Arithmetic, Metric, around, check_arithmetic
from fade_lens.metrics.ranking import Ranked, average_precision, finite, gini

MIN_TEXTS = 3
"""Fewer texts than this on either side (positives, negatives) give a value without an interval."""


def clarity(
    synthetic: Float[np.ndarray, "synthetic"],
    natural: Float[np.ndarray, "natural"],
    *,
    arithmetic: Arithmetic = "default",
    seed: int = 0,
) -> Metric:
    """Does text written to express the concept activate the feature?

    Clarity = 2 · AUROC(synthetic as positives, natural as negatives) − 1 (FADE).

    Args:
        synthetic: the feature's largest activation on each text written for the concept; NaN where a text has no position that
            counts: such texts are left out and counted.
        natural: the same of texts of the corpus, drawn uniformly.
        arithmetic: "paper" takes the absolute value.
        seed: of the interval.

    Returns:
        A value in [−1, 1], 0 by chance; in "paper" in [0, 1]. Undefined without a synthetic or without a natural text.

    Raises:
        InputError: an unknown arithmetic, an infinite activation.

    >>> clarity(np.array([3.0, 4.0, 5.0]), np.array([0.0, 1.0, 2.0, 3.0])).value
    0.9166666666666667
    """
    check_arithmetic(arithmetic)
    above, below = _defined(synthetic), _defined(natural)
    counts = {
        "synthetic": len(above),
        "natural": len(below),
        "undefined_activation": len(synthetic) + len(natural) - len(above) - len(below),
    }
    for name, group in (("synthetic", above), ("natural", below)):
        if not len(group):
            return Metric(None, Reason("no_text", f"no {name} text with an activation"), counts=counts)
    signed = gini(above, below)
    few = _too_few(len(above), len(below))
    interval = None if few else Rows.of_groups(above, below).interval(_gini, seed)
    return _ranked_metric(signed, interval, few, arithmetic, counts, {"signed": signed})


def responsiveness(
    activations: Float[np.ndarray, "text"],
    ratings: Int[np.ndarray, "text"],
    weights: Float[np.ndarray, "text"] | None = None,
    *,
    arithmetic: Arithmetic = "default",
    seed: int = 0,
) -> Metric:
    """Do natural texts that express the concept activate the feature?

    Responsiveness = 2 · AUROC(texts rated 2 as positives, rated 0 as negatives) − 1 (FADE), each text weighted, so that
    it estimates the corpus and not the sample.

    Args:
        activations: the feature's largest activation on each text; NaN where a text has no position that counts.
        ratings: 2 (expresses the concept), 1 (partly), 0 (does not), −1 (unrated). Texts rated 1 or unrated, and those without an
            activation, are left out and counted.
        weights: 1 / (each text's probability of being chosen); None: all alike.
        arithmetic: "paper" ignores the weights and takes the absolute value.
        seed: of the interval.

    Returns:
        A value in [−1, 1], 0 by chance; in "paper" in [0, 1]. Undefined without a text rated 2 or without one rated 0.

    Raises:
        InputError: an unknown arithmetic, arrays of different lengths, a rating or weight that is none, an infinite activation.

    >>> responsiveness(np.array([5.0, 4.0, 1.0, 0.0]), np.array([2, 0, 1, 0])).value
    1.0
    """
    texts, counts, reason = _rated(activations, ratings, weights, arithmetic)
    if reason:
        return Metric(None, reason, counts=counts)
    signed = gini(*texts.split())
    few = _too_few(counts["rated_2"], counts["rated_0"])
    interval = None if few else _interval(texts, _gini, seed)
    details = {"signed": signed, "unweighted": gini(*texts.split()[:2])}
    return _ranked_metric(signed, interval, few, arithmetic, counts, details)


def purity(
    activations: Float[np.ndarray, "text"],
    ratings: Int[np.ndarray, "text"],
    weights: Float[np.ndarray, "text"] | None = None,
    *,
    arithmetic: Arithmetic = "default",
    seed: int = 0,
) -> Metric:
    """Does the feature fire for that concept only?

    Purity = average precision of the activations, texts rated 2 as positives and rated 0 as negatives (FADE).

    Args:
        activations, ratings, weights, seed: as in `responsiveness`.
        arithmetic: "paper" ignores the weights, and negates the activations where the Gini coefficient is negative.

    Returns:
        A value in [0, 1]. By chance it is `details["prevalence"]`, the weighted share of texts rated 2 among those rated 2 or 0.
        Undefined as in `responsiveness`.

    Raises:
        InputError: as in `responsiveness`.

    >>> purity(np.array([5.0, 4.0, 1.0, 0.0]), np.array([2, 0, 1, 0])).value
    1.0
    """
    texts, counts, reason = _rated(activations, ratings, weights, arithmetic)
    if reason:
        return Metric(None, reason, counts=counts)
    if arithmetic == "paper" and gini(*texts.split()) < 0:
        texts = texts.negated()
    value = average_precision(*texts)
    details = {"prevalence": texts.prevalence, "unweighted": average_precision(texts.values, texts.positive)}
    few = _too_few(counts["rated_2"], counts["rated_0"])
    interval = None if few else around(value, _interval(texts, Ranked.average_precision, seed))
    return Metric(value, None, interval, counts, details, few)


# --- Parts ------------------------------------------------------------------------------------------------------------------


def _rated(
    activations: Float[np.ndarray, "text"],
    ratings: Int[np.ndarray, "text"],
    weights: Float[np.ndarray, "text"] | None,
    arithmetic: Arithmetic,
) -> tuple[LabelledTexts, dict[str, int], Reason | None]:
    """The texts that enter Responsiveness and Purity, how many there are of each rating, and why there are too few."""
    check_arithmetic(arithmetic)
    texts = LabelledTexts.of_ratings(activations, ratings, None if arithmetic == "paper" else weights)
    reason = None
    if not (~np.isnan(activations) & (ratings != UNRATED)).any():
        reason = Reason("unrated", f"none of the {len(ratings)} texts is rated")
    elif (rating := texts.one_sided) is not None:
        meant = "clearly expresses the concept" if rating == 2 else "does not express the concept"
        reason = Reason("no_positive" if rating == 2 else "no_negative", f"no text is rated {rating} ({meant})")
    return texts, counts_of(activations, ratings), reason


def _interval(texts: LabelledTexts, statistic: Statistic, seed: int) -> tuple[float, float]:
    return sample_interval(texts.values, texts.positive, texts.weights, statistic, seed)


def _gini(ranked: Ranked, _own: Float[np.ndarray, "replicate positive"]) -> Float[np.ndarray, "replicate"]:
    return 2 * ranked.auroc() - 1


def _ranked_metric(
    signed: float,
    interval: tuple[float, float] | None,
    few: str | None,
    arithmetic: Arithmetic,
    counts: Mapping[str, int],
    details: Mapping[str, float | None],
) -> Metric:
    """Signed Gini by default; in "paper" its absolute value, and the interval folded at 0 likewise."""
    if interval is not None:
        interval = around(signed, interval)
        if arithmetic == "paper":
            low, high = interval
            interval = (max(low, -high, 0.0), max(-low, high))
    return Metric(abs(signed) if arithmetic == "paper" else signed, None, interval, counts, details, few)


def _too_few(positives: int, negatives: int) -> str | None:
    if min(positives, negatives) >= MIN_TEXTS:
        return None
    return f"{positives} positive and {negatives} negative texts; an interval needs at least {MIN_TEXTS} of each"


def _defined(activations: Float[np.ndarray, "text"]) -> Float[np.ndarray, "defined"]:
    return finite("activations", activations[~np.isnan(activations)])
