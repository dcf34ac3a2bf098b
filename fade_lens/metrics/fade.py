"""Clarity, Responsiveness, Purity and Faithfulness: pure functions from numbers to values with intervals.

Definitions after FADE (Puri et al., Findings of ACL 2025, arXiv 2502.16994). Two presets:

- `"default"`: signed, weighted by inverse inclusion probability, the steering factor chosen and measured on different prompts;
- `"paper"`: the reference implementation's arithmetic, digit for digit (absolute Gini, no weights, maximum over all factors).

A metric that cannot be computed has value None and a reason in words; nothing is guessed and nothing is dropped uncounted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens._util.errors import InputError
from fade_lens.metrics.intervals import PSEUDO, REPLICATES, Rows, Statistic, percentiles, sample_interval
from fade_lens.metrics.ranking import (
    Ranked,
    auroc,
    average_precision,
    balanced_accuracy,
    best_f1,
    correlation,
    finite,
    gini,
    iou,
)
from fade_lens.metrics.steered_table import (
    NOT_ASKED,
    RATINGS,
    SPLITS,
    UNRATED,
    best_factor,
    check_ratings,
    common_prompts,
    cross_fit,
    leading,
    lift,
    outcomes,
    table_of,
    unsteerable,
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
    "leading",
    "purity",
    "responsiveness",
]

Preset = Literal["default", "paper"]

MIN_TEXTS = 3
"""Fewer texts than this on either side (positives, negatives) give a value without an interval."""
OTHERS = 0.9
"""How sure it is that a steering factor which did not look best is not better than the upper limit of Faithfulness."""
MIN_PROMPTS = 10
"""Fewer prompts than this give a Faithfulness without an interval."""


@dataclass(frozen=True)
class Metric:
    """One metric of one feature and description.

    `value` is None exactly when `reason` says why. `interval` has nominal coverage 95 %; where a value has none,
    `interval_reason` says why. `counts` are the numbers of texts behind the value; `details` are further numbers of the same
    evidence (unweighted value, prevalence, chosen factor, ...).
    """

    value: float | None
    reason: str | None = None
    interval: tuple[float, float] | None = None
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    details: Mapping[str, float | None] = field(default_factory=dict[str, float | None])
    interval_reason: str | None = None

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
            "interval_reason": self.interval_reason,
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
    _check_preset(preset)
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
    few = _too_few(len(above), len(below))
    interval = None if few else Rows.of_groups(above, below).interval(_gini, seed)
    return _ranked_metric(signed, interval, few, preset, counts, {"signed": signed})


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
    few = _too_few(rated.counts["rated_2"], rated.counts["rated_0"])
    interval = None if few else rated.interval(_gini, seed)
    details = {"signed": signed, "unweighted": gini(*rated.split()[:2])}
    return _ranked_metric(signed, interval, few, preset, rated.counts, details)


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
    few = _too_few(rated.counts["rated_2"], rated.counts["rated_0"])
    interval = None if few else _around(value, rated.interval(Ranked.average_precision, seed))
    return Metric(value, None, interval, rated.counts, details, few)


def faithfulness(
    ratings: Mapping[float, Int[np.ndarray, "_"]],
    *,
    preset: Preset = "default",
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
    untouched model. Unrated (−1) continuations count as not expressing the concept; in `"paper"`, which takes the maximum over
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
    _check_preset(preset)
    factors, table = table_of(ratings)
    common = common_prompts(factors, table, preset)
    n = table.shape[1]
    counts = {"prompts": n}
    for factor, row in zip(factors, table, strict=True):
        counts |= {f"{name}_{factor:g}": int((row == rating).sum()) for name, rating in RATINGS}
    if reason := unsteerable(factors, table[:, :common]):
        return Metric(None, reason, counts=counts)
    expressed = table == 2
    out_of = (table != NOT_ASKED) & ((table != UNRATED) | (preset != "paper"))
    rates = expressed.sum(axis=1) / np.maximum(out_of.sum(axis=1), 1)
    if rates[0] == 1:
        reason = "every continuation of the untouched model already expresses the concept (1 - R_0 = 0)"
        return Metric(None, reason, counts=counts, details={"rate_0": 1.0})

    shared = expressed[:, :common].sum(axis=1) / np.maximum(out_of[:, :common].sum(axis=1), 1)
    maximum = max(float((shared.max() - shared[0]) / (1 - shared[0])), 0.0) if shared[0] < 1 else 0.0
    first, later = expressed[:, :common], expressed[:, common:]
    best = 1 + int(np.argmax(rates[1:])) if preset == "paper" else best_factor(table[:, :common])
    rng = np.random.default_rng(seed)
    chosen = cross_fit(first, rng)
    held_out = outcomes(first[0], np.take_along_axis(first, chosen, axis=0)) + outcomes(later[0], later[best][None])
    signed = float(lift(held_out[None])[0])
    picks = np.bincount(chosen.ravel(), minlength=len(factors)) / SPLITS
    picks[best] += n - common
    picks /= n
    choice = best if preset == "paper" or common < n else int(np.argmax(picks))
    value = maximum if preset == "paper" else max(signed, 0.0)
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
    return Metric(value, None, _around(value, (max(low, 0.0), max(high, 0.0))), counts, details)


# --- Parts ------------------------------------------------------------------------------------------------------------------


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
        _check_preset(preset)
        check_ratings("ratings", ratings)
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

    def interval(self, statistic: Statistic, seed: int) -> tuple[float, float]:
        return sample_interval(self.values, self.positive, self.weights, statistic, seed)


def _gini(ranked: Ranked, _own: Float[np.ndarray, "replicate positive"]) -> Float[np.ndarray, "replicate"]:
    return 2 * ranked.auroc() - 1


def _ranked_metric(
    signed: float,
    interval: tuple[float, float] | None,
    few: str | None,
    preset: Preset,
    counts: Mapping[str, int],
    details: Mapping[str, float | None],
) -> Metric:
    """Signed Gini by default; in "paper" its absolute value, and the interval folded at 0 likewise."""
    if interval is not None:
        interval = _around(signed, interval)
        if preset == "paper":
            low, high = interval
            interval = (max(low, -high, 0.0), max(-low, high))
    return Metric(abs(signed) if preset == "paper" else signed, None, interval, counts, details, few)


def _around(value: float, interval: tuple[float, float]) -> tuple[float, float]:
    """The interval, stretched to hold the value: pseudo-texts can pull all of it below a perfect score. None ends above 1 but by rounding."""
    return min(interval[0], value), min(max(interval[1], value), 1.0)


def _too_few(positives: int, negatives: int) -> str | None:
    if min(positives, negatives) >= MIN_TEXTS:
        return None
    return f"{positives} positive and {negatives} negative texts; an interval needs at least {MIN_TEXTS} of each"


def _check_preset(preset: Preset) -> None:
    if preset not in get_args(Preset):
        raise InputError(f"preset is {preset!r}; give one of {', '.join(map(repr, get_args(Preset)))}")


def _defined(activations: Float[np.ndarray, "text"]) -> Float[np.ndarray, "defined"]:
    return finite("activations", activations[~np.isnan(activations)])
