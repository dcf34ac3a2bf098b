"""Texts of one document go together: how much less they tell than as many texts of different documents."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def design_effect(sides: Sequence[Float[np.ndarray, "_"]], texts: Sequence[Int[np.ndarray, "_"]], documents: Int[np.ndarray, " text"]) -> float:  # fmt: skip
    """By how much the variance of a sum of means is greater than if texts of one document were of different ones (Rao and Scott 1992).

    The variance by documents is that of sums over each document's texts, so that what two groups share of a document counts as well. Where
    nothing varies a document counts as one text.

    Args:
        sides: one value a decision, in each group; NaN where there is none.
        texts: the number of the text of each.
        documents: that each text of the corpus is of.

    Returns:
        At least 1; 1 where no document has two of the texts.

    >>> right = np.array([1.0, 1.0, 0.0, 0.0])
    >>> design_effect([right], [np.arange(4)], np.array([0, 0, 1, 1])), design_effect([right], [np.arange(4)], np.arange(4))
    (2.0, 1.0)
    """
    known = [(values[kept], some[kept]) for values, some in zip(sides, texts, strict=True) if (kept := ~np.isnan(values)).any()]  # fmt: skip
    if not known:
        return 1.0
    off = np.concatenate([(values - values.mean()) / len(values) for values, _ in known])
    numbers = np.concatenate([some for _, some in known])
    spread: list[float] = []
    groups: list[int] = []
    for of in (numbers, documents[numbers]):
        _, group = np.unique(of, return_inverse=True)
        groups.append(int(group.max()) + 1)
        spread.append(float((np.bincount(group, off) ** 2).sum()))
    if groups[0] == groups[1]:
        return 1.0
    return max(spread[1] / spread[0] if spread[0] > 0 else groups[0] / groups[1], 1.0)


def placements(positives: Float[np.ndarray, "positive"], negatives: Float[np.ndarray, "negative"]) -> tuple[Float[np.ndarray, "positive"], Float[np.ndarray, "negative"]]:  # fmt: skip
    """The share of the other group that each value is on the right side of, a tie counting half: AUROC is the mean of either (DeLong 1988)."""

    def below(values: Float[np.ndarray, "_"], others: Float[np.ndarray, "_"]) -> Float[np.ndarray, "_"]:
        others = np.sort(others)
        return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * len(others))

    return below(positives, negatives), 1 - below(negatives, positives)
