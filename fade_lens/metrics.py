"""Clarity, Responsiveness, Purity and Faithfulness: pure functions from numbers to values with intervals.

Definitions after FADE (Puri et al., Findings of ACL 2025, arXiv 2502.16994). Two presets:

- `"default"`: signed, weighted by inverse inclusion probability, the steering factor chosen and measured on different prompts;
- `"paper"`: the reference implementation's arithmetic, digit for digit (absolute Gini, no weights, maximum over all factors).

A metric that cannot be computed has value None and a reason in words; nothing is guessed and nothing is dropped uncounted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens.errors import InputError
from fade_lens.ranking import (
    auroc,
    auroc_replicates,
    average_precision,
    average_precision_replicates,
    balanced_accuracy,
    best_f1,
    correlation,
    finite,
    gini,
    iou,
)

__all__ = [
    "Metric",
    "Preset",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "best_f1",
    "clarity",
    "correlation",
    "faithfulness",
    "gini",
    "iou",
    "purity",
    "responsiveness",
]

Preset = Literal["default", "paper"]

UNRATED = -1
"""The rating of a text that the judge was asked about and did not rate."""
RATINGS = (("rated_2", 2), ("rated_1", 1), ("rated_0", 0), ("unrated", UNRATED))
"""The keys of `Metric.counts` and the rating that each counts."""
REPLICATES = 2000
"""Replicates behind every interval."""
LEVEL = 0.95
"""Nominal coverage of every interval."""
SPLITS = 100
"""Random halvings of the prompts over which Faithfulness is averaged."""
PSEUDO = 0.25
"""Weight of a pseudo-text in the Bayesian bootstrap."""


@dataclass(frozen=True)
class Metric:
    """One metric of one feature and description.

    `value` is None exactly when `reason` says why. `interval` has nominal coverage 95 %. `counts` are the numbers of texts behind
    the value; `details` are further numbers of the same kind of evidence (unweighted value, prevalence, chosen factor, ...).
    """

    value: float | None
    reason: str | None = None
    interval: tuple[float, float] | None = None
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    details: Mapping[str, float | None] = field(default_factory=dict[str, float | None])

    def __post_init__(self) -> None:
        if (self.value is None) != (self.reason is not None):
            raise InputError(
                f"Metric(value={self.value}, reason={self.reason!r}): give a reason exactly when there is no value"
            )

    def to_dict(self) -> dict[str, object]:
        """A JSON-able dict; `from_dict` reads it back."""
        return {
            "value": self.value,
            "reason": self.reason,
            "interval": None if self.interval is None else list(self.interval),
            "counts": dict(self.counts),
            "details": dict(self.details),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> "Metric":
        """The metric that `to_dict` wrote."""
        fields = dict(record)
        if isinstance(interval := fields.get("interval"), (list, tuple)):
            low, high = interval
            fields["interval"] = (float(low), float(high))
        return cls(**fields)  # pyright: ignore[reportArgumentType]


def clarity(
    synthetic: Float[np.ndarray, "synthetic"],
    natural: Float[np.ndarray, "natural"],
    *,
    preset: Preset = "default",
    seed: int = 0,
) -> Metric:
    """Does text written to express the concept activate the feature?

    Clarity = 2 · AUROC(synthetic as positives, natural as negatives) − 1, in [−1, 1]; `"paper"`: its absolute value.

    Shapes: one activation a text, `natural` drawn uniformly. NaN (no counted position) is left out and counted.
    Undefined without synthetic or without natural texts.

    >>> clarity(np.array([3.0, 4.0, 5.0]), np.array([0.0, 1.0, 2.0, 3.0])).value
    0.9166666666666667
    """
    above, below = _defined(synthetic), _defined(natural)
    counts = {
        "synthetic": len(above),
        "natural": len(below),
        "undefined_activation": len(synthetic) + len(natural) - len(above) - len(below),
    }
    for name, group in (("synthetic", above), ("natural", below)):
        if not len(group):
            return Metric(None, f"no {name} text with an activation", counts=counts)
    signed = gini(above, below)
    values = np.concatenate([above, below])
    written = np.arange(len(values)) < len(above)
    # Two samples of fixed sizes: a pseudo-text enters only its own group, at the ends of all activations.
    ends = np.array([values.min(), values.max()] * 2)
    rows = _Rows(
        np.append(values, ends), np.append(written, [True, True, False, False]), np.append(written, [1, 1, 0, 0]).astype(int),
        np.append(np.ones(len(values)), np.full(4, PSEUDO)), np.array([1.0, 1.0]),
    )  # fmt: skip
    replicates = 2 * auroc_replicates(*rows.draw(seed)) - 1
    return _ranked_metric(signed, replicates, preset, counts, {"signed": signed})


def responsiveness(
    activations: Float[np.ndarray, "text"],
    ratings: Int[np.ndarray, "text"],
    weights: Float[np.ndarray, "text"] | None = None,
    *,
    preset: Preset = "default",
    seed: int = 0,
) -> Metric:
    """Do natural texts that express the concept activate the feature?

    Responsiveness = 2 · AUROC(texts rated 2 as positives, rated 0 as negatives) − 1, in [−1, 1], each text weighted by
    1 / (its probability of being chosen), so that it estimates the corpus; `"paper"`: unweighted, absolute value.

    Shapes: one activation and one rating (0, 1, 2, or −1 unrated) a text. Texts rated 1, unrated texts and texts whose activation is
    NaN (no counted position) are left out and counted. Undefined without a text rated 2 or without one rated 0.

    >>> responsiveness(np.array([5.0, 4.0, 1.0, 0.0]), np.array([2, 0, 1, 0])).value
    1.0
    """
    rated = _Rated.of(activations, ratings, weights, preset)
    if rated.reason:
        return Metric(None, rated.reason, counts=rated.counts)
    signed = gini(*rated.split())
    replicates = 2 * auroc_replicates(*rated.rows().draw(seed)) - 1
    return _ranked_metric(
        signed, replicates, preset, rated.counts, {"signed": signed, "unweighted": gini(*rated.split()[:2])}
    )


def purity(
    activations: Float[np.ndarray, "text"],
    ratings: Int[np.ndarray, "text"],
    weights: Float[np.ndarray, "text"] | None = None,
    *,
    preset: Preset = "default",
    seed: int = 0,
) -> Metric:
    """Does the feature fire for that concept only?

    Purity = average precision of the activations, texts rated 2 as positives and rated 0 as negatives, in [0, 1], weighted as in
    `responsiveness`; its chance level is `details["prevalence"]`, the weighted share of texts rated 2 among those rated 2 or 0.
    `"paper"`: unweighted, and of the negated activations where the Gini coefficient is negative.

    Shapes, exclusions and undefined cases as in `responsiveness`.

    >>> purity(np.array([5.0, 4.0, 1.0, 0.0]), np.array([2, 0, 1, 0])).value
    1.0
    """
    rated = _Rated.of(activations, ratings, weights, preset)
    if rated.reason:
        return Metric(None, rated.reason, counts=rated.counts)
    if preset == "paper" and gini(*rated.split()) < 0:
        rated = rated.negated()
    value = average_precision(rated.values, rated.positive, rated.weights)
    details = {
        "prevalence": float(rated.weights[rated.positive].sum() / rated.weights.sum()),
        "unweighted": average_precision(rated.values, rated.positive),
    }
    low, high = _percentiles(average_precision_replicates(*rated.rows().draw(seed)))
    return Metric(value, interval=(min(low, value), max(high, value)), counts=rated.counts, details=details)


def faithfulness(
    ratings: Mapping[float, Int[np.ndarray, "prompt"]],
    *,
    preset: Preset = "default",
    seed: int = 0,
) -> Metric:
    """Does steering the feature make the model write the concept?

    Faithfulness = max(R_f − R_0, 0) / (1 − R_0), R_f the share of continuations rated 2 at steering factor f.

    The reference takes the largest R_f of all factors, which is biased up: the largest of several noisy shares. Here the factor is
    chosen on one half of the prompts and measured on the other, both ways, averaged over `SPLITS` random halvings. Factor 0
    takes part in the choice (the smallest factor wins a tie), so a feature without effect scores 0 on average. The difference to the
    baseline is taken prompt by prompt on the held-out half; only the final mean is clipped at 0, since clipping each half would bring back
    the bias. `details["signed"]` is the mean before clipping.

    `ratings` holds, for each factor, the ratings of the continuations of the same prompts in the same order; factor 0 is the
    untouched model. Unrated (−1) continuations count as not expressing the concept; in `"paper"`, which takes the maximum over
    all factors, they leave the denominator.

    Undefined when there is no steered factor, fewer than 2 prompts, no rating at all at factor 0 or at the others, or when every
    baseline continuation expresses the concept (1 − R_0 = 0).

    >>> faithfulness({0.0: np.array([0, 0, 0, 0]), 2.0: np.array([2, 2, 2, 0])}).value
    0.75
    """
    factors, table = _table(ratings)
    counts = {
        f"{name}_{factor:g}": int((row == rating).sum())
        for factor, row in zip(factors, table, strict=True)
        for name, rating in RATINGS
    }
    counts["prompts"] = table.shape[1]
    if reason := _unsteerable(factors, table):
        return Metric(None, reason, counts=counts)
    baseline = int(np.flatnonzero(factors == 0)[0])
    expressed = table == 2

    rated = np.maximum((table != UNRATED).sum(axis=1), 1)
    shares = expressed.sum(axis=1) / rated
    reference = _lift(shares.max(), shares[baseline]) if expressed.any() else 0.0
    if preset == "default":
        shares = expressed.mean(axis=1)
    best = int(np.argmax(shares))
    details: dict[str, float | None] = {"maximum": reference, "rate_0": float(shares[baseline])}
    if shares[baseline] == 1:
        return Metric(
            None,
            "every continuation of the untouched model already expresses the concept (1 - R_0 = 0)",
            counts=counts,
            details=details,
        )

    rng = np.random.default_rng(seed)
    chosen = _cross_fit(expressed, rng)
    held_out = np.take_along_axis(expressed, chosen, axis=0)  # [split, prompt]
    both, steered, untouched = (
        (held_out & expressed[baseline]).mean(0).sum(),
        (held_out & ~expressed[baseline]).mean(0).sum(),
        (~held_out & expressed[baseline]).mean(0).sum(),
    )
    signed = float((steered - untouched) / (~expressed[baseline]).sum())
    draws = rng.dirichlet(
        np.array([both, steered, untouched, table.shape[1] - both - steered - untouched]) + PSEUDO, REPLICATES
    )
    low, high = _percentiles((draws[:, 1] - draws[:, 2]) / (draws[:, 1] + draws[:, 3]))
    factor_rates = [float(np.mean(chosen == i)) for i in range(len(factors))]
    if preset == "paper":
        value, choice = reference or 0.0, best
    else:
        value, choice = max(signed, 0.0), int(np.argmax(factor_rates))
    details |= {
        "signed": signed, "factor": float(factors[choice]), "factor_share": factor_rates[choice], "rate_factor": float(shares[choice]),
    }  # fmt: skip
    interval = (max(min(low, value), 0.0), max(high, value))
    return Metric(value, interval=interval, counts=counts, details=details)


# --- Parts ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """Texts and pseudo-texts for a Bayesian bootstrap: within a stratum their shares are Dirichlet(shape), times its mass."""

    values: Float[np.ndarray, "row"]
    positive: Bool[np.ndarray, "row"]
    stratum: Int[np.ndarray, "row"]
    shape: Float[np.ndarray, "row"]
    mass: Float[np.ndarray, "stratum"]

    def draw(
        self, seed: int
    ) -> tuple[Float[np.ndarray, "cell"], Float[np.ndarray, "replicate cell"], Float[np.ndarray, "replicate cell"]]:
        """Values, positive and negative masses of `REPLICATES` replicates."""
        # Rows that no comparison with a positive tells apart are drawn as one: sums of Dirichlet shares are Dirichlet again.
        steps = np.unique(self.values[self.positive])
        place = np.searchsorted(steps, self.values, "left") + np.searchsorted(steps, self.values, "right")
        cells, cell = np.unique(np.stack([place, self.positive, self.stratum]), axis=1, return_inverse=True)
        shape = np.bincount(cell.ravel(), self.shape)
        share = np.random.default_rng(seed).standard_gamma(shape, (REPLICATES, len(shape)))
        member = cells[2][:, None] == np.arange(len(self.mass))
        share *= (self.mass / (share @ member))[:, cells[2]]
        positive = cells[1] == 1
        return cells[0].astype(np.float64), share * positive, share * ~positive


@dataclass(frozen=True)
class _Rated:
    """The rated texts that enter Responsiveness and Purity."""

    values: Float[np.ndarray, "text"]
    positive: Bool[np.ndarray, "text"]
    weights: Float[np.ndarray, "text"]
    counts: dict[str, int]
    reason: str | None

    @classmethod
    def of(
        cls,
        activations: Float[np.ndarray, "text"],
        ratings: Int[np.ndarray, "text"],
        weights: Float[np.ndarray, "text"] | None,
        preset: Preset,
    ) -> "_Rated":
        _check_ratings("ratings", ratings)
        if len(activations) != len(ratings):
            raise InputError(
                f"activations has {len(activations)} texts, ratings {len(ratings)}; give one of each a text"
            )
        if weights is None or preset == "paper":
            weights = np.ones(len(ratings))
        if len(weights) != len(ratings) or not (np.isfinite(weights) & (weights > 0)).all():
            raise InputError("weights must be finite, above 0 and one a text: 1 / inclusion probability")
        defined = ~np.isnan(activations)
        used = defined & ((ratings == 2) | (ratings == 0))
        counts = {name: int((defined & (ratings == rating)).sum()) for name, rating in RATINGS}
        counts["undefined_activation"] = int((~defined).sum())
        reason = None
        if not (defined & (ratings != UNRATED)).any():
            reason = f"none of the {len(ratings)} texts is rated"
        elif not counts["rated_2"]:
            reason = "no text is rated 2 (clearly expresses the concept)"
        elif not counts["rated_0"]:
            reason = "no text is rated 0 (does not express the concept)"
        return cls(_defined(activations[used]), ratings[used] == 2, weights[used].astype(np.float64), counts, reason)

    def split(
        self,
    ) -> tuple[
        Float[np.ndarray, "positive"],
        Float[np.ndarray, "negative"],
        Float[np.ndarray, "positive"],
        Float[np.ndarray, "negative"],
    ]:
        yes, no = self.positive, ~self.positive
        return self.values[yes], self.values[no], self.weights[yes], self.weights[no]

    def negated(self) -> "_Rated":
        return replace(self, values=-self.values)

    def rows(self) -> _Rows:
        """Strata are texts of equal weight; each may hold unseen texts of either label anywhere between its ends."""
        _, stratum = np.unique(self.weights.round(9), return_inverse=True)
        groups = [self.values[stratum == h] for h in range(stratum.max() + 1)]
        ends = np.array([[g.min(), g.max()] * 2 for g in groups]).ravel()
        n = len(groups)
        return _Rows(
            np.append(self.values, ends),
            np.append(self.positive, np.tile([True, True, False, False], n)),
            np.append(stratum, np.repeat(np.arange(n), 4)),
            np.append(np.ones(len(self.values)), np.full(4 * n, PSEUDO)),
            np.bincount(stratum, self.weights),
        )


def _ranked_metric(
    signed: float,
    replicates: Float[np.ndarray, "replicate"],
    preset: Preset,
    counts: dict[str, int],
    details: dict[str, float | None],
) -> Metric:
    low, high = _percentiles(replicates)
    low, high = min(low, signed), max(high, signed)
    if preset == "paper":
        folded = 0.0 if low < 0 < high else min(abs(low), abs(high))
        return Metric(abs(signed), interval=(folded, max(abs(low), abs(high))), counts=counts, details=details)
    return Metric(signed, interval=(low, high), counts=counts, details=details)


def _percentiles(replicates: Float[np.ndarray, "replicate"]) -> tuple[float, float]:
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _cross_fit(
    expressed: Bool[np.ndarray, "factor prompt"], rng: np.random.Generator
) -> Int[np.ndarray, "split prompt"]:
    """For each halving, the factor (first of the best) that the *other* half of the prompts chooses for each prompt."""
    n = expressed.shape[1]
    first = rng.permuted(np.tile(np.arange(n) < n // 2, (SPLITS, 1)), axis=1)
    hits = expressed.astype(np.float64)
    by_first, by_second = (
        np.argmax(first @ hits.T / (n // 2), axis=1),
        np.argmax(~first @ hits.T / (n - n // 2), axis=1),
    )
    return np.where(first, by_second[:, None], by_first[:, None])


def _table(
    ratings: Mapping[float, Int[np.ndarray, "prompt"]],
) -> tuple[Float[np.ndarray, "factor"], Int[np.ndarray, "factor prompt"]]:
    """Factors from the smallest magnitude up (positive first), and their ratings."""
    factors = sorted(ratings, key=lambda factor: (abs(factor), -factor))
    if not factors or factors[0] != 0:
        raise InputError(f"ratings has factors {factors}; factor 0, the untouched model, must be one of them")
    lengths = {factor: len(ratings[factor]) for factor in factors}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"ratings has different numbers of prompts by factor: {lengths}; give each factor the same prompts, -1 where unrated"
        )
    for factor in factors:
        _check_ratings(f"ratings[{factor:g}]", ratings[factor])
    return np.array(factors, dtype=np.float64), np.stack([ratings[factor] for factor in factors])


def _unsteerable(factors: Float[np.ndarray, "factor"], table: Int[np.ndarray, "factor prompt"]) -> str | None:
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


def _lift(rate: float, baseline: float) -> float | None:
    return None if baseline == 1 else max(float((rate - baseline) / (1 - baseline)), 0.0)


def _check_ratings(name: str, ratings: Int[np.ndarray, "text"]) -> None:
    if (unknown := np.setdiff1d(ratings, [UNRATED, 0, 1, 2])).size:
        raise InputError(f"{name} holds {unknown[:5].tolist()}; ratings are 0, 1, 2 or {UNRATED} (unrated)")


def _defined(activations: Float[np.ndarray, "text"]) -> Float[np.ndarray, "text"]:
    return finite("activations", activations[~np.isnan(activations)])
