"""How well numbers rank or separate two groups of texts, each text with its own weight: AUROC, average precision, F1, ...

One vectorized implementation over masses `[replicate, text]` serves a single value and thousands of bootstrap replicates.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens.errors import InputError

Labels = Bool[np.ndarray, "text"] | Int[np.ndarray, "text"]


def cumulate(
    values: Float[np.ndarray, "text"], *masses: Float[np.ndarray, "replicate text"]
) -> tuple[Float[np.ndarray, "replicate threshold"], ...]:
    """Mass of the texts at or above each distinct value, highest value first."""
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    return tuple(np.cumsum(mass[:, order], axis=1)[:, ends] for mass in masses)


def auroc_replicates(
    values: Float[np.ndarray, "text"],
    positive: Float[np.ndarray, "replicate text"],
    negative: Float[np.ndarray, "replicate text"],
) -> Float[np.ndarray, "replicate"]:
    """Area under the ROC curve for each replicate's masses of positives and negatives; ties count one half."""
    hits, alarms = cumulate(values, positive, negative)
    steps = np.diff(alarms, axis=1, prepend=0.0)
    midway = hits - np.diff(hits, axis=1, prepend=0.0) / 2
    return (steps * midway).sum(axis=1) / (hits[:, -1] * alarms[:, -1])


def average_precision_replicates(
    values: Float[np.ndarray, "text"],
    positive: Float[np.ndarray, "replicate text"],
    negative: Float[np.ndarray, "replicate text"],
) -> Float[np.ndarray, "replicate"]:
    """Average precision for each replicate's masses: sum over distinct thresholds of (recall gained) · precision."""
    hits, alarms = cumulate(values, positive, negative)
    found = hits + alarms
    precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
    return (np.diff(hits, axis=1, prepend=0.0) * precision).sum(axis=1) / hits[:, -1]


def auroc(
    positives: Float[np.ndarray, "positive"],
    negatives: Float[np.ndarray, "negative"],
    positive_weights: Float[np.ndarray, "positive"] | None = None,
    negative_weights: Float[np.ndarray, "negative"] | None = None,
) -> float:
    """Probability that a positive's value exceeds a negative's, a tie counting one half.

    AUROC = Σᵢⱼ vᵢ wⱼ ([pᵢ > nⱼ] + ½[pᵢ = nⱼ]) / Σᵢⱼ vᵢ wⱼ

    Raises:
        InputError: either side empty, a value not finite, or weights not finite, negative or all zero.

    >>> auroc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    above, below = finite("positives", positives), finite("negatives", negatives)
    v = _weights("positive_weights", positive_weights, len(above))
    w = _weights("negative_weights", negative_weights, len(below))
    for name, mass in (("positives", v), ("negatives", w)):
        if not mass.sum() > 0:
            raise InputError(f"{name} hold {len(mass)} values of no weight; give at least one")
    values = np.concatenate([above, below])
    positive, negative = np.append(v, np.zeros_like(w)), np.append(np.zeros_like(v), w)
    return float(auroc_replicates(values, positive[None], negative[None])[0])


def gini(
    positives: Float[np.ndarray, "positive"],
    negatives: Float[np.ndarray, "negative"],
    positive_weights: Float[np.ndarray, "positive"] | None = None,
    negative_weights: Float[np.ndarray, "negative"] | None = None,
) -> float:
    """Gini coefficient 2 · AUROC − 1, signed: 1 all positives above all negatives, 0 chance, −1 all below. Errors as `auroc`.

    >>> gini(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.75
    """
    return 2 * auroc(positives, negatives, positive_weights, negative_weights) - 1


def average_precision(
    scores: Float[np.ndarray, "text"],
    labels: Labels,
    weights: Float[np.ndarray, "text"] | None = None,
) -> float:
    """Average precision, AP = Σₜ (Rₜ − Rₜ₋₁) Pₜ over the distinct scores t, highest first; chance level is the prevalence.

    `labels` are true (1) for positives. Equal scores enter at one threshold, as in scikit-learn's `average_precision_score`.

    Raises:
        InputError: no positive or no text, a score not finite, or weights not finite, negative or all zero for the positives.

    >>> average_precision(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    0.8333333333333333
    """
    values, positive, negative = _labelled(scores, labels, weights)
    return float(average_precision_replicates(values, positive[None], negative[None])[0])


def best_f1(
    scores: Float[np.ndarray, "text"], labels: Labels, weights: Float[np.ndarray, "text"] | None = None
) -> float:
    """Largest F1 = 2·P·R / (P + R) over all thresholds "score at least t". Errors as `average_precision`.

    >>> best_f1(np.array([3.0, 2.0, 1.0]), np.array([True, True, False]))
    1.0
    """
    values, positive, negative = _labelled(scores, labels, weights)
    hits, alarms = cumulate(values, positive[None], negative[None])
    return float((2 * hits / (hits + alarms + positive.sum())).max())


def iou(
    scores: Float[np.ndarray, "text"],
    labels: Labels,
    weights: Float[np.ndarray, "text"] | None = None,
    *,
    threshold: float = 0.0,
) -> float:
    """Intersection over union of the texts that fire (score above `threshold`) and the positives. Errors as `average_precision`.

    >>> iou(np.array([3.0, 2.0, 0.0]), np.array([True, False, True]))
    0.3333333333333333
    """
    values, positive, negative = _labelled(scores, labels, weights)
    fires = values > threshold
    return float(positive[fires].sum() / (positive.sum() + negative[fires].sum()))


def correlation(
    scores: Float[np.ndarray, "text"], labels: Labels, weights: Float[np.ndarray, "text"] | None = None
) -> float | None:
    """Weighted Pearson correlation of score and label; None where either does not vary. Errors as `average_precision`.

    >>> correlation(np.array([1.0, 0.0, 1.0, 0.0]), np.array([1, 0, 1, 0]))
    1.0
    """
    values, positive, negative = _labelled(scores, labels, weights)
    mass = (positive + negative) / (positive + negative).sum()
    x, y = values - mass @ values, (positive > 0) - positive.sum() / (positive + negative).sum()
    spread = (mass @ x**2) * (mass @ y**2)
    return float(mass @ (x * y) / np.sqrt(spread)) if spread > 0 else None


def balanced_accuracy(
    scores: Float[np.ndarray, "text"],
    labels: Labels,
    weights: Float[np.ndarray, "text"] | None = None,
    *,
    threshold: float = 0.0,
) -> float | None:
    """Mean of the share of positives that fire (score above `threshold`) and of negatives that do not; None without negatives.

    This is what detection scoring reports. Errors as `average_precision`.

    >>> balanced_accuracy(np.array([3.0, 0.0, 0.0]), np.array([1, 1, 0]))
    0.75
    """
    values, positive, negative = _labelled(scores, labels, weights)
    if not negative.sum() > 0:
        return None
    fires = values > threshold
    return float((positive[fires].sum() / positive.sum() + negative[~fires].sum() / negative.sum()) / 2)


def _labelled(
    scores: Float[np.ndarray, "text"], labels: Labels, weights: Float[np.ndarray, "text"] | None
) -> tuple[Float[np.ndarray, "text"], Float[np.ndarray, "text"], Float[np.ndarray, "text"]]:
    """Scores, mass of the positives and mass of the negatives, checked."""
    values, mass = finite("scores", scores), _weights("weights", weights, len(scores))
    if labels.dtype != bool and not np.isin(labels, (0, 1)).all():
        raise InputError(
            f"labels hold {sorted(set(labels.tolist()) - {0, 1})[:5]}; give 1 (or True) for positives and 0 for negatives"
        )
    positive = mass * (labels == 1)
    if not positive.sum() > 0:
        raise InputError("labels hold no positive (of positive weight); give at least one text labelled 1")
    return values, positive, mass - positive


def finite(name: str, values: Float[np.ndarray, "text"]) -> Float[np.ndarray, "text"]:
    """`values` as float64, or an InputError that names the first one that is not finite."""
    values = np.asarray(values, dtype=np.float64)
    if (bad := np.flatnonzero(~np.isfinite(values))).size:
        raise InputError(f"{name}[{bad[0]}] is {values[bad[0]]}; give finite numbers")
    return values


def _weights(name: str, weights: Float[np.ndarray, "text"] | None, n: int) -> Float[np.ndarray, "text"]:
    if weights is None:
        return np.ones(n)
    weights = finite(name, weights)
    if len(weights) != n or (weights < 0).any():
        raise InputError(
            f"{name} has {len(weights)} entries, the least {weights.min(initial=0)}; give {n} of at least 0"
        )
    return weights
