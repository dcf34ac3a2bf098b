"""Scores of yes-or-no decisions on texts of two groups: balanced accuracy with its interval, precision and F1 at a prevalence.

A decision that failed is no decision: it is missing from the value, is counted, and bounds it from both sides.
"""

import math
from collections.abc import Sequence

from fade_lens._util.reasons import Reason
from fade_lens.metrics.intervals import share_interval
from fade_lens.metrics.metric import Metric

Outcome = bool | None
"""Whether a decision was right; None where there is none."""


def precision_and_f1(recall: float, false_alarms: float, prevalence: float) -> tuple[float | None, float | None]:
    """Precision and F1 where a share `prevalence` of all texts are positives; None where nothing would be found.

    Args:
        recall: share of positives that are found.
        false_alarms: share of negatives that are found.
        prevalence: in [0, 1].

    >>> precision_and_f1(0.75, 0.25, 0.5)
    (0.75, 0.75)
    """
    hits, alarms = recall * prevalence, false_alarms * (1 - prevalence)
    if not hits + alarms > 0:
        return None, None
    return hits / (hits + alarms), 2 * hits / (hits + alarms + prevalence)


def balanced(
    found: Sequence[Outcome], spared: Sequence[Outcome], *, paired: bool = False, effect: float = 1.0
) -> Metric:
    """Balanced accuracy of decisions: the mean of the share of positives and of the share of negatives that were decided rightly.

    The interval joins the two shares' score intervals (MOVER: Zou and Donner 2008; for pairs Newcombe 1998, method 10).

    Args:
        found: outcomes of positives.
        spared: outcomes of negatives.
        paired: whether both are of the same texts, in the same order.
        effect: how many decisions tell as much as one would alone, where texts of one document go together (see `metrics.clustered`).

    Returns:
        0.5 by chance. Counts: `positives` and `negatives` that were decided, `unanswered`. Details: `recall`, `specificity`, precision and F1
        at equal numbers, and `worst` and `best`: the value if all that is missing were wrong, or right. Undefined without a decision
        on either side.

    >>> balanced([True, True, None], [True, False]).value
    0.75
    """
    sides = [[outcome for outcome in side if outcome is not None] for side in (found, spared)]
    missing = len(found) + len(spared) - sum(map(len, sides))
    counts = {"positives": len(sides[0]), "negatives": len(sides[1]), "unanswered": missing}
    if not (sides[0] and sides[1]):
        side = "positives" if found and not sides[0] else "negatives"
        return Metric(None, Reason("unanswered", f"the judge decided none of the {side}"), counts=counts)
    hits, passed = (sum(side) for side in sides)
    recall, specificity = hits / len(sides[0]), passed / len(sides[1])
    limits = [share_interval(sum(side) / effect, len(side) / effect) for side in sides]
    pairs = [(a, b) for a, b in zip(found, spared, strict=True) if a is not None and b is not None] if paired else []
    together = association(pairs)
    value = (recall + specificity) / 2
    below = spread(recall - limits[0][0], specificity - limits[1][0], together)
    above = spread(limits[0][1] - recall, limits[1][1] - specificity, together)
    precision, f1 = precision_and_f1(recall, 1 - specificity, 0.5)
    whole = (len(found), len(spared))
    details = {
        "recall": recall, "specificity": specificity, "precision": precision, "f1": f1,
        "worst": (hits / whole[0] + passed / whole[1]) / 2,
        "best": ((hits + whole[0] - len(sides[0])) / whole[0] + (passed + whole[1] - len(sides[1])) / whole[1]) / 2,
    }  # fmt: skip
    return Metric(value, None, (max(value - below / 2, 0.0), min(value + above / 2, 1.0)), counts, details)


def spread(a: float, b: float, together: float) -> float:
    """How far the sum of two values may be off whose own limits are `a` and `b` away."""
    return math.sqrt(max(a**2 + b**2 + 2 * together * a * b, 0.0))


def association(pairs: Sequence[tuple[bool, bool]]) -> float:
    """The correlation (phi) of two outcomes of the same texts; 0 where either is always the same.

    >>> association([(True, True), (False, False)]), association([(True, True), (True, False)])
    (1.0, 0.0)
    """
    n = len(pairs)
    a, b, both = (sum(x for x, _ in pairs), sum(y for _, y in pairs), sum(x and y for x, y in pairs))
    under = math.sqrt(a * (n - a) * b * (n - b))
    return (n * both - a * b) / under if under else 0.0
