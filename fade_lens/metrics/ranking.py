"""How well numbers rank or separate two groups of texts, each text with its own weight: AUROC, average precision, F1, ...

One vectorized implementation over masses `[replicate, text]` serves a single value and thousands of bootstrap replicates.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens._util.errors import InputError

Labels = Bool[np.ndarray, "text"] | Int[np.ndarray, "text"]


@dataclass(frozen=True)
class Ranked:
    """Labelled texts ranked by value, with the mass of each text in each replicate.

    Attributes:
        values: the activation of each text.
        positive: which texts are positives; both labels must have mass in every replicate.
        mass: how many texts each one stands for, a row a replicate.
    """

    values: Float[np.ndarray, "text"]
    positive: Bool[np.ndarray, "text"]
    mass: Float[np.ndarray, "replicate text"]

    def cumulated(self) -> tuple[Float[np.ndarray, "replicate threshold"], Float[np.ndarray, "replicate threshold"]]:
        """Mass of positives and of negatives at or above each distinct value, highest value first."""
        order = np.argsort(-self.values, kind="stable")
        ranked, mass = self.values[order], self.mass[:, order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        hits, alarms = (np.cumsum(mass * side[order], axis=1)[:, ends] for side in (self.positive, ~self.positive))
        return hits, alarms

    def auroc(self) -> Float[np.ndarray, "replicate"]:
        """Area under the ROC curve of each replicate; ties count one half."""
        hits, alarms = self.cumulated()
        midway = hits - np.diff(hits, axis=1, prepend=0.0) / 2
        return (np.diff(alarms, axis=1, prepend=0.0) * midway).sum(axis=1) / (hits[:, -1] * alarms[:, -1])

    def average_precision(
        self, own: Float[np.ndarray, "replicate positive"] | float = 0.0
    ) -> Float[np.ndarray, "replicate"]:
        """Average precision of each replicate: mean over the positives of the precision at each one's value.

        With `own`, the mass of each single positive, half of it is left out of the precision at that positive. A positive always
        finds itself, which with few positives raises average precision above the population's; the intervals correct for it.
        """
        hits, alarms = self.cumulated()
        _, threshold = np.unique(-self.values, return_inverse=True)
        at = threshold[self.positive]
        found = hits[:, at] - own / 2
        all_found = found + alarms[:, at]
        precision = np.divide(found, all_found, out=np.zeros_like(found), where=all_found > 0)
        return (self.mass[:, self.positive] * precision).sum(axis=1) / hits[:, -1]


def auroc(
    positives: Float[np.ndarray, "positive"],
    negatives: Float[np.ndarray, "negative"],
    positive_weights: Float[np.ndarray, "positive"] | None = None,
    negative_weights: Float[np.ndarray, "negative"] | None = None,
) -> float:
    """Probability that a positive's value exceeds a negative's, a tie counting one half.

    AUROC = Σᵢⱼ vᵢ wⱼ ([pᵢ > nⱼ] + ½[pᵢ = nⱼ]) / Σᵢⱼ vᵢ wⱼ

    Args:
        positives, negatives: their values, pᵢ and nⱼ.
        positive_weights, negative_weights: what each stands for, vᵢ and wⱼ; None: 1 each.

    Returns:
        From 0 (all positives below all negatives) to 1; 0.5 by chance.

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
    return float(Ranked(values, np.arange(len(values)) < len(v), np.append(v, w)[None]).auroc()[0])


def aurocs(
    values: Float[np.ndarray, "text scoring"], positive: Bool[np.ndarray, "text"]
) -> Float[np.ndarray, "scoring"]:
    """AUROC of several scorings of the same texts, each text counting once; both labels must be there.

    >>> aurocs(np.array([[3.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), np.array([True, False, False])).tolist()
    [1.0, 0.5]
    """
    from scipy.stats import rankdata

    n = int(positive.sum())
    ranks = rankdata(values, axis=0)[positive].sum(axis=0)
    return (ranks - n * (n + 1) / 2) / (n * (len(positive) - n))


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
    """Average precision, AP = Σₜ (Rₜ − Rₜ₋₁) Pₜ over the distinct scores t, highest first (R recall, P precision at "at least t").

    Equal scores enter at one threshold, as in scikit-learn's `average_precision_score`.

    Args:
        scores: one a text.
        labels: true (1) for positives.
        weights: what each text stands for; None: 1 each.

    Returns:
        From 0 to 1; by chance the (weighted) share of positives.

    Raises:
        InputError: no positive or no text, a score not finite, or weights not finite, negative or all zero for the positives.

    >>> average_precision(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    0.8333333333333333
    """
    values, positive, mass = _labelled(scores, labels, weights)
    return float(Ranked(values, positive, mass[None]).average_precision()[0])


def best_f1(
    scores: Float[np.ndarray, "text"], labels: Labels, weights: Float[np.ndarray, "text"] | None = None
) -> float:
    """Largest F1 = 2·P·R / (P + R) over all thresholds "score at least t", in (0, 1]. Arguments and errors as `average_precision`.

    >>> best_f1(np.array([3.0, 2.0, 1.0]), np.array([True, True, False]))
    1.0
    """
    values, positive, mass = _labelled(scores, labels, weights)
    hits, alarms = Ranked(values, positive, mass[None]).cumulated()
    return float((2 * hits / (hits + alarms + hits[:, -1:])).max())


def iou(
    scores: Float[np.ndarray, "text"],
    labels: Labels,
    weights: Float[np.ndarray, "text"] | None = None,
    *,
    threshold: float = 0.0,
) -> float:
    """Intersection over union of the texts that fire (score above `threshold`) and the positives, in [0, 1].

    Arguments and errors as `average_precision`.

    >>> iou(np.array([3.0, 2.0, 0.0]), np.array([True, False, True]))
    0.3333333333333333
    """
    values, positive, mass = _labelled(scores, labels, weights)
    fires = values > threshold
    return float(mass[fires & positive].sum() / mass[fires | positive].sum())


def correlation(
    scores: Float[np.ndarray, "text"], labels: Labels, weights: Float[np.ndarray, "text"] | None = None
) -> float | None:
    """Weighted Pearson correlation of score and label, in [−1, 1]; None where either does not vary.

    Arguments and errors as `average_precision`.

    >>> correlation(np.array([1.0, 0.0, 1.0, 0.0]), np.array([1, 0, 1, 0]))
    1.0
    """
    values, positive, mass = _labelled(scores, labels, weights)
    mass = mass / mass.sum()
    used = mass > 0
    if np.ptp(values[used]) == 0 or positive[used].all():
        return None
    x, y = values - mass @ values, positive - mass @ positive
    return float(mass @ (x * y) / np.sqrt((mass @ x**2) * (mass @ y**2)))


def balanced_accuracy(
    scores: Float[np.ndarray, "text"],
    labels: Labels,
    weights: Float[np.ndarray, "text"] | None = None,
    *,
    threshold: float = 0.0,
) -> float | None:
    """Mean of the share of positives that fire (score above `threshold`) and of negatives that do not.

    In [0, 1], 0.5 by chance; None without negatives. This is what detection scoring reports. Arguments and errors as
    `average_precision`.

    >>> balanced_accuracy(np.array([3.0, 0.0, 0.0]), np.array([1, 1, 0]))
    0.75
    """
    values, positive, mass = _labelled(scores, labels, weights)
    if not mass[~positive].sum() > 0:
        return None
    fires = values > threshold
    found = mass[positive & fires].sum() / mass[positive].sum()
    passed = mass[~positive & ~fires].sum() / mass[~positive].sum()
    return float((found + passed) / 2)


def _labelled(
    scores: Float[np.ndarray, "text"], labels: Labels, weights: Float[np.ndarray, "text"] | None
) -> tuple[Float[np.ndarray, "text"], Bool[np.ndarray, "text"], Float[np.ndarray, "text"]]:
    """Scores, which texts are positive, and their mass, checked."""
    values, mass = finite("scores", scores), _weights("weights", weights, len(scores))
    if labels.dtype != bool and not np.isin(labels, (0, 1)).all():
        raise InputError(
            f"labels hold {sorted(set(labels.tolist()) - {0, 1})[:5]}; give 1 (or True) for positives and 0 for negatives"
        )
    positive = labels == 1
    if not mass[positive].sum() > 0:
        raise InputError("labels hold no positive (of positive weight); give at least one text labelled 1")
    return values, positive, mass


def finite(name: str, values: Float[np.ndarray, "text"]) -> Float[np.ndarray, "text"]:
    """`values` as float64.

    Raises:
        InputError: one is not finite; its place is named.
    """
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
